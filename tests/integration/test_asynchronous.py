"""Whole asynchronous runs: as a synchronous one at staleness 0; ahead of the learner; killed and resumed."""

import os
import signal
import threading
import zlib
from collections import Counter

import psutil
import pytest
from test_resume import SAME, different

from configs.load import dump_recipe, load_recipe
from rl.rollout_log import read_rollouts
from rl.run.trackers.jsonl_tracker import read_metrics
from rollouts.sources.rollout_pipeline import request_seed
from rollouts.tasks.mixture import TaskMixture

pytestmark = pytest.mark.timeout(900)
STEPS, PROMPTS, SAMPLES = 6, 6, 4


def before_rl(mini, whole):
    """The supervised stages of another run, under this one's recipe."""
    mini.begin_before_rl(whole)
    config = load_recipe(mini.folder / "mini.yaml", mini.overrides)
    (mini.run_folder / "recipe.yaml").write_text(dump_recipe(config))
    return config


def rows(mini):
    return list(read_rollouts(mini.run_folder / "rl" / "rollouts"))


def test_staleness_zero_is_the_synchronous_run(whole_run, make_mini):
    """Tokens, log-probs, scores and advantages to the last bit, and so the weights."""
    undisturbed, _ = whole_run
    mini = make_mini("rl.asynchronous.max_staleness=0")
    before_rl(mini, undisturbed)
    mini.here()
    assert mini.rollouts() == undisturbed.rollouts()
    assert len(mini.rollouts()) == STEPS
    assert different(mini.learner()["model"], undisturbed.learner()["model"]) == []
    own, wanted = (read_metrics(m.run_folder / "metrics.jsonl", stage="rl") for m in (mini, undisturbed))
    assert [[r[name] for name in SAME] for r in own] == [[r[name] for name in SAME] for r in wanted]
    assert mini.undeclared_metrics() == set()
    assert [r["staleness_max"] for r in own] == [0.0] * STEPS
    assert all(r["staleness/0"] == 1.0 for r in own)
    assert [r["discarded/filtered"] for r in own] == [r["discarded/filtered"] for r in wanted]


@pytest.mark.chaos
def test_killed_and_resumed_no_task_is_lost_and_none_counts_twice(whole_run, make_mini):
    steps = 5
    mini = make_mini("rl.asynchronous.max_staleness=2", f"rl.steps={steps}", "rl.save_every=1")
    config = before_rl(mini, whole_run[0])
    code, output, seen = mini.stop_at("rl", 2, signal.SIGKILL)
    assert code == -signal.SIGKILL, output
    assert 2 <= seen < steps, "the signal came too late"
    kept = mini.checkpoint()
    ahead = range(kept["step"], min(kept["step"] + 2, steps))
    assert kept["source"]["chosen"] == ahead.stop
    assert Counter(g["step"] for g in kept["source"]["groups"]) == dict.fromkeys(ahead, PROMPTS)
    finished = [g for g in kept["source"]["groups"] if g["finished"] is not None]

    printed = mini.here()
    assert f"resuming rl after step {kept['step']}" in printed
    logged = rows(mini)
    places = [(row["step"], row["group"], row["sample"]) for row in logged]
    assert places == [(s + 1, g, i) for s in range(steps) for g in range(PROMPTS) for i in range(SAMPLES)]
    mixture = TaskMixture(config.data.train, seed=request_seed(config.seed, zlib.crc32(b"rl")), base=mini.folder)
    drawn = [task.id for step in range(steps) for task in mixture.draw(step, PROMPTS)]
    assert [row["task"] for row in logged[::SAMPLES]] == drawn
    for group in finished:  # what was answered before the kill was not asked again
        own = [row["token_ids"] for row in logged if row["step"] == group["step"] + 1]
        assert all(completion.token_ids.tolist() in own for completion, _, _ in group["finished"])

    metrics = read_metrics(mini.run_folder / "metrics.jsonl", stage="rl")
    assert [r["version"] for r in metrics] == list(range(1, steps + 1))
    assert max(r["staleness_max"] for r in metrics) in (1.0, 2.0)
    for row in logged:
        versions = [segment["version"] for segment in row["segments"]]
        assert max(0, row["step"] - 1 - 2) <= versions[0] <= versions[-1] <= row["step"] - 1


class Killer(threading.Thread):
    """Kills a worker that serves, once step 1 is recorded, and both once step 3 is."""

    def __init__(self, mini):
        super().__init__(daemon=True)
        self.mini, self.killed, self.over = mini, [], threading.Event()

    def run(self):
        for step, count in ((1, 1), (3, 2)):
            while not self.over.wait(0.005) and self.mini.last_step("rl") < step:
                pass
            workers = [p for p in psutil.Process().children(recursive=True) if self.is_worker(p)]
            for process in [p for p in workers if p.pid not in self.killed][:count]:
                os.kill(process.pid, signal.SIGKILL)
                self.killed.append(process.pid)

    def is_worker(self, process):
        try:
            return process.cmdline()[:1][0].startswith("ray::RolloutActor") and process.status() != "zombie"
        except (psutil.Error, IndexError):
            return False


@pytest.mark.slow
def test_killed_workers_lose_nothing(whole_run, make_mini):
    mini = make_mini("rl.asynchronous.max_staleness=1")
    before_rl(mini, whole_run[0])
    killer = Killer(mini)
    killer.start()
    printed = mini.here()
    killer.over.set()
    killer.join()
    assert len(killer.killed) == 3, printed
    assert printed.count("a fresh one takes its place") == 3
    logged = rows(mini)
    assert len(logged) == STEPS * PROMPTS * SAMPLES
    assert [row["task"] for row in logged] == [row["task"] for row in rows(whole_run[0])]
    metrics = read_metrics(mini.run_folder / "metrics.jsonl", stage="rl")
    assert metrics[-1]["workers/deaths"] == 3
    assert all(r["parity_gap"] < 1e-3 for r in metrics)
