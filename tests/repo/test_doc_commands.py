"""Every command in the pages parses; those on this machine and on a run of the quickstart run, among the slow tests."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from rl.cli.main import app

FENCE = re.compile(r"^ *```\w*\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"(?:\.venv/bin/)?thinkvl ")
CHEAP = ("plan", "doctor")  # seconds, and nothing is written
RUN = "runs/quickstart"
OF_A_RUN = ("eval", "chat", "book", "export", "doctor", "rescore")
# What these need, a short run does not have.
ELSEWHERE = ("--push", "--benchmark", "--task", "--step", "my_rewards.py:brevity=0.1")
SHORT = (
    *("reading.steps=4", "long_cot.steps=2", "rl.steps=2", "rl.prompts_per_step=4", "rl.eval_every=2"),
    *("evaluation.tasks=8", "evaluation.validation_tasks=8", f"output_dir={RUN}"),
)


def found_in(text):
    """The commands in the fenced blocks of a page, as lists of words."""
    for block in FENCE.findall(text):
        for line in block.replace("\\\n", " ").splitlines():
            if COMMAND.match(line.strip()):
                yield shlex.split(line.strip(), comments=True)[1:]


@pytest.fixture(scope="module")
def commands(tracked, root):
    """(page, words) of every command; each once."""
    pages = sorted(path for path in tracked if path.suffix == ".md" and path.parts[0] not in ("tests", "runs"))
    found = {}
    for page in pages:
        for words in found_in((root / page).read_text(encoding="utf-8")):
            found.setdefault(tuple(words), page)
    return [(page, list(words)) for words, page in found.items()]


def parse(words):
    """Parse as the command line does, without running anything. Raises what it would say."""
    group = typer.main.get_command(app)
    with group.make_context("thinkvl", list(words)) as context:
        name, command, rest = group.resolve_command(context, [*context._protected_args, *context.args])
        command.make_context(name, rest, parent=context)


def test_every_command_parses(commands):
    assert len(commands) > 40
    wrong = []
    for page, words in commands:
        try:
            parse(words)
        except Exception as error:
            wrong.append(f"{page}: thinkvl {shlex.join(words)}: {type(error).__name__}: {error}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("words", ["plant my.yaml", "plan my.yaml --gpux h100", "replay runs/a", "book"])
def test_a_wrong_command_does_not_parse(words):
    with pytest.raises(Exception, match=r"No such|Missing|[Nn]o such option"):
        parse(words.split())


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_commands_that_need_no_model_run(commands, root):
    ran = 0
    for page, words in commands:
        named = [word for word in words[1:] if word.endswith(".yaml")]
        if words[0] not in CHEAP or not all((root / word).is_file() for word in named) or "runs/" in " ".join(words):
            continue
        command = [sys.executable, "-m", "rl.cli.main", *words]
        environment = {**os.environ, "PYTHONPATH": str(root)}
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=250)
        assert done.returncode in (0, 1), f"{page}: {' '.join(words)}\n{done.stderr[-2000:]}"
        assert "error" not in done.stderr, page
        ran += 1
    assert ran >= 3


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_commands_on_a_trained_run_run(commands, root, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(root)}

    def thinkvl(*words):
        command = [sys.executable, "-m", "rl.cli.main", *words]
        options = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True, "timeout": 400}
        done = subprocess.run(command, cwd=tmp_path, env=environment, **options)
        assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout[-1000:]}\n{done.stderr[-2000:]}"

    thinkvl("run", str(root / "configs" / "recipes" / "quickstart.yaml"), *SHORT)
    for name in ("sum.png", "before.png", "after.png"):
        shutil.copy(tmp_path / RUN / "example.png", tmp_path / name)
    ran = set()
    for _, words in commands:
        if words[0] in OF_A_RUN and words[1:2] and words[1].startswith(RUN) and not set(ELSEWHERE) & set(words):
            thinkvl(*words)
            ran.add(words[0])
    assert ran == set(OF_A_RUN)


def test_pages_of_the_site_are_all_in_its_navigation(tracked, root):
    """`make docs` warns of it too; this needs no MkDocs."""
    text = (root / "mkdocs.yml").read_text(encoding="utf-8")
    named = set(re.findall(r": ([\w-]+\.md)$", text, re.MULTILINE))
    assert named == {path.name for path in tracked if path.parent == Path("docs") and path.suffix == ".md"}


def test_the_page_of_the_api_names_modules(modules, root):
    named = re.findall(r"^::: ([\w.]+)$", (root / "docs" / "api.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(named) >= 15
    assert not [name for name in named if name not in modules]
