"""What is written is what was sampled; written again it is the same file; a full disk leaves nothing half."""

import errno
import json
import subprocess
import sys
import threading
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rl_helpers import make_prompt, make_scored

from rewards.types import Task, VerdictKind
from rl import rollout_log
from rl.rollout_log import SCHEMA, RolloutLog, read_rollouts, task_of
from rl.types import Sample
from rollouts.patches import Patches
from rollouts.sources.group_building import make_groups
from rollouts.types import Completion, Group, Prompt, Rollout, ScoredRollout, Segment

PNG = b"\x89PNG, as far as a log can tell"


@pytest.fixture
def prompt(rng, model):
    made = make_prompt(rng, model)
    task = Task(
        id="t/1", source="sums", question="1+1?", answer="2", images=(PNG, PNG), choices=("1", "2"), difficulty=0.5
    )
    return Prompt(
        id="1.0",
        task=task,
        input_ids=made.input_ids,
        patches=Patches(made.pixel_values),
        image_grid_hws=made.image_grid_hws,
    )


@pytest.fixture
def step(prompt):
    """(scored, groups, samples): a right answer, a wrong one that is not trained on, and a verifier that failed."""
    scored = [
        [
            make_scored(prompt, 1.0, parts={"verifier": 1.0, "format": 0.5}),
            make_scored(prompt, 0.0, kind=VerdictKind.WRONG, length=5, text="lone \ud800 surrogate", finish="length"),
            make_scored(prompt, None, kind=VerdictKind.TIMEOUT),
        ],
        [],
    ]
    groups = make_groups([prompt, prompt], scored)
    better = [ScoredRollout(rollout=m.rollout, score=make_scored(prompt, 7.0).score) for m in groups[0].rollouts]
    groups = [Group(prompt=prompt, rollouts=tuple(better), dropped=1), groups[1]]
    first = scored[0][0].rollout.completion
    samples = [
        Sample(
            id=scored[0][0].rollout.id,
            prompt=prompt,
            token_ids=first.token_ids,
            old_logprobs=first.policy_logprobs,
            advantage=0.25,
        )
    ]
    return scored, groups, samples


def test_every_rollout_has_its_row(tmp_path, step):
    RolloutLog(tmp_path).write(3, *step)
    right, wrong, failed = read_rollouts(tmp_path)
    assert [(r["step"], r["group"], r["sample"]) for r in (right, wrong, failed)] == [(3, 0, 0), (3, 0, 1), (3, 0, 2)]
    assert right["token_ids"] == [0, 1, 2]
    assert right["policy_logprobs"] == [-1.0] * 3
    assert right["sampler_logprobs"] == [-0.5] * 3
    assert right["segments"] == [{"start": 0, "stop": 3, "version": 0}]
    assert dict(right["parts"]) == {"verifier": 1.0, "format": 0.5}
    assert (right["reward"], right["shaped_reward"], right["advantage"]) == (1.0, 7.0, 0.25)
    assert (right["trainable"], wrong["trainable"]) == ([True] * 3, None)
    assert (wrong["verdict"], wrong["finish_reason"], wrong["advantage"]) == ("wrong", "length", None)
    assert wrong["text"] == "lone ? surrogate"
    assert (failed["verdict"], failed["reward"], failed["shaped_reward"]) == ("timeout", None, None)


def test_the_task_comes_back_with_its_images_which_are_stored_once(tmp_path, step, prompt):
    RolloutLog(tmp_path).write(1, *step)
    RolloutLog(tmp_path).write(2, *step)
    assert [p.read_bytes() for p in (tmp_path / "images").rglob("*") if p.is_file()] == [PNG]
    assert task_of(next(read_rollouts(tmp_path)), tmp_path) == prompt.task


def test_a_step_that_is_written_again_is_there_once_and_the_same_to_the_byte(tmp_path, step):
    log = RolloutLog(tmp_path)
    log.write(1, *step)
    log.write(2, *step)
    before = (tmp_path / "step-000002.parquet").read_bytes()
    log.forget_after(1)
    assert [p.name for p in tmp_path.glob("*.parquet")] == ["step-000001.parquet"]
    log.write(2, *step)
    assert (tmp_path / "step-000002.parquet").read_bytes() == before
    assert [r["step"] for r in read_rollouts(tmp_path)] == [1, 1, 1, 2, 2, 2]


def test_a_step_is_written_in_a_thread_that_must_end_before_the_next(tmp_path, step, monkeypatch):
    """What goes wrong there is raised by the next `begin` or `wait`; the file is that of `write`, to the byte."""
    log, gate = RolloutLog(tmp_path), threading.Event()
    write = pq.write_table
    monkeypatch.setattr(rollout_log.pq, "write_table", lambda *a, **o: gate.wait(60) and write(*a, **o))
    log.begin(1, *step)
    assert not log.path(1).exists(), "the caller goes on"
    gate.set()
    log.wait()
    log.write(2, *step)
    first, second = (pq.read_table(log.path(n)).drop_columns(["step"]) for n in (1, 2))
    assert first.equals(second)

    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(rollout_log.pq, "write_table", full)
    log.begin(3, *step)
    with pytest.raises(OSError, match="No space left"):
        log.begin(4, *step)
    log.wait()
    assert not log.path(3).exists()


def test_equal_logprobs_are_stored_once(tmp_path, prompt):
    """Ids take four bytes, and the sampler's log-probs none where nothing was cut off the distribution."""
    made = make_scored(prompt, 1.0)
    completion = replace(made.rollout.completion, sampler_logprobs=made.rollout.completion.policy_logprobs)
    equal = ScoredRollout(rollout=replace(made.rollout, completion=completion), score=made.score)
    RolloutLog(tmp_path).write(1, [[made, equal]], [], [])
    table = pq.read_table(tmp_path / "step-000001.parquet")
    assert table.schema.field("token_ids").type.value_type == "int32"
    assert table["sampler_logprobs"].to_pylist() == [[-0.5] * 3, None]
    assert [row["sampler_logprobs"] for row in read_rollouts(tmp_path)] == [[-0.5] * 3, [-1.0] * 3]


def test_a_step_without_rollouts_is_an_empty_file(tmp_path):
    RolloutLog(tmp_path).write(1, [], [], [])
    assert list(read_rollouts(tmp_path)) == []
    with pytest.raises(FileNotFoundError, match="holds no rollouts"):
        list(read_rollouts(tmp_path / "elsewhere"))


def test_a_full_disk_leaves_no_part_of_a_file(tmp_path, step, monkeypatch):
    log = RolloutLog(tmp_path)
    log.write(1, *step)
    write = pq.write_table

    def half(table, path, **options):
        write(table, path, **options)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(rollout_log.pq, "write_table", half)
    with pytest.raises(OSError, match="No space left"):
        log.write(2, *step)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["images", "step-000001.parquet"]


def test_numbers_keep_their_bits(tmp_path, step):
    scored, groups, samples = step
    RolloutLog(tmp_path).write(1, scored, groups, samples)
    column = pq.read_table(tmp_path / "step-000001.parquet")["policy_logprobs"][0].as_py()
    assert np.float32(column).tobytes() == scored[0][0].rollout.completion.policy_logprobs.tobytes()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_inserted_tokens_and_routes_are_told(tmp_path, prompt, dtype):
    """Two tokens of version 3, one that was inserted, one of version 4; the inserted one has no routes."""
    routes = np.arange(4 * 2 * 3, dtype=dtype).reshape(4, 2, 3)
    routes[2] = np.iinfo(dtype).max
    values = np.array([-1.0, -2.0, 0.0, -3.0], np.float32)
    completion = Completion(
        token_ids=np.array([5, 6, 7, 8]),
        policy_logprobs=values,
        sampler_logprobs=values,
        finish_reason="abort",
        segments=(
            Segment(start=0, stop=2, version=3),
            Segment(start=2, stop=3, version=3, sampled=False),
            Segment(start=3, stop=4, version=4),
        ),
        routed_experts=routes,
    )
    other = make_scored(prompt, 0.0)
    rollout = Rollout(prompt=prompt, index=0, completion=completion, text="")
    mask = completion.mask_from(4)
    sample = Sample(
        id=rollout.id, prompt=prompt, token_ids=completion.token_ids, old_logprobs=values, advantage=1.0, mask=mask
    )
    RolloutLog(tmp_path).write(1, [[ScoredRollout(rollout=rollout, score=other.score), other]], [], [sample])
    row, without = read_rollouts(tmp_path)
    assert row["sampled"] == [True, True, False, True]
    assert row["trainable"] == [False, False, False, True]
    assert [s["version"] for s in row["segments"]] == [3, 3, 4]
    expected = routes.astype(np.uint16)
    expected[2] = 65535
    routes = row["routed_experts"]
    assert np.reshape(routes["ids"], (-1, routes["layers"], routes["experts"])).tolist() == expected.tolist()
    assert without["sampled"] == [True] * 3
    assert without["routed_experts"] is None


def test_a_log_that_lacks_the_newer_columns_can_be_read(tmp_path, step, prompt):
    RolloutLog(tmp_path).write(1, *step)
    path = tmp_path / "step-000001.parquet"
    newer = ["sampled", "routed_experts", "trainable"]
    assert set(newer) <= set(SCHEMA.names)
    pq.write_table(pq.read_table(path).drop_columns(newer), path)
    right, *_ = read_rollouts(tmp_path)
    assert right["sampled"] is None
    assert right["routed_experts"] is None
    assert task_of(right, tmp_path) == prompt.task


def test_what_the_learner_computed_of_each_token_is_kept(tmp_path, step):
    scored, groups, (sample,) = step
    columns = {"engine_logprobs": sample.old_logprobs, "token_advantages": sample.old_logprobs + 2}
    computed = replace(sample, columns=columns)
    RolloutLog(tmp_path).write(1, scored, groups, [sample])
    RolloutLog(tmp_path).write(2, scored, groups, [computed])
    first, *_, second = (row for row in read_rollouts(tmp_path) if row["sample"] == 0 and row["group"] == 0)
    assert (first["learner_logprobs"], first["token_advantages"]) == (None, None)
    assert (second["learner_logprobs"], second["token_advantages"]) == ([-1.0] * 3, [1.0] * 3)


READ_AND_END = """
import json, sys
import pyarrow.parquet as pq
for _ in range(40):
    with open(sys.argv[1], "rb") as file:
        pq.read_table(file, **json.loads(sys.argv[2])).to_pylist()
"""


def test_a_process_may_end_right_after_reading(tmp_path, monkeypatch):
    """Arrow's own threads abort every second such process, with exit code 134, where nothing slower is imported."""
    row = dict.fromkeys(SCHEMA.names) | {"step": 1, "group": 0, "sample": 0, "images": [], "choices": []}
    row |= dict.fromkeys(("task", "source", "question", "answer", "verifier", "text"), "x" * 500)
    row |= {"token_ids": list(range(200)), "policy_logprobs": [0.5] * 200}
    path, given, read = tmp_path / "step-000001.parquet", {}, pq.read_table
    pq.write_table(pa.Table.from_pylist([row] * 4, schema=SCHEMA), path)
    monkeypatch.setattr(pq, "read_table", lambda file, **options: given.update(options) or read(file, **options))
    assert len(list(read_rollouts(tmp_path))) == 4
    options = json.dumps({name: value for name, value in given.items() if name != "schema"})
    command = [sys.executable, "-c", READ_AND_END, str(path), options]
    codes = [subprocess.run(command, capture_output=True, timeout=60).returncode for _ in range(12)]
    assert codes == [0] * 12
