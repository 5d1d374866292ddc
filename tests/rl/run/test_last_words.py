"""The end of a run in words: RL's hardest questions are shown as questions, with the step that shows them."""

import json

import numpy as np
from rl_helpers import make_scored, new_id

from rewards.types import Task
from rl.rollout_log import RolloutLog
from rl.run.last_words import _success_lines
from rollouts.patches import Patches
from rollouts.types import Prompt


def prompt(number):
    task = Task(id=f"sums/{number}/18792252", source="sums", question=f"What is {number} + 1?\n" * 9, answer="7")
    none = np.zeros((0, 3, 14, 14), np.float32)
    return Prompt(
        id=new_id(),
        task=task,
        input_ids=np.arange(3),
        patches=Patches(none),
        image_grid_hws=np.zeros((0, 2), np.int64),
    )


def write(folder, steps):
    log = RolloutLog(folder / "rollouts")
    for step, numbers in steps.items():
        log.write(step, [(make_scored(prompt(n), 0.0),) for n in numbers], [], [])
    rates = {prompt(n).task.id: {"success": n / 10, "groups": 1} for n in range(5)}
    (folder / "success.json").write_text(json.dumps(rates))


def test_the_hardest_questions_with_the_newest_step_that_shows_them(tmp_path):
    write(tmp_path, {1: [0, 1, 2], 2: [1, 3], 3: [4]})
    first, *hardest = _success_lines(tmp_path)
    assert first.startswith("5 tasks used in RL: mean success 0.20, 1 never solved, 0 always")
    assert [line[: line.index("?")] for line in hardest] == [f"  hardest: What is {n} + 1" for n in range(3)]
    assert [line[line.index("(reference") :] for line in hardest] == [
        f"(reference 7; step {step}); success {rate}" for step, rate in ((1, "0.00"), (2, "0.10"), (1, "0.20"))
    ]
    assert not any("18792252" in line or "\n" in line for line in hardest)
    assert max(map(len, hardest)) < 130


def test_a_damaged_log_of_rollouts_leaves_out_the_questions(tmp_path):
    write(tmp_path, {1: [0]})
    next((tmp_path / "rollouts").glob("*.parquet")).write_bytes(b"no Parquet")
    assert len(_success_lines(tmp_path)) == 1
