"""One scorer for all tests of a file, and the question whether a response earns the reward."""

import pytest

from rewards import Scorer, Task


@pytest.fixture(scope="module")
def scorer():
    with Scorer(()) as made:
        yield made


@pytest.fixture
def earns(scorer):
    """`earns(verifier, reference, response, choices)`: whether the reward is 1."""

    def reward_is_one(verifier, reference, response, choices=()):
        task = Task(id="t", source="s", question="", answer=reference, verifier=verifier, choices=tuple(choices))
        return scorer.score([response], [task])[0].reward == 1.0

    return reward_is_one
