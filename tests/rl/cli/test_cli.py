"""Help, exit codes, and what the command says about mistakes."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from cli_helpers import write_run
from safetensors.torch import load_file, save_file

from configs.errors import ConfigError, Problem, UserError
from configs.version import VERSION
from rewards.plugins.interface import PluginError
from rl.checkpoint import CheckpointError
from rl.cli.errors import explain
from rl.cli.open_model import check_base_model, find_model, open_model
from rollouts.tasks.dataset import DataSetError


class TestHelp:
    def test_every_command_has_a_paragraph_and_an_example_that_names_it(self, thinkvl):
        for command in ("run", "eval", "export", "chat"):
            code, output, _ = thinkvl(command, "--help")
            assert code == 0
            assert "Example" in output
            assert f"thinkvl {command} " in " ".join(output.split())

    def test_version_and_overview(self, thinkvl):
        assert thinkvl("--version")[:2] == (0, f"thinkvl {VERSION}\n")
        assert all(name in thinkvl("--help")[1] for name in ("run", "eval", "export", "chat", "quickstart.yaml"))

    @pytest.mark.parametrize(
        ("command", "given", "instead"),
        [
            ("run", ["--rl.steps=5"], "rl.steps=5"),
            ("plan", ["--rl.steps", "5", "seed=1"], "rl.steps=5"),
            ("submit", ["-rl.steps=5"], "rl.steps=5"),
            ("audit", ["--data.train.0.limit"], "data.train.0.limit=VALUE"),
            ("curate", ["--rl.steps=5"], "rl.steps=5"),
            ("run", ["--seed=7"], "seed=7"),
            ("build-cot", ["--rl.steps=5"], "rl.steps=5"),
            ("doctor", ["--rl.steps=5"], "rl.steps=5"),
            ("eval", ["--rl.steps=5"], "rl.steps=5"),
        ],
    )
    def test_a_change_of_the_recipe_with_dashes(self, thinkvl, command, given, instead):
        code, _, errors = thinkvl(command, "x.yaml", *given)
        assert code == 2
        assert errors == f"error: {given[0]}: no such option; a change of the recipe has no dashes: {instead}\n"

    def test_other_options_keep_their_own_errors(self, thinkvl):
        code, _, errors = thinkvl("run", "x.yaml", "--bogus")
        assert (code, "No such option: --bogus" in errors) == (2, True)
        assert "no such file" in thinkvl("plan", "x.yaml", "--gpus=8")[2], "an option of the command"

    def test_help_loads_neither_torch_nor_ray(self):
        code = (
            "import sys; sys.argv = ['thinkvl', 'chat', '--help']\n"
            "from rl.cli import main as cli\n"
            "try: cli.main()\n"
            "except SystemExit as end: assert not end.code\n"
            "assert not {'torch', 'ray', 'transformers'} & set(sys.modules)"
        )
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


class TestExitCodes:
    def test_usage_is_2(self, thinkvl):
        assert thinkvl("evil")[0] == 2
        assert thinkvl("run")[0] == 2
        assert thinkvl("chat", "m", "--temperature", "-1")[0] == 2

    def test_a_wrong_recipe_is_1_with_one_text(self, thinkvl, tmp_path):
        (tmp_path / "ok.yaml").write_text("name: a\noutput_dir: b\nstages: [{kind: sft, name: instruct, steps: 1}]\n")
        code, _, text = thinkvl("run", "nope.yaml")
        assert code == 1
        assert text.startswith("error: nope.yaml: no such file")
        code, _, text = thinkvl("run", "ok.yaml", "instruct.stepz=2")
        assert code == 1
        assert "did you mean instruct.steps?" in text
        assert "Traceback" not in text

    def test_brackets_in_a_message_are_no_markup(self, thinkvl, tmp_path):
        (tmp_path / "ok.yaml").write_text("name: a\noutput_dir: b\nstages: [{kind: sft, steps: [1]}]\n")
        assert "[1]" in thinkvl("run", "ok.yaml")[2]

    def test_our_own_mistakes_keep_their_traceback(self, thinkvl, monkeypatch, run_folder):
        def broken(*_, **__):
            raise KeyError("ours")

        monkeypatch.setattr("rl.cli.chat.chat_command", broken)
        with pytest.raises(KeyError):
            thinkvl("chat", run_folder)

    @pytest.mark.parametrize(
        ("signals", "code"),
        [([signal.SIGINT], 130), ([signal.SIGINT, signal.SIGINT], 130), ([signal.SIGTERM], 143)],
    )
    def test_ctrl_c_is_130_and_sigterm_143(self, signals, code):
        """Real signals to a real process that waits for a question, the second while it cleans up."""
        program = (
            "import sys, time, types\n"
            "def wait(*_, **__):\n"
            "    try: print('ready', flush=True); time.sleep(60)\n"
            "    finally: print('cleaning', flush=True); time.sleep(0.5)\n"
            "stub = types.SimpleNamespace(ChatOptions=dict, chat_command=wait)  # torch takes seconds to load\n"
            "sys.modules['rl.cli.chat'] = stub\n"
            "from rl.cli import main as cli\nsys.argv = ['thinkvl', 'chat', 'x']\ncli.main()"
        )
        process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for line, number in zip((b"ready\n", b"cleaning\n"), signals, strict=False):
            assert process.stdout.readline() == line
            process.send_signal(number)
        _, errors = process.communicate(timeout=30)
        assert process.returncode == code
        assert errors.decode() == "stopped\n"


class TestExplain:
    @pytest.mark.parametrize(
        "error",
        [
            UserError("say this"),
            ConfigError((Problem("", "a.yaml", "say this"),)),
            PluginError("say this"),
            DataSetError("say this"),
            CheckpointError("say this"),
        ],
    )
    def test_users_errors_are_told_as_they_are(self, error):
        assert explain(error).endswith("say this")

    @pytest.mark.parametrize("error", [ValueError("x"), RuntimeError("x"), KeyError("x"), TypeError("x")])
    def test_programmers_errors_are_not(self, error):
        assert explain(error) is None

    @pytest.mark.parametrize(
        "error",
        [
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "runs/a/model.safetensors"),
            OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), "runs/a/model.safetensors"),
            RuntimeError("[enforce fail at inline_container.cc] . PytorchStreamWriter failed writing file data/1"),
            Exception("Error while serializing: I/O error: No space left on device (os error 28)"),
        ],
    )
    def test_a_full_disk(self, error):
        text = explain(error)
        assert text.startswith("disk full")
        assert "kept" in text
        assert "run the same command again" in text
        assert getattr(error, "filename", None) is None or error.filename in text

    def test_a_real_full_disk(self):
        with pytest.raises(OSError, match="No space left") as caught, Path("/dev/full").open("wb", buffering=0) as file:
            file.write(b"x")
        assert explain(caught.value).startswith("disk full")

    def test_forbidden_and_missing_files_are_named(self):
        assert "/etc/x: Permission denied; make it" in explain(
            PermissionError(errno.EACCES, "Permission denied", "/etc/x")
        )
        assert explain(FileNotFoundError(errno.ENOENT, "No such file or directory", "a/b")).startswith("a/b: No such")
        assert explain(OSError("we could not find the model")) == "we could not find the model"

    def test_an_error_in_a_ray_task_is_the_error_itself(self):
        from ray.exceptions import RayTaskError

        cause = PluginError("say this")
        wrapped = RayTaskError("f", "a long traceback", cause).as_instanceof_cause()
        assert explain(wrapped) == "say this"
        assert explain(RayTaskError("f", "a long traceback", KeyError("x")).as_instanceof_cause()) is None


class TestFindModel:
    def test_a_run_means_its_last_finished_stage(self, run_folder):
        place = find_model(str(run_folder))
        assert (place.path, place.run, place.stage) == (str(run_folder / "rl" / "model"), run_folder, "rl")
        (run_folder / "rl" / "stage.json").unlink()
        assert find_model(str(run_folder)).stage == "instruct"

    def test_a_folder_and_a_hub_id(self, run_folder):
        model = str(run_folder / "instruct" / "model")
        assert find_model(model).path == model
        assert find_model("moonshotai/Kimi-VL-A3B-Instruct").path == "moonshotai/Kimi-VL-A3B-Instruct"

    def test_a_run_without_a_finished_stage(self, tiny_checkpoint, tmp_path):
        folder = write_run(tmp_path / "begun", tiny_checkpoint, records=())
        with pytest.raises(UserError, match=r"no stage of this run is finished.*thinkvl run .*recipe\.yaml"):
            find_model(str(folder))

    def test_mistakes_say_what_is_there(self, run_folder, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(UserError, match=r"runs/tinny: no such folder \(did you mean runs/tiny\?\)"):
            find_model("runs/tinny")
        with pytest.raises(UserError, match="did you mean runs/tiny/rl/model"):
            find_model("runs/tiny/rl")
        with pytest.raises(UserError, match=r"neither a run \(recipe\.yaml\) nor a model"):
            find_model("runs/tiny/rl/..//..")
        with pytest.raises(UserError, match="is a file"):
            find_model("runs/tiny/recipe.yaml")
        with pytest.raises(UserError, match="no such folder"):
            find_model("./no/where/at all")


class TestBaseModel:
    @pytest.mark.parametrize(
        ("path", "text"),
        [
            ("models/tinny", r"model\.path = models/tinny: no such folder \(did you mean models/tiny\?\)"),
            ("~/no-such-model", r"model\.path = ~/no-such-model: no such folder"),
            ("runs/tiny", r"model\.path = runs/tiny: is a run's folder; .* name runs/tiny/rl/model"),
        ],
    )
    def test_a_path_that_is_no_model_is_refused_before_anything_starts(self, run_folder, monkeypatch, path, text):
        monkeypatch.chdir(run_folder.parents[1])
        Path("models/tiny").mkdir(parents=True)
        with pytest.raises(UserError, match=text):
            check_base_model(path)

    def test_what_can_be_a_model_passes(self, run_folder, monkeypatch):
        monkeypatch.chdir(run_folder.parents[1])
        for path in ("tiny", "runs/tiny/rl/model", "moonshotai/Kimi-VL-A3B-Instruct"):
            check_base_model(path)


class TestOpenModel:
    def test_no_model_of_that_name(self):
        with pytest.raises(UserError, match="no such folder, and the hub does not give"):
            open_model(find_model("no-such-org-here/none"))

    def test_another_kind_of_model(self, run_folder):
        model = run_folder / "rl" / "model"
        config = model / "config.json"
        config.write_text(config.read_text().replace('"model_type": "kimi_vl"', '"model_type": "qwen2"'))
        with pytest.raises(UserError, match="is a qwen2 model"):
            open_model(find_model(str(model)))

    def test_weights_cut_short_or_missing(self, run_folder):
        weights = run_folder / "rl" / "model" / "model.safetensors"
        whole = weights.read_bytes()
        weights.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(UserError, match="damaged or cut short"):
            open_model(find_model(str(run_folder)))
        weights.write_bytes(whole)
        tensors = load_file(weights)
        tensors.popitem()
        save_file(tensors, weights, metadata={"format": "pt"})
        with pytest.raises(UserError, match="cannot be opened"):
            open_model(find_model(str(run_folder)))

    @pytest.mark.parametrize("content", [b"", b"{", b"\0", b"[]"])
    def test_a_damaged_tokenizer(self, run_folder, content):
        (run_folder / "rl" / "model" / "tokenizer.json").write_bytes(content)
        with pytest.raises(UserError, match="cannot be opened"):
            open_model(find_model(str(run_folder)))

    def test_no_tokenizer(self, run_folder):
        for name in ("tokenizer.json", "tiktoken.model"):
            (run_folder / "rl" / "model" / name).unlink()
        with pytest.raises(UserError, match="cannot be opened"):
            open_model(find_model(str(run_folder)))
