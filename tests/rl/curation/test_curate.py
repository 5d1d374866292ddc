"""`thinkvl curate` with a chat server that answers by hand-made rules: what goes, what stays, and what is written."""

import errno
import io
import json
import os
import re
import signal
import subprocess
import sys
import time

import pyarrow.parquet as pq
import pytest
from chat_stand_in import chat_server, says, square, write_rows

from configs.data import SourceConfig
from configs.errors import UserError
from rewards.plugins.interface import PluginError
from rl.curation.chat_server import ServerOptions
from rl.curation.curate import GUESSED, TRIVIAL, UNSOLVED, CurateOptions, curate_command
from rl.curation.duplicates import LEAKED_IMAGE, LEAKED_TEXT, REPEATED
from rl.curation.inputs import DataOptions
from rl.curation.model_options import SamplingOptions
from rl.curation.sample_log import SampleLog
from rl.run.console import PlainConsole
from rollouts.tasks.dataset import DataSetError
from rollouts.tasks.mixture import TaskMixture

SUM = re.compile(r"(\d+) \+ (\d+)")


def right(question):
    return str(sum(map(int, SUM.search(question).groups())))


def solver(question, seed):
    """The first number is in how many of ten seeds the sum is right; sums with 5 are guessed without thinking."""
    tenths, second = map(int, SUM.search(question).groups())
    if "without thinking" in question:
        return says(right(question) if second == 5 else "0")
    return says(right(question) if seed % 10 < tenths else "0", thought="I add them.")


def sums(*pairs, **more):
    return [{"question": f"What is {a} + {b}?", "answer": str(a + b), **more} for a, b in pairs]


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def server():
    with chat_server(solver) as found:
        yield found


@pytest.fixture
def curate(server, tmp_path):
    """`curate(rows, samples=4)` gives (what was printed, the report, the tasks of the output)."""

    def call(rows, *, output="out.parquet", data=None, model=None, **more):
        if rows is not None:
            write_rows(tmp_path / "sums.jsonl", rows)
        options = CurateOptions(
            output=tmp_path / output,
            data=DataOptions(**{"data": "sums.jsonl", **(data or {})}),
            model=SamplingOptions(
                **{"server": ServerOptions(url=server.url, model="m", connections=4), **(model or {})}
            ),
            **more,
        )
        printed = io.StringIO()
        curate_command(options, PlainConsole(file=printed, width=120))
        report = json.loads((tmp_path / output).with_suffix(".report.json").read_text())
        mixture = TaskMixture([SourceConfig(use=output)], seed=0, base=tmp_path)
        return printed.getvalue(), report, {task.question: task for task in mixture.fixed(10**6)}

    return call


def left_out(report):
    return {reason: row["count"] for reason, row in report["left_out"].items()}


class TestWhatStays:
    def test_the_difficulty_is_one_minus_the_pass_rate(self, curate, server):
        _, report, tasks = curate(sums((0, 1), (4, 1), (9, 1)), samples=10, guesses=0)
        for tenths in (0, 4, 9):
            drawn = [b["seed"] % 10 < tenths for b in server.bodies if f" {tenths} + 1?" in b["question"]]
            assert len(drawn) == 10
            assert tasks[f"What is {tenths} + 1?"].difficulty == pytest.approx(1 - sum(drawn) / 10)
        assert report["kept"] == 3
        assert sum(report["levels"].values()) == 3

    def test_ten_samples_and_eight_guesses_are_the_default(self, curate, server):
        curate(sums((4, 1)))
        assert len(server.bodies) == 18
        assert len({body["seed"] for body in server.bodies}) == 18
        assert sum("without thinking" in body["question"] for body in server.bodies) == 8

    def test_what_is_guessed_is_not_sampled(self, curate, server):
        _, report, tasks = curate(sums((4, 1), (6, 5), (10, 2)))
        assert left_out(report) == {GUESSED: 1, TRIVIAL: 1}
        assert set(tasks) == {"What is 4 + 1?"}
        assert len(server.bodies) == 3 * 8 + 2 * 10

    def test_thinking_all_the_same_is_no_guess(self, curate, server):
        server.answer = lambda question, seed: says(right(question), thought="I add them.")
        assert left_out(curate(sums((4, 1)), pass_rates=(0, 1))[1]) == {}

    def test_limits_of_the_pass_rate(self, curate):
        _, report, tasks = curate(sums((0, 1), (10, 1), (5, 1)), guesses=0, pass_rates=(0.05, 0.95))
        assert left_out(report) == {UNSOLVED: 1, TRIVIAL: 1}
        assert set(tasks) == {"What is 5 + 1?"}

    def test_prone_kinds_go_unless_they_are_kept(self, curate):
        rows = [
            *sums((4, 1)),
            {"question": "Is 4 + 1 = 5?", "answer": "yes", "verifier": "yesno"},
            {"question": "Prove that 4 + 1 = 5.", "answer": "5"},
            {"question": "What is 4 + 1 in the end?", "answer": "5", "choices": ["4", "5", "6"]},
        ]
        _, report, _ = curate(rows)
        assert left_out(report) == {"kind: true false": 1, "kind: proof": 1, "kind: multiple choice": 1}
        _, report, tasks = curate(rows, output="kept.parquet", keep_kinds=("proof",), guesses=0)
        assert left_out(report) == {"kind: true false": 1, "kind: multiple choice": 1}
        assert "Prove that 4 + 1 = 5." in tasks

    def test_leaks_and_repetitions_go(self, curate, tmp_path):
        for name, colour, kind in (
            ("a", "red", "PNG"),
            ("b", "red", "JPEG"),
            ("c", "blue", "PNG"),
            ("d", "blue", "WEBP"),
        ):
            (tmp_path / name).write_bytes(square(colour, kind, 64 if kind == "PNG" else 90))
        write_rows(tmp_path / "eval.jsonl", [*sums((7, 2)), *sums((1, 1), images=["a"])])
        rows = [
            *sums((7, 2), (4, 1), (4, 1)),
            *sums((3, 1), images=["b"]),
            *sums((2, 1), images=["c"]),
            *sums((2, 1), images=["d"]),
        ]
        _, report, tasks = curate(rows, data={"against": ("eval.jsonl",)}, guesses=0)
        assert left_out(report) == {LEAKED_TEXT: 1, REPEATED: 2, LEAKED_IMAGE: 1}
        assert set(tasks) == {"What is 4 + 1?", "What is 2 + 1?"}
        assert tasks["What is 2 + 1?"].images[0] in (square("blue"), square("blue", "WEBP", 90))

    def test_a_broken_image_goes(self, curate, tmp_path):
        whole = square("red")
        (tmp_path / "cut.png").write_bytes(whole[: len(whole) - 30])
        (tmp_path / "no.png").write_bytes(b"no image")
        rows = [*sums((4, 1)), *sums((3, 1), images=["cut.png"]), *sums((2, 1), images=["no.png"])]
        printed, report, tasks = curate(rows, guesses=0)
        assert left_out(report) == {"image cannot be read": 1}
        assert report["read"] == 2
        assert "not an image" in printed
        assert set(tasks) == {"What is 4 + 1?"}

    def test_tags_are_kept_or_those_of_the_source_and_capped(self, curate):
        rows = [*sums(*((4, 10 + i) for i in range(6)), domain="big"), *sums((4, 1), (4, 2), domain=None)]
        _, report, tasks = curate(
            rows, data={"columns": ("tags=domain",)}, guesses=0, caps={"big": 2}, pass_rates=(0, 1)
        )
        assert report["tags"] == {"big": 2, "sums": 2}
        assert {task.tags for task in tasks.values()} == {("big",), ("sums",)}
        assert left_out(report) == {"over the cap of a tag": 4}

    def test_a_recipe_brings_its_evaluation_sets_and_prompt(self, curate, server, tmp_path):
        write_rows(tmp_path / "sums.jsonl", sums((4, 1), (3, 2)))
        write_rows(tmp_path / "eval.jsonl", sums((3, 2)))
        (tmp_path / "my.yaml").write_text(
            "name: my\noutput_dir: runs/my\n"
            "data: {train: [{use: sums.jsonl}], held_out: [{use: eval.jsonl}], prompt: {template: 'Sum: {question}'}}\n"
            "stages: [{kind: rl, steps: 1, sampling: {max_new_tokens: 77}, loss: {algorithm: grpo}}]\n"
        )
        _, report, tasks = curate(None, data={"data": "my.yaml"}, guesses=0)
        assert left_out(report) == {LEAKED_TEXT: 1}
        assert set(tasks) == {"What is 4 + 1?"}
        assert {(b["max_tokens"], b["question"]) for b in server.bodies} == {(77, "Sum: What is 4 + 1?")}


class TestOutput:
    def test_rows_say_where_they_come_from(self, curate, tmp_path):
        curate(sums((4, 1)), guesses=0, model={"seed": 3, "temperature": 0.8})
        [row] = pq.read_table(tmp_path / "out.parquet").to_pylist()
        provenance = row["provenance"]
        assert provenance["model"].startswith("m at http://127.0.0.1")
        assert (provenance["seed"], provenance["temperature"], provenance["verifier"]) == (3, 0.8, "math")
        assert provenance["samples"] == 10
        assert row["difficulty"] == pytest.approx(1 - provenance["correct"] / 10)
        assert {"thinkvl", "torch", "transformers", "python"} <= json.loads(provenance["versions"]).keys()
        assert re.match(r"20\d\d-\d\d-\d\dT", provenance["date"])
        assert provenance["task"].startswith("sums.jsonl/")

    def test_images_are_sent_and_written(self, curate, server, tmp_path):
        (tmp_path / "a.gif").write_bytes(square("red", "GIF"))
        _, _, tasks = curate(sums((4, 1), images=["a.gif"]), guesses=0)
        assert tasks["What is 4 + 1?"].images == (square("red", "GIF"),)
        parts = server.bodies[0]["messages"][0]["content"]
        assert [part["type"] for part in parts] == ["image_url", "text"]
        assert parts[0]["image_url"]["url"].startswith("data:image/gif;base64,")

    def test_the_same_seed_gives_the_same_set(self, curate, tmp_path):
        rows = sums(*((i % 9, 10 + i) for i in range(40)))
        for name, seed in (("a", 1), ("b", 1), ("c", 2)):
            curate(rows, output=f"{name}.parquet", samples=4, guesses=0, model={"seed": seed}, caps={"": 20})
        a, b, c = (pq.read_table(tmp_path / f"{name}.parquet").drop_columns("provenance") for name in "abc")
        assert a.equals(b)
        assert not a.equals(c)

    def test_a_second_run_changes_nothing(self, curate, server, tmp_path):
        curate(sums((4, 1)))
        before, sent = (tmp_path / "out.parquet").read_bytes(), len(server.bodies)
        assert "already made" in curate(sums((4, 1)))[0]
        assert (tmp_path / "out.parquet").read_bytes() == before
        assert len(server.bodies) == sent

    def test_another_set_is_not_replaced(self, curate, tmp_path):
        curate(sums((4, 1)))
        with pytest.raises(UserError, match=r"made otherwise:\n  pass_rates: \[0.0, 0.99\] there, \[0.0, 0.5\] now"):
            curate(sums((4, 1)), pass_rates=(0.0, 0.5))
        with pytest.raises(UserError, match=r"made otherwise:\n  tasks: "):
            curate(sums((4, 2)))
        (tmp_path / "mine.parquet").write_bytes(b"mine")
        with pytest.raises(UserError, match="no set that this command made"):
            curate(sums((4, 1)), output="mine.parquet")
        assert (tmp_path / "mine.parquet").read_bytes() == b"mine"

    def test_samples_are_used_again_for_other_limits(self, curate, server, tmp_path):
        curate(sums((4, 1), (6, 1)))
        sent = len(server.bodies)
        (tmp_path / "out.parquet").unlink()
        curate(sums((4, 1), (6, 1)), pass_rates=(0.0, 1.0))
        assert len(server.bodies) == sent
        (tmp_path / "out.parquet").unlink()
        with pytest.raises(UserError, match=r"drawn otherwise:\n  seed: 0 there, 1 now"):
            curate(sums((4, 1), (6, 1)), model={"seed": 1})

    def test_nothing_left_is_an_error_with_the_reasons(self, curate, tmp_path):
        with pytest.raises(UserError, match=r"none of 1 prompt stays: answer guessed without thinking \(1\)"):
            curate(sums((4, 5)))
        assert not (tmp_path / "out.parquet").exists()
        assert left_out(json.loads((tmp_path / "out.report.json").read_text())) == {GUESSED: 1}


class TestMistakes:
    @pytest.mark.parametrize(
        ("more", "text"),
        [
            ({"output": "out.csv"}, "must end in .parquet"),
            ({"keep_kinds": ("proofs",)}, "there are multiple_choice, true_false, proof"),
            ({"pass_rates": (0.9, 0.1)}, "in this order"),
            ({"level_share": 0.0}, "above 0"),
            ({"guess_template": "no field"}, "holds {question} once"),
            ({"model": {"server": None}}, "name either --model"),
            ({"model": {"temperature": -1.0}}, "temperature"),
            ({"data": {"columns": ("tags",)}}, "OURS=THEIRS"),
            ({"data": {"overrides": ("seed=1",)}}, "only a recipe takes changes"),
            ({"data": {"against": ("nowhere.jsonl",)}}, "no such file"),
        ],
    )
    def test_values_that_cannot_be(self, curate, server, more, text):
        with pytest.raises(UserError, match=re.escape(text)):
            curate(sums((4, 1)), **more)
        assert not server.bodies

    @pytest.mark.parametrize("data", ["nowhere.jsonl", "empty.jsonl", "folder"])
    def test_data_that_are_not_there(self, curate, tmp_path, data):
        (tmp_path / "empty.jsonl").touch()
        (tmp_path / "folder").mkdir()
        with pytest.raises(DataSetError):
            curate(None, data={"data": data})

    def test_an_address_with_a_password_is_refused_and_not_repeated(self):
        with pytest.raises(UserError, match="--key-env") as refused:
            ServerOptions(url="https://me:secret@host/v1", model="m")
        assert "secret" not in str(refused.value)

    def test_a_row_runs_no_code(self, curate):
        with pytest.raises(PluginError, match="--allow"):
            curate(sums((4, 1), verifier="evil.py:check"))

    @pytest.mark.parametrize("status", [404, 401])
    def test_a_server_that_refuses_everything(self, curate, server, status):
        server.answer = lambda question, seed: (status, "no such model")
        with pytest.raises(UserError, match=f"no request was answered: status {status}.*no such model"):
            curate(sums((4, 1)))

    def test_a_server_that_refuses_one_prompt(self, curate, server):
        server.answer = lambda q, s: solver(q, s) if "4 + 1" in q else (400, "too long")
        _, report, tasks = curate(sums((4, 1), (3, 1)), guesses=0)
        assert left_out(report) == {"the server failed": 1}
        assert set(tasks) == {"What is 4 + 1?"}

    def test_a_damaged_log(self, curate, tmp_path):
        (tmp_path / "out.samples.jsonl").write_text("{}\nno json\n")
        with pytest.raises(UserError, match="damaged or no file of samples"):
            curate(sums((4, 1)))
        (tmp_path / "out.samples.jsonl").unlink()
        os.mkfifo(tmp_path / "out.samples.jsonl")
        with pytest.raises(UserError, match="must be a file"):
            curate(sums((4, 1)))

    def test_a_full_disk_keeps_what_was_drawn(self, curate, server, monkeypatch, tmp_path):
        rows, append = sums(*((4, 10 + i) for i in range(40))), SampleLog.append

        def full(self, name, rows):
            if len(self._places) == 1:
                self._file.write(b'{"block": "half of a li')
                self._file.flush()
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
            append(self, name, rows)

        monkeypatch.setattr(SampleLog, "append", full)
        with pytest.raises(OSError, match="No space left"):
            curate(rows, samples=2, guesses=0)
        monkeypatch.setattr(SampleLog, "append", append)
        sent = len(server.bodies)
        curate(rows, samples=2, guesses=0, pass_rates=(0, 1))
        assert sent == 80
        assert len(server.bodies) == sent + 16  # the second block of 8 prompts again
        assert len((tmp_path / "out.samples.jsonl").read_text().splitlines()) == 3


def command(server, *more):
    return [
        *(sys.executable, "-m", "rl.cli.main", "curate", "sums.jsonl", "--server", server.url, "--server-model", "m"),
        *("-o", "out.parquet", "--samples", "2", "--guesses", "0", "--max-pass-rate", "1", *more),
    ]


def test_kill_9_and_the_same_command_again(curate, server, tmp_path):
    """The first block is kept, only the second is drawn again, and the set is that of a run that was never stopped."""
    rows = sums(*((i % 9, 10 + i) for i in range(40)))
    write_rows(tmp_path / "sums.jsonl", rows)

    def stuck(question, seed):
        while len(server.bodies) > 70:
            time.sleep(0.05)
        return solver(question, seed)

    server.answer = stuck
    process = subprocess.Popen(command(server), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    deadline = time.monotonic() + 120
    while len(server.bodies) <= 70 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert process.poll() is None, process.communicate()[0]
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "out.parquet").exists()
    server.answer, server.bodies[:] = solver, []
    done = subprocess.run(command(server), capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert "40 of 40 prompts in out.parquet" in done.stdout
    assert len(server.bodies) == 16
    curate(rows, output="whole.parquet", samples=2, guesses=0, pass_rates=(0, 1))
    whole, resumed = (
        pq.read_table(tmp_path / name).drop_columns("provenance") for name in ("whole.parquet", "out.parquet")
    )
    assert resumed.equals(whole)


def test_the_command_says_what_is_wrong(server, tmp_path):
    write_rows(tmp_path / "sums.jsonl", sums((4, 1)))
    done = subprocess.run(command(server, "--max-per-tag", "many"), capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (1, "")
    assert "--max-per-tag many: must be a number" in done.stderr
