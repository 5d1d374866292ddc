"""A run whose learner has two ranks: it learns what one process learns, survives a rank's death, and changes ranks."""

import os
import re
import signal
import threading
import time

import psutil
import pytest
import torch
from safetensors.torch import load_file
from test_resume import SAME, different

from configs.errors import UserError
from kimi_vl import load_model
from rl.run.trackers.jsonl_tracker import read_metrics
from rl.stages.rl_schedule import RLSchedule

SAME_STEPS = 2  # then rounding may have made a sampled token another one
# Not the recipe's Muon: it rounds to bfloat16, and one update may do so. `test_meshes.py` compares its ranks.
ADAMW = "rl.optimizer={name: adamw, learning_rate: 1e-3, warmup_steps: 2}"
pytestmark = pytest.mark.timeout(900)  # on a busy machine Ray takes minutes to start


def rank_processes():
    """The learner ranks of this process's own Ray."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if process.cmdline()[:1] and process.cmdline()[0].startswith("ray::RankActor"):
                found.append(process)
        except psutil.Error:
            continue
    return found


def left_over():
    """Those that do not end soon: Ray's kill does not wait for the process."""
    return psutil.wait_procs(rank_processes(), timeout=20)[1]


class Killer(threading.Thread):
    """Kills one rank once a step is recorded."""

    def __init__(self, mini, step):
        super().__init__(daemon=True)
        self.mini, self.step, self.killed, self.over = mini, step, [], threading.Event()
        self.listening = set()  # addresses

    def run(self):
        while not self.over.is_set() and self.mini.last_step("rl") < self.step:
            time.sleep(0.01)
        for process in rank_processes():
            self.listening |= {c.laddr.ip for c in process.net_connections() if c.status == psutil.CONN_LISTEN}
        if (found := rank_processes()) and not self.over.is_set():
            os.kill(found[-1].pid, signal.SIGKILL)
            self.killed.append(found[-1].pid)


save = RLSchedule._save


def save_and_stop(schedule, step):
    """Ctrl-C right after a checkpoint was begun."""
    save(schedule, step)
    raise KeyboardInterrupt


@pytest.fixture(scope="module")
def one_process(whole_run, tmp_path_factory):
    """RL by AdamW in one process."""
    mini = type(whole_run[0])(tmp_path_factory.mktemp("one"), [ADAMW])
    mini.begin_before_rl(whole_run[0])
    mini.here()
    return mini


def compare(mini, undisturbed):
    """The metrics of the first steps are those of one process, to rounding.

    Later, rounding has made a sampled token another one, and the runs are two of one kind.
    """
    rows, wanted = (read_metrics(m.run_folder / "metrics.jsonl", stage="rl") for m in (mini, undisturbed))
    assert [r["step"] for r in rows] == [r["step"] for r in wanted]
    for row, expected in zip(rows, wanted, strict=True):
        for name in SAME if row["step"] <= SAME_STEPS else ("learning_rate", "version"):
            assert row[name] == pytest.approx(expected[name], rel=1e-2, abs=1e-3), (row["step"], name)
        assert row["parity_gap"] < 1e-3


def test_a_supervised_stage_on_two_ranks_is_that_of_one_process(whole_run, make_mini):
    mini = make_mini("instruct.ranks.count=2", "long_cot=null", "rl=null", "export=false")
    mini.here()
    assert not left_over()
    assert list((mini.run_folder / "instruct" / "checkpoints").glob("step-*.shards"))
    rows, wanted = (read_metrics(m.run_folder / "metrics.jsonl", stage="instruct") for m in (mini, whole_run[0]))
    assert [row["step"] for row in rows] == [row["step"] for row in wanted]
    for row, expected in zip(rows, wanted, strict=True):
        for name in ("loss", "grad_norm", "learning_rate", "tokens", "sequence_tokens"):
            assert row[name] == pytest.approx(expected[name], rel=1e-2), (row["step"], name)


@pytest.mark.slow  # two invocations
def test_one_process_in_bfloat16_over_float32_weights(whole_run, make_mini, monkeypatch):
    """Supervised and RL, stopped and continued: engines in bfloat16 are in parity, and the weights stay float32."""
    half = ("instruct.ranks.compute_dtype=bfloat16", "long_cot=null", "rl.ranks.compute_dtype=bfloat16", "rl.steps=4")
    mini = make_mini(*half, "export=false")

    with monkeypatch.context() as patch:
        patch.setattr(RLSchedule, "_save", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            mini.here()
    assert "resuming rl after step 2" in mini.here()
    own, exact = (read_metrics(m.run_folder / "metrics.jsonl", stage="instruct") for m in (mini, whole_run[0]))
    assert own[0]["loss"] == pytest.approx(exact[0]["loss"], rel=0.02)
    assert own[0]["loss"] != exact[0]["loss"]
    rows = read_metrics(mini.run_folder / "metrics.jsonl", stage="rl")
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert all(1e-6 < row["parity_gap"] < 0.1 for row in rows)
    (saved,) = (mini.run_folder / "rl" / "best").glob("*.safetensors")
    assert {tensor.dtype for tensor in load_file(saved).values()} == {torch.float32}


@pytest.mark.chaos
def test_two_ranks_learn_what_one_process_learns_and_a_death_loses_nothing(whole_run, one_process, make_mini):
    mini = make_mini("rl.ranks={count: 2, restarts: 0}", ADAMW)
    mini.begin_before_rl(whole_run[0])
    killer = Killer(mini, step=3)
    killer.start()
    with pytest.raises(UserError, match=r"learner rank [01] of 2 died.*the same command continues the run"):
        mini.here()
    killer.over.set()
    killer.join()
    assert len(killer.killed) == 1
    assert killer.listening == {"127.0.0.1", "::ffff:127.0.0.1"}, "a run of one machine is heard on no other"
    assert not left_over(), "the other rank was not ended"
    checkpoints = mini.run_folder / "rl" / "checkpoints"
    assert (checkpoints / "step-000002.shards").is_dir()
    assert 3 <= mini.last_step("rl") < 6, "it was killed too late"

    printed = mini.here()
    assert "resuming rl after step" in printed
    assert not left_over()
    assert not list(checkpoints.glob("*.partial"))
    assert sorted(p.stem for p in checkpoints.glob("*.shards")) == sorted(p.stem for p in checkpoints.glob("*.pt"))

    compare(mini, one_process)


@pytest.mark.chaos
def test_a_run_that_loses_a_rank_ends_as_an_undisturbed_one(whole_run, make_mini, tmp_path):
    """Within one command, to the bit: it goes back to step 2 and repeats the rest."""
    mini = make_mini("rl.ranks.count=2")
    calm = type(mini)(tmp_path / "calm", mini.overrides)
    for one in (calm, mini):
        one.begin_before_rl(whole_run[0])
    calm.here()
    killer = Killer(mini, step=3)
    killer.start()
    printed = mini.here()
    killer.over.set()
    killer.join()
    assert len(killer.killed) == 1, "it was killed too late"
    assert re.search(
        r"learner rank [01] of 2 died; rl goes back to its newest checkpoint with new ranks .*1 of", printed
    )
    assert re.search(r"resuming rl after step [24]", printed)
    assert not left_over()
    final, expected = (load_model(m.run_folder / "rl" / "model").state_dict() for m in (mini, calm))
    assert different(final, expected) == []
    assert mini.rollouts() == calm.rollouts()
    rows, wanted = (read_metrics(m.run_folder / "metrics.jsonl", stage="rl") for m in (mini, calm))
    assert [[r[name] for name in SAME] for r in rows] == [[r[name] for name in SAME] for r in wanted]


@pytest.mark.slow  # three invocations; test_sharded_checkpoint.py tests the conversions themselves
def test_a_run_goes_on_with_another_number_of_ranks(whole_run, one_process, make_mini, monkeypatch):
    """One process runs to step 2, two ranks to step 4, and one rank to the end."""
    mini = make_mini(ADAMW)
    mini.begin_before_rl(whole_run[0])
    checkpoints = mini.run_folder / "rl" / "checkpoints"

    with monkeypatch.context() as patch:
        patch.setattr(RLSchedule, "_save", save_and_stop)
        for count in (1, 2):
            with pytest.raises(KeyboardInterrupt):
                mini.here(f"rl.ranks.count={count}")
            assert bool(list(checkpoints.glob("*.shards"))) == (count == 2)
    assert "resuming rl after step 4" in mini.here("rl.ranks.count=1")
    compare(mini, one_process)
