"""Long-to-short by hand: the shortest correct sample, the pairs of DPO, averaged weights, and the walk in epochs."""

import numpy as np
import pytest
import torch

from configs.errors import UserError
from rl.stages.long2short_training import in_epochs
from rl.stages.short_answers import SampledAnswer, preference_pairs, shortest_correct
from rl.stages.weight_average import average_weights


def group(*samples):
    """Samples from `(length, correct)` or `(length, correct, finished)`."""
    return [
        SampledAnswer(
            task="t",
            prompt_tokens=3,
            token_ids=np.arange(length),
            correct=correct,
            finished=finished[0] if finished else True,
        )
        for length, correct, *finished in samples
    ]


def test_the_shortest_correct_sample_is_chosen_and_the_first_of_two():
    samples = group((3, False), (9, True), (6, True), (6, True), (2, True, False))
    assert shortest_correct(samples) is samples[2], "the one of 2 tokens was cut off, the one of 3 is wrong"
    assert shortest_correct(group((3, False), (4, True, False))) is None
    assert shortest_correct([]) is None


def test_pairs_are_the_shortest_against_longer_samples():
    samples = group((5, False), (7, False), (6, True), (8, True), (9, True), (12, True), (6, False), (20, False, False))
    pairs = preference_pairs(samples)
    assert {id(pair.chosen) for pair in pairs} == {id(samples[2])}
    rejected = [(len(pair.rejected), pair.rejected.correct) for pair in pairs]
    assert rejected == [(7, False), (9, True), (12, True), (20, False)], "1.5 times 6 is 9"


def test_there_is_no_pair_without_a_correct_sample_or_without_a_longer_one():
    assert preference_pairs(group((5, False), (9, False))) == []
    assert preference_pairs(group((6, True), (8, True), (5, False))) == []


def test_weights_are_averaged_by_hand():
    long = {"w": torch.tensor([1.0, 4.0]), "b": torch.tensor([2.0], dtype=torch.bfloat16)}
    short = {"w": torch.tensor([3.0, 0.0]), "b": torch.tensor([4.0], dtype=torch.bfloat16)}
    half, quarter = (average_weights(long, short, weight=weight) for weight in (0.5, 0.25))
    assert half["w"].tolist() == [2.0, 2.0]
    assert quarter["w"].tolist() == [1.5, 3.0]
    assert (half["b"].tolist(), half["b"].dtype) == ([3.0], torch.bfloat16)
    assert long["w"].tolist() == [1.0, 4.0]


@pytest.mark.parametrize("short", [{"w": torch.zeros(3)}, {"v": torch.zeros(2)}])
def test_models_of_another_architecture_are_not_averaged(short):
    with pytest.raises(UserError, match="only models of one architecture can be averaged"):
        average_weights({"w": torch.zeros(2)}, short, weight=0.5)


def test_items_are_walked_in_epochs_of_one_order_each():
    items = list("abcde")
    walked = [item for step in range(5) for item in in_epochs(items, step, 2, seed=7)]
    assert sorted(walked[:5]) == sorted(walked[5:]) == items
    assert walked[:5] != walked[5:]
    assert in_epochs(items, 3, 2, seed=7) == walked[6:8], "a step depends on its number alone"
    assert len(in_epochs(items, 0, 12, seed=7)) == 12
