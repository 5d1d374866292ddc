"""Every file that a run's folder holds, damaged in every way, under every command that reads it: never a traceback."""

import json
import shutil

import pytest

from configs.errors import UserError
from rl.rollout_log import read_rollouts
from rl.run.trackers.jsonl_tracker import read_metrics

DAMAGES = {
    "empty": lambda data: b"",
    "cut": lambda data: data[: len(data) // 2],
    "binary": lambda data: bytes(range(256)) * 4,
    "list": lambda data: b"[]",
    "null": lambda data: b"null",
    "other": lambda data: b'{"stages": 3, "seconds": "x", "name": [], "step": {}}',
    "nested": lambda data: b"[" * 100_000,
    "text": lambda data: b"\xef\xbb\xbfno such thing\n",
    "flipped": lambda data: data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 0xFF]) + data[len(data) // 2 + 1 :],
}
JSON = ("instruct/stage.json", "rl/stage.json", "summary.json", "quarantine.json", "rl/success.json")
COMMANDS = {
    "run": ("run", "{run}/recipe.yaml"),
    "export": ("export", "{run}", "--licence", "mit"),
    "chat": ("chat", "{run}", "--question", "2 + 2?", "--max-new-tokens", "2"),
    "rescore": ("rescore", "{run}"),
    "replay": ("replay", "{run}", "1"),
    "eval": ("eval", "{run}", "--tasks", "1", "--samples", "1", "evaluation.max_new_tokens=2"),
}
MODEL = (
    "config.json",
    "model.safetensors",
    "tokenizer_config.json",
    "preprocessor_config.json",
    "generation_config.json",
)


@pytest.fixture
def whole_run(run_folder):
    (run_folder / "rl" / "success.json").write_text(json.dumps({"a": {"success": 0.5, "groups": 2}}))
    (run_folder / "quarantine.json").write_text("[]")
    (run_folder / "metrics.jsonl").write_text('{"stage": "rl", "step": 1, "time": 1.0, "reward_mean": 0.5}\n')
    (run_folder / "changes.jsonl").write_text('{"time": 1.0, "changed": {"threads": [1, 2]}}\n')
    (run_folder / "rl" / "rollouts").mkdir()
    (run_folder / "rl" / "rollouts" / "step-000001.parquet").write_bytes(b"PAR1")
    return run_folder


def damage(path, how):
    if how == "folder":
        path.unlink()
        path.mkdir()
    else:
        data = path.read_bytes()
        path.write_bytes(DAMAGES[how](data))


def check(call, command, run):
    code, output, errors = call(*(part.format(run=run) for part in COMMANDS[command]))
    assert code in (0, 1), errors
    assert "Traceback" not in output + errors
    if code:
        assert errors.startswith("error: "), errors
        assert len(errors) < 3000, "an error is short"
    return code, errors


@pytest.mark.parametrize("how", [*DAMAGES, "folder"])
@pytest.mark.parametrize("command", ["run", "export"])
def test_a_damaged_file_of_a_run_is_an_error_that_names_it(whole_run, thinkvl, how, command):
    """One run, a file at a time: each is put back before the next."""
    for name in (*JSON, "recipe.yaml", "metrics.jsonl", "changes.jsonl"):
        path = whole_run / name
        shutil.copy(path, whole_run.parent / "kept")
        damage(path, how)
        code, errors = check(thinkvl, command, whole_run)
        if code:
            assert path.name in errors, (name, errors)
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        shutil.copy(whole_run.parent / "kept", path)
        for made in ("export",):
            shutil.rmtree(whole_run / made, ignore_errors=True)


@pytest.mark.parametrize("how", ["empty", "cut", "binary", "list", "other", "nested", "folder"])
def test_a_damaged_model_is_an_error(whole_run, thinkvl, how):
    model = whole_run / "rl" / "model"
    for path in sorted(model / name for name in MODEL if (model / name).exists()):
        shutil.copy(path, whole_run.parent / "kept")
        damage(path, how)
        check(thinkvl, "chat", whole_run)
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        shutil.copy(whole_run.parent / "kept", path)


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json", "preprocessor_config.json"])
def test_a_run_from_a_damaged_model_is_an_error_that_names_it(whole_run, thinkvl, name):
    model = whole_run / "rl" / "model"
    damage(model / name, "cut")
    code, output, errors = thinkvl("run", whole_run / "recipe.yaml", f"model.path={model}", "output_dir=runs/other")
    assert code == 1
    assert "Traceback" not in output + errors
    assert errors.startswith("error: ")
    assert str(model) in errors


@pytest.mark.parametrize("how", [*DAMAGES, "folder"])
def test_damaged_rollouts_are_an_error_that_names_the_file(whole_run, thinkvl, how):
    damage(whole_run / "rl" / "rollouts" / "step-000001.parquet", how)
    code, errors = check(thinkvl, "rescore", whole_run)
    assert code == 1
    assert "step-000001.parquet: is damaged or no file of rollouts" in errors


@pytest.mark.parametrize("how", [*DAMAGES, "folder"])
def test_a_damaged_skipped_update_is_an_error_that_names_the_file(whole_run, thinkvl, how):
    kept = whole_run / "rl" / "skipped" / "step-000001"
    kept.mkdir(parents=True)
    (kept / "update-1.pt").write_bytes(b"PK")
    damage(kept / "update-1.pt", how)
    code, errors = check(thinkvl, "replay", whole_run)
    assert code == 1
    assert "update-1.pt cannot be read" in errors


def test_lines_that_are_no_metrics_are_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    good = '{"stage": "rl", "step": 1, "reward_mean": 0.5}'
    bad = ["[]", "3", '{"stage": "rl"}', '{"stage": [], "step": 1}', '{"stage": "rl", "step": "1"}', "[" * 100_000]
    bad.append('{"stage": "rl", "step": 2, "reward_mean": "x"}')
    path.write_bytes("\n".join([*bad, good, "\udcff"]).encode("utf-8", "surrogateescape"))
    assert [row["step"] for row in read_metrics(path)] == [1]


def test_rollouts_of_another_schema_are_an_error(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"step": [1]}), tmp_path / "step-000001.parquet")
    with pytest.raises(UserError, match=r"step-000001\.parquet: is damaged or no file of rollouts"):
        list(read_rollouts(tmp_path))


@pytest.mark.parametrize("how", [*DAMAGES, "folder"])
def test_eval_of_a_damaged_run_is_an_error_that_names_the_file(whole_run, thinkvl, how):
    for name in ("rl/stage.json", "recipe.yaml"):
        path = whole_run / name
        shutil.copy(path, whole_run.parent / "kept")
        damage(path, how)
        code, errors = check(thinkvl, "eval", whole_run)
        if code:
            assert path.name in errors, (name, errors)
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        shutil.copy(whole_run.parent / "kept", path)


@pytest.mark.parametrize("how", ["empty", "cut", "binary", "list", "other", "nested", "flipped", "folder"])
def test_eval_of_a_damaged_model_is_an_error(whole_run, thinkvl, how):
    model = whole_run / "rl" / "model"
    for path in sorted(model / name for name in MODEL if (model / name).exists()):
        shutil.copy(path, whole_run.parent / "kept")
        damage(path, how)
        check(thinkvl, "eval", whole_run)
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        shutil.copy(whole_run.parent / "kept", path)


@pytest.mark.parametrize("how", [*DAMAGES, "folder"])
def test_a_damaged_prompt_of_a_model_is_an_error_that_names_it(whole_run, thinkvl, how):
    model, recipe = whole_run / "rl" / "model", whole_run / "recipe.yaml"
    (model / "prompt.json").write_text('{"system": "Be brief.", "template": null}')
    damage(model / "prompt.json", how)
    code, output, errors = thinkvl("eval", model, "--recipe", recipe, "--tasks", "1", "evaluation.max_new_tokens=2")
    assert "Traceback" not in output + errors
    if code or how not in ("flipped", "folder"):
        assert code == 1
        assert "prompt.json" in errors


@pytest.mark.parametrize("how", [*DAMAGES, "folder"])
def test_a_run_that_goes_on_with_a_damaged_file_says_which(whole_run, thinkvl, monkeypatch, how):
    """Trackers, the record of inputs and of changes: read before Ray starts, where this test ends the run."""

    def start(processes, say):
        raise UserError("the run begins")

    monkeypatch.setattr("rl.run.context.start_ray", start)
    (whole_run / "summary.json").unlink()
    (whole_run / "rl" / "stage.json").unlink()
    (whole_run / "inputs.json").write_text('{"tasks of a": {"tasks": 1, "xxh3_128": "a"}}')
    for name in ("inputs.json", "metrics.jsonl", "changes.jsonl", "instruct/stage.json"):
        path = whole_run / name
        shutil.copy(path, whole_run.parent / "kept")
        damage(path, how)
        code, errors = check(thinkvl, "run", whole_run)
        assert code == 1
        assert "the run begins" in errors or path.name in errors, (name, errors)
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        shutil.copy(whole_run.parent / "kept", path)
    shutil.rmtree(whole_run / "tensorboard", ignore_errors=True)
    (whole_run / "tensorboard").write_bytes(b"no folder")
    assert "tracker tensorboard cannot be started: FileExistsError" in check(thinkvl, "run", whole_run)[1]
