"""The time that is left: an interval that widens with doubt and narrows towards the end."""

import numpy as np

from rl.run.eta import remaining


def test_steps_of_equal_length():
    found = remaining([2.0] * 50, 50)
    assert found.low < found.middle < found.high
    assert abs(found.middle - 100) < 1e-6
    assert found.high - found.middle > found.middle - found.low, "steps become slower more often than faster"


def test_the_first_step_warms_up_and_does_not_count():
    assert abs(remaining([60.0, *[2.0] * 20], 10).middle - 20) < 1e-6


def test_a_trend_is_carried_on():
    rising = list(np.linspace(1, 2, 60))
    assert remaining(rising, 60).middle > 60 * 2.0, "later steps are longer still"
    assert remaining(rising[::-1], 60).middle < 60 * 1.5


def test_doubt_widens_the_interval():
    def width(steps, left=30):
        found = remaining(steps, left)
        return found.high / found.low

    even = [1.0] * 30
    noisy = list(np.random.default_rng(0).lognormal(0, 0.8, 30))
    assert width(noisy) > width(even)
    assert width(even[:4]) > width(even)
    assert width([1.0] * 300) < width(even)


def test_nothing_is_said_without_two_steps_or_without_any_left():
    assert remaining([], 5) is None
    assert remaining([1.0], 5) is None
    assert remaining([1.0, 1.0], 0) is None
    assert remaining([0.0, 0.0], 5) is None
