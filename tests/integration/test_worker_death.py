"""Workers killed with SIGKILL in the middle of a real run: the run goes on and ends in the same weights."""

import json
import os
import signal
import time

import pytest
from test_resume import SAME, different

from rl.run.trackers.jsonl_tracker import read_metrics
from rollouts.workers.dispatcher import RequestDispatcher

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]  # three fresh workers: minutes on a busy machine


class Killer:
    """Kills workers while they generate: one in the second step, both in the fourth."""

    def __init__(self, monkeypatch):
        self.killed, self.steps, self.hand_out = [], 0, RequestDispatcher._hand_out
        monkeypatch.setattr(RequestDispatcher, "_hand_out", lambda dispatcher: self.handing_out(dispatcher))

    def handing_out(self, dispatcher):
        self.hand_out(dispatcher)
        self.steps += 1
        for slot in {2: [0], 4: [0, 1]}.get(self.steps, []):
            time.sleep(0.02)
            process = dispatcher._pool.worker_group.addresses[slot].pid
            os.kill(process, signal.SIGKILL)
            self.killed.append(process)


def test_killed_workers_change_nothing(whole_run, make_mini, monkeypatch):
    undisturbed, _ = whole_run
    mini = make_mini()
    mini.begin_before_rl(undisturbed)
    killer = Killer(monkeypatch)
    printed = mini.here()
    assert len(killer.killed) == 3, printed
    rows, wanted = (read_metrics(m.run_folder / "metrics.jsonl", stage="rl") for m in (mini, undisturbed))
    assert rows[-1]["workers/deaths"] == 3
    assert wanted[-1]["workers/deaths"] == rows[0]["workers/deaths"] == 0
    assert rows[-1]["workers/quarantined"] == 0
    assert printed.count("a fresh one takes its place") == 3
    assert different(mini.learner()["model"], undisturbed.learner()["model"]) == []
    assert [[r[name] for name in SAME] for r in rows] == [[r[name] for name in SAME] for r in wanted]
    assert mini.rollouts() == undisturbed.rollouts()
    assert len(mini.rollouts()) == 6
    assert json.loads((mini.run_folder / "rl" / "success.json").read_text())
