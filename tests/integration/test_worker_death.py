"""Workers killed with SIGKILL in the middle of a real run: the run goes on and ends in the same weights."""

import json
import os
import signal
import threading
import time

import psutil
import pytest
from test_resume import SAME, different

from rl.run.trackers.jsonl_tracker import read_metrics

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]  # three fresh workers: minutes on a busy machine


class Killer(threading.Thread):
    """Kills the workers that generate: one once step 1 is recorded, all of them once step 3 is."""

    def __init__(self, mini):
        super().__init__(daemon=True)
        self.mini, self.killed, self.over = mini, [], threading.Event()

    def run(self):
        for step, count in ((1, 1), (3, 2)):
            found = []
            while len(found) < count and not self.over.is_set():
                time.sleep(0.005)
                found = self.generating() if self.mini.last_step("rl") >= step else []
            for process in found[:count]:
                os.kill(process.pid, signal.SIGKILL)
                self.killed.append(process.pid)

    def generating(self):
        """The workers of this process's Ray that are generating now."""
        found = []
        for process in psutil.Process().children(recursive=True):
            try:
                if process.cmdline()[:1] == ["ray::RolloutActor.generate"]:
                    found.append(process)
            except psutil.Error:
                continue
        return found


def test_killed_workers_change_nothing(whole_run, make_mini):
    undisturbed, _ = whole_run
    mini = make_mini()
    mini.begin_before_rl(undisturbed)
    killer = Killer(mini)
    killer.start()
    printed = mini.here()
    killer.over.set()
    killer.join()
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
