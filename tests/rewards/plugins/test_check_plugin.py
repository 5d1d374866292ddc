"""The contract test: what it says about rewards that are fit, and about each way not to be."""

import pytest

from configs.rewards import RewardConfig
from rewards.plugins.check_plugin import HOSTILE, Result, check_reward
from rewards.plugins.interface import PluginError

REWARDS = """
import os, random, time
from collections import Counter
from rewards.extraction import extract_answer

seen = Counter()
kept = []

def good(response, reference, *, task):
    return float(extract_answer(response).answer == reference)

def fragile(response, reference, *, task):
    return float(len(response.split()[0]) > 3)

def slow(response, reference, *, task):
    time.sleep(60 if "Chinese" not in task.question and "١٩" in response else 0)
    return 1.0

def noisy(response, reference, *, task):
    return random.random()

def remembers(response, reference, *, task):
    seen[response] += 1
    return 1.0 / seen[response]

def leaks(response, reference, *, task):
    kept.append(bytearray(os.urandom(1)) * (1 << 20))
    return 1.0

def silent(response, reference, *, task):
    return -float(len(response))

def neighbours(responses, reference, *, task):
    return [1.0] * 5

def forgets(response, reference, *, task):
    pass

async def later(responses, reference, *, task):
    return [0.5 for _ in responses]
"""


@pytest.fixture
def check(tmp_path):
    (tmp_path / "mine.py").write_text(REWARDS)

    def run(name, **settings):
        config = RewardConfig(use=f"mine.py:{name}", **{"seconds": 5.0, "workers": 1} | settings)
        return {c.name: c for c in check_reward(config.use, config, base=tmp_path)}

    return run


def failed(checks):
    return {name for name, check in checks.items() if check.result is Result.FAILED}


def test_a_fit_reward_passes_every_check(check):
    checks = check("good")
    assert {c.result for c in checks.values()} == {Result.OK}
    assert checks.keys() >= {*HOSTILE, "loads", "ordinary responses", "memory stays where it is"}
    assert checks["loads"].detail.startswith("one response at a time")
    assert "right 1, wrong 0" in checks["ordinary responses"].detail


def test_a_group_reward_passes_too(check):
    checks = check("later")
    assert failed(checks) == set()
    assert checks["loads"].detail.startswith("all responses to a prompt at once, async")


def test_each_input_that_breaks_it_is_named(check):
    checks = check("fragile")
    assert failed(checks) == {"empty", "white space"}
    assert checks["empty"].detail == "crash: IndexError: list index out of range"


def test_an_input_that_stalls_it_is_named(check):
    checks = check("slow", seconds=0.5)
    assert failed(checks) == {"Arabic, right to left"}
    assert checks["Arabic, right to left"].detail.startswith("timeout: no answer within 0.5 s")


def test_values_that_move_are_told(check):
    assert failed(check("noisy")) >= {"gives the same again", "gives the same in a fresh process"}
    moved = failed(check("remembers"))
    assert "gives the same again" in moved
    assert "gives the same in a fresh process" not in moved


def test_memory_that_grows_is_told(check):
    checks = check("leaks")
    assert failed(checks) == {"memory stays where it is"}
    assert "MiB over 200 responses" in checks["memory stays where it is"].detail


def test_a_group_of_one_must_do(check):
    checks = check("neighbours")
    assert "ordinary responses" not in failed(checks)
    assert "returned 5 values for 1 response" in checks["a response alone"].detail


def test_what_only_its_author_can_judge_is_a_note(check):
    checks = check("silent")
    assert failed(checks) == set()
    assert checks["silence"].result is Result.NOTE
    assert "silence pays" in checks["silence"].detail


def test_what_cannot_be_loaded_is_an_error(check):
    with pytest.raises(PluginError, match="did you mean 'good'"):
        check("goood")


def test_a_reward_that_always_fails_says_so_once(check):
    checks = check("forgets")
    assert checks.keys() == {"loads", "ordinary responses"}
    detail = checks["ordinary responses"].detail
    assert detail.startswith("every one: crash: returned None: must be a finite float")
    assert detail.count("returned None") == 1
