"""Each stage's type checks its lengths when it is built, and cannot be changed afterwards."""

import dataclasses

import numpy as np
import pytest

from rewards.types import Score, Task, Verdict, VerdictKind
from rollouts.patches import Patches
from rollouts.types import Completion, Group, Prompt, Rollout, ScoredRollout, Segment

TASK = Task(id="t/1", source="made", question="?", answer="1")


def prompt(patches=4, grids=((2, 2),)):
    return Prompt(
        id=TASK.id,
        task=TASK,
        input_ids=np.arange(3),
        patches=Patches(np.zeros((patches, 3, 14, 14), np.float32)),
        image_grid_hws=np.array(grids, np.int64).reshape(-1, 2),
    )


def completion(tokens=3, policy=3, sampler=3, segments=((0, 3),)):
    return Completion(
        token_ids=np.arange(tokens),
        policy_logprobs=np.zeros(policy, np.float32),
        sampler_logprobs=np.zeros(sampler, np.float32),
        finish_reason="stop",
        segments=tuple(Segment(start=a, stop=b, version=0) for a, b in segments),
    )


@pytest.mark.parametrize(("patches", "grids"), [(0, ()), (4, ((2, 2),)), (14, ((2, 4), (6, 1)))])
def test_patches_that_fill_the_grids_are_taken(patches, grids):
    assert len(prompt(patches, grids).pixel_values) == patches


@pytest.mark.parametrize(("patches", "grids"), [(4, ()), (0, ((2, 2),)), (5, ((2, 2),))])
def test_patches_that_do_not_fill_the_grids_are_refused(patches, grids):
    with pytest.raises(ValueError, match=r"task t/1: \d patches, but the grids say \d"):
        prompt(patches, grids)


@pytest.mark.parametrize("lengths", [(3, 2, 3), (3, 3, 4), (2, 3, 3)])
def test_tokens_and_logprobs_of_unlike_length_are_refused(lengths):
    with pytest.raises(ValueError, match="differ in length"):
        completion(*lengths)


@pytest.mark.parametrize("segments", [((0, 3),), ((0, 1), (1, 3)), ((0, 0), (0, 3))])
def test_segments_that_cover_the_tokens_are_taken(segments):
    assert len(completion(segments=segments).segments) == len(segments)


@pytest.mark.parametrize("segments", [(), ((0, 2),), ((1, 3),), ((1, 4),), ((0, 2), (1, 2)), ((2, 3), (0, 2))])
def test_segments_with_a_gap_or_an_overlap_are_refused(segments):
    with pytest.raises(ValueError, match="segments"):
        completion(segments=segments)


def test_types_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        completion().finish_reason = "length"


def test_a_group_reads_its_rewards_in_order():
    def member(reward):
        score = Score(verdict=Verdict(kind=VerdictKind.WRONG, score=0.0), reward=reward)
        return ScoredRollout(rollout=Rollout(prompt=prompt(), index=0, completion=completion(), text=""), score=score)

    assert Group(prompt=prompt(), rollouts=(member(0.5), member(0.0), member(-1.0))).rewards == [0.5, 0.0, -1.0]
