"""`thinkvl export`: the folder, its card, the upload; what was there stays until the new one is whole."""

import errno
import json
import os
import re
import resource
import shlex
import subprocess
import sys

import pytest
import yaml
from cli_helpers import write_run
from hub_stand_in import HubStandIn

from configs.load import load_recipe
from configs.stage_kinds import STAGE_KINDS
from kimi_vl import load_model
from rl.run import model_card as card_page
from rl.run.model_card import CardFacts, model_card, public_recipe
from rollouts.model_family import FAMILIES


def front_matter(card):
    return yaml.safe_load(re.match(r"---\n(.*?)---\n", card, re.DOTALL)[1])


def facts(run_folder, *overrides, **changes):
    config = load_recipe(run_folder / "recipe.yaml", overrides)
    summary = json.loads((run_folder / "summary.json").read_text())
    values = {
        "family": FAMILIES["kimi_vl"],
        "licence": "mit",
        "name": "a",
        "repo_id": None,
        "parameters": 16_400_000_000,
    } | changes
    return CardFacts(config=config, summary=summary, **values)


class TestFolder:
    def test_it_holds_model_code_and_card(self, thinkvl, run_folder):
        code, output, _ = thinkvl("export", run_folder)
        export = run_folder / "export"
        assert code == 0
        assert "thinkvl chat" in output
        assert {"README.md", "config.json", "model.safetensors", "modeling_kimi_vl.py", "tokenizer.json"} <= {
            path.name for path in export.iterdir()
        }
        assert "auto_map" in json.loads((export / "config.json").read_text())
        load_model(export)
        assert not (run_folder / "export.partial").exists()

    def test_again_gives_the_same_bytes(self, thinkvl, run_folder, tmp_path):
        for name in ("a", "b", "b"):
            assert thinkvl("export", run_folder, "--output", tmp_path / name)[0] == 0
        first, second = ({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in "ab")
        assert first == second

    def test_the_folder_of_something_else_is_left_alone(self, thinkvl, run_folder, tmp_path):
        mine = tmp_path / "thesis"
        mine.mkdir()
        (mine / "chapter.tex").write_text("x")
        code, _, text = thinkvl("export", run_folder, "--output", mine)
        assert code == 1
        assert "holds something that is no export" in text
        assert [p.name for p in mine.iterdir()] == ["chapter.tex"]

    def test_files_of_mine_beside_an_earlier_export_stay(self, thinkvl, run_folder, tmp_path):
        target = tmp_path / "out"
        assert thinkvl("export", run_folder, "--output", target)[0] == 0
        (target / "notes.md").write_text("mine")
        code, _, text = thinkvl("export", run_folder, "--output", target)
        assert code == 1
        assert "notes.md" in text
        assert (target / "notes.md").read_text() == "mine"
        assert (target / "model.safetensors").exists()

    def test_a_full_disk_keeps_the_older_export(self, thinkvl, run_folder, monkeypatch):
        assert thinkvl("export", run_folder)[0] == 0
        before = {p.name: p.read_bytes() for p in (run_folder / "export").iterdir()}

        def full(model, processor, folder, **_):
            folder.mkdir()
            (folder / "model.safetensors").write_bytes(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder / "model.safetensors"))

        monkeypatch.setattr("kimi_vl.family.save_with_code", full)
        code, _, text = thinkvl("export", run_folder)
        assert code == 1
        assert text.startswith("error: disk full while writing")
        assert {p.name: p.read_bytes() for p in (run_folder / "export").iterdir()} == before
        assert not (run_folder / "export.partial").exists()

    def test_a_file_that_cannot_grow(self, thinkvl, run_folder):
        """A quota that really stops the writing of the weights, in the middle."""
        assert thinkvl("export", run_folder)[0] == 0
        before = {p.name: p.read_bytes() for p in (run_folder / "export").iterdir()}
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        try:
            code, _, text = thinkvl("export", run_folder)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert (code, "disk full" in text, "Traceback" in text) == (1, True, False)
        assert {p.name: p.read_bytes() for p in (run_folder / "export").iterdir()} == before

    def test_mistakes(self, thinkvl, run_folder, tiny_checkpoint, tmp_path):
        assert "is a model, not a run" in thinkvl("export", run_folder / "rl" / "model")[2]
        begun = write_run(tmp_path / "begun", tiny_checkpoint, records=())
        assert "no stage of this run is finished" in thinkvl("export", begun)[2]
        recipe = run_folder / "recipe.yaml"
        recipe.write_text(
            re.sub(r"path: tiny\n((?:  \w+: .+\n)+)  tiny:\n(    .*\n)+", r"path: some/where\n\1", recipe.read_text())
        )
        code, _, text = thinkvl("export", run_folder)
        assert code == 1
        assert "the licence of these weights is not known here; say it with --licence" in text
        assert thinkvl("export", run_folder, "--licence", "other")[0] == 0


class TestCard:
    def test_front_matter(self, run_folder):
        found = front_matter(model_card(facts(run_folder)))
        assert found["license"] == "mit"
        assert found["library_name"] == "transformers"
        assert found["pipeline_tag"] == "image-text-to-text"
        assert {"kimi_vl", "reinforcement-learning", "grpo"} <= set(found["tags"])
        assert "base_model" not in found

    def test_base_model_and_data_sets_of_the_hub(self, run_folder):
        card = model_card(facts(run_folder, "model.path=org/base", "data.train.0={use: org/data, weight: 2}"))
        assert front_matter(card)["base_model"] == "org/base"
        assert front_matter(card)["datasets"] == ["org/data"]
        assert "- `org/data`, split `train`, weight 2" in card
        assert "It is a demonstration" not in card

    def test_the_figures_of_every_stage(self, run_folder):
        card = model_card(facts(run_folder))
        assert "| SFT (instruct) | 3 | 0.250 | 0.200 | 0.000 | 2.0 |" in card
        assert "| RL | 7 | 0.875 | 0.750 | 0.900 | 31.5 |" in card
        assert "16.4 billion parameters" in card

    def test_no_figure_is_a_dash(self, run_folder):
        made = facts(run_folder)
        made.summary["stages"][0]["sampled_accuracy"] = float("nan")
        assert "| 0.250 | - |" in model_card(made)

    def test_the_recipe_is_short_in_the_card_and_whole_beside_it(self, run_folder, tmp_path):
        made = facts(run_folder, f"model.path={tmp_path}/secret/base", "data.train.0={use: /home/me/x.jsonl}")
        card, whole = model_card(made), public_recipe(made.config)
        shown = re.search(r"```yaml\n(.*?)```", card, re.DOTALL)[1]
        assert "learning_rate: 1.0e-06" not in shown, "a default"
        assert len(shown.splitlines()) < 40 < len(whole.splitlines())
        assert "[thinkvl_recipe.yaml](thinkvl_recipe.yaml)" in card
        read = []
        for text in (shown, whole):
            assert str(tmp_path) not in text
            assert "/home/me" not in text
            again = tmp_path / "again.yaml"
            again.write_text(text)
            read.append(load_recipe(again))
        assert read[0] == read[1]
        assert read[0].last_rl.loss.algorithm == "grpo"

    def test_no_file_is_named_that_is_not_there(self, run_folder):
        card = model_card(facts(run_folder))
        assert "demo.png" not in card
        assert 'image_path = "photo.png"  # an image of yours' in card


@pytest.fixture
def hub():
    server = HubStandIn().start()
    yield server
    server.shutdown()
    server.server_close()


class TestPush:
    def command(self, hub, tmp_path, *arguments, token="hf_write"):
        """The installed command in a process and a home of its own."""
        env = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
        env |= {"HF_ENDPOINT": hub.endpoint, "HF_HUB_DISABLE_XET": "1", "HOME": str(tmp_path), "COLUMNS": "200"}
        env |= {"HF_TOKEN": token} if token else {}
        command = [sys.executable, "-m", "rl.cli.main", *map(str, arguments)]
        return subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=120)

    def test_every_byte_of_the_folder_over_a_connection_that_breaks(self, hub, run_folder, tmp_path):
        hub.break_off = lambda oid: hub.count("PUT", oid) == 1  # the first try of each breaks in the middle
        done = self.command(hub, tmp_path, "export", run_folder, "--push", "team/sums")
        assert done.returncode == 0, done.stderr
        assert f"on the hub: {hub.endpoint}/team/sums (private)" in done.stdout
        repository = hub.repositories["team/sums"]
        assert repository.private
        assert repository.files == {p.name: p.read_bytes() for p in (run_folder / "export").iterdir()}
        assert 'model_path = "team/sums"' in repository.files["README.md"].decode()
        assert repository.commits == 1

    def test_what_the_hub_will_refuse_is_known_before_anything_is_written(self, hub, thinkvl, run_folder, monkeypatch):
        monkeypatch.setattr("rl.cli.hub.get_token", lambda: None)
        code, _, text = thinkvl("export", run_folder, "--push", "team/sums")
        assert code == 1
        assert "hf auth login" in text
        assert thinkvl("export", run_folder, "--push", "sums")[0] == 1
        assert not (run_folder / "export").exists()


def test_every_kind_of_stage_has_a_title_in_the_card():
    assert card_page._KINDS.keys() == STAGE_KINDS.keys()


def test_the_snippet_of_the_card_runs_as_it_stands(thinkvl, run_folder, picture, tmp_path):
    assert thinkvl("export", run_folder)[0] == 0
    export = run_folder / "export"
    code = re.search(r"```python\n(.*?)```", (export / "README.md").read_text(), re.DOTALL)[1]
    code = code.replace("path/to/this/folder", str(export))
    picture.rename(tmp_path / "photo.png")
    env = {**os.environ, "HF_HOME": str(tmp_path / "cache")}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_last_line_of_an_export_is_a_command_that_works(thinkvl, run_folder, picture):
    """With the run's own example; a run that has none yet is asked about what is typed in."""
    output = thinkvl("export", run_folder)[1]
    assert output.splitlines()[-1] == f"try it: thinkvl chat {run_folder / 'export'}"
    picture.rename(run_folder / "example.png")
    summary = json.loads((run_folder / "summary.json").read_text())
    (run_folder / "summary.json").write_text(json.dumps(summary | {"example": "What is 1 + 1?"}))
    line = thinkvl("export", run_folder)[1].splitlines()[-1]
    assert line.endswith(f"--image {run_folder / 'example.png'} --question 'What is 1 + 1?'")
    assert thinkvl(*shlex.split(line.removeprefix("try it: thinkvl ")), "--max-new-tokens", 4)[::2] == (0, "")


def test_an_export_deletes_nothing_that_it_did_not_write(thinkvl, run_folder):
    """Folders that are called as ours might be."""
    foreign = [run_folder / name / "mine.txt" for name in ("export.old", "export.partial", ".export-mine")]
    for path in foreign:
        path.parent.mkdir()
        path.write_text("mine")
    before = sorted(p.name for p in run_folder.iterdir())
    for _ in range(2):
        code, _, errors = thinkvl("export", run_folder)
        assert code == 0, errors
    assert all(path.read_text() == "mine" for path in foreign)
    assert sorted(p.name for p in run_folder.iterdir()) == sorted([*before, "export", "lock"])
