"""Rewards written for TRL, open-r1 and verl, used unchanged; among them those that the installed TRL ships."""

import pytest

from configs.rewards import RewardConfig
from rewards import Scorer, Task, VerdictKind
from rewards.plugins.interface import PluginError, call_plugin
from rewards.plugins.loading import load_plugin

TASK = Task(id="a/1", source="unit", question="How much?", answer="$\\frac{1}{3}$", choices=("x", "y"))
MINE = """
def plain(completions, answer, prompts, **kwargs):
    return [float(len(c)) + (prompts[0] == "How much?") / 2 + ("choices" in kwargs) / 4 for c in completions]

def chat(prompts, completions, ground_truth):
    ok = prompts[0] == [{"role": "user", "content": "How much?"}] and completions[0][0]["role"] == "assistant"
    return [ok * (c[0]["content"] == "<think>hm</think>" + g) for c, g in zip(completions, ground_truth)]

async def later(completions, **kwargs):
    return [0.5 for _ in completions]

def skips(completions, **kwargs):
    return [None if "?" in c[0]["content"] else 1.0 for c in completions]

def short(completions, **kwargs):
    return [1.0]

def ids(completion_ids, **kwargs):
    return [0.0 for _ in completion_ids]

def length(completions, **kwargs):
    return [len(c[0]["content"]) / 100 for c in completions]

both = [skips, length]
named = {"one": skips, "two": length, "three": later}
twins = [skips, skips]
nothing = []

def compute_score(data_source, solution_str, ground_truth, extra_info=None):
    assert (data_source, extra_info["index"]) == ("unit", "a/1")
    return float(solution_str == ground_truth)

def with_kwargs(data_source, solution_str, ground_truth, extra_info, **kwargs):
    return {"score": 0.75, "acc": True, "pred": solution_str, "format": 0.5}

def no_score(data_source, solution_str, ground_truth):
    return {"acc": 1.0}

def as_tuple(data_source, solution_str, ground_truth):
    return (0.25, "because")

def batched(data_sources, solution_strs, ground_truths, extra_infos):
    return [{"score": i / 4} for i, _ in enumerate(zip(data_sources, solution_strs, ground_truths, extra_infos))]

async def verl_later(data_source, solution_str, ground_truth):
    return 0.5

def wrong(solution, truth):
    return 1.0
"""


@pytest.fixture
def run(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)

    def call(spec, *responses):
        return call_plugin(load_plugin(spec, base=tmp_path), responses, TASK, seconds=5.0)

    return call


def test_trl_functions_of_texts_and_of_conversations(run):
    assert [o.value for o in run("trl_text:mine.py:plain", "ab", "abc")] == [2.75, 3.75]
    marked = "◁think▷hm◁/think▷" + TASK.answer
    assert [o.value for o in run("trl:mine.py:chat", marked, "other")] == [1.0, 0.0]
    assert [o.value for o in run("trl:mine.py:later", "a", "b")] == [0.5, 0.5]


def test_none_is_no_reward_as_in_trl(run):
    kept, skipped = run("trl:mine.py:skips", "a", "?")
    assert (kept.value, kept.verdict.kind) == (1.0, VerdictKind.CORRECT)
    assert skipped.verdict.kind is VerdictKind.BAD_REFERENCE


def test_lists_and_dicts_of_functions_are_parts(run):
    first, second = run("trl:mine.py:both", "a" * 10, "?")
    assert first.parts == {"skips": 1.0, "length": 0.1}
    assert first.value == pytest.approx(1.1)
    assert second.parts == {"length": 0.01}
    assert run("trl:mine.py:named", "a")[0].parts == {"one": 1.0, "two": 0.01, "three": 0.5}


def test_verl_functions(run):
    assert [o.value for o in run("verl:mine.py:compute_score", TASK.answer, "5")] == [1.0, 0.0]
    (scored,) = run("verl:mine.py:with_kwargs", "x")
    assert (scored.value, scored.parts) == (0.75, {"acc": 1.0, "format": 0.5})
    assert run("verl:mine.py:as_tuple", "x")[0].value == 0.25
    assert [o.value for o in run("verl:mine.py:batched", "a", "b", "c")] == [0.0, 0.25, 0.5]
    assert run("verl:mine.py:verl_later", "a")[0].value == 0.5
    assert 0 <= scored.verdict.seconds < 5
    (missing,) = run("verl:mine.py:no_score", "x")
    assert missing.verdict.kind is VerdictKind.CRASH
    assert "'score' is 'None'" in missing.verdict.detail


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("trl:mine.py:ids", r"needs completion_ids; rewards here see texts and tasks.*completions, solution"),
        ("trl:mine.py:nothing", "the list of functions is empty"),
        ("trl:mine.py:twins", "have one name; give a dict"),
        ("verl:mine.py:wrong", r"takes \(solution, truth\); verl's is \(data_source, solution_str"),
        ("verl:mine.py:both", "is a list, not a function"),
        ("trl:mine.py:chats", "did you mean 'chat'"),
        ("mine.py:plain", "allowed is"),
    ],
)
def test_mistakes_are_told_when_it_is_loaded(run, spec, message):
    with pytest.raises(PluginError, match=message) as caught:
        run(spec, "a")
    assert repr(spec) in str(caught.value)


def test_a_result_of_the_wrong_length_is_a_crash(run):
    outcomes = run("trl:mine.py:short", "a", "b")
    assert all("1 value for 2 responses" in o.verdict.detail for o in outcomes)


def test_the_rewards_that_trl_ships_run_unchanged_in_worker_processes():
    trl = pytest.importorskip("trl.rewards")
    texts = [
        "◁think▷hm◁/think▷ It is $\\boxed{\\frac{1}{3}}$",
        "◁think▷hm◁/think▷ \\boxed{\\frac{1}{2}}",
        "Hm, $\\boxed{\\frac{1}{3}}$",
    ]
    completions = [[{"content": text.replace("◁think▷", "<think>").replace("◁/think▷", "</think>")}] for text in texts]
    names = ("accuracy_reward", "reasoning_accuracy_reward", "think_format_reward")
    terms = [RewardConfig(use=f"trl:trl.rewards:{name}", workers=1, memory_mb=8192, seconds=30) for name in names]
    with Scorer((RewardConfig(), *terms)) as scorer:
        scores = scorer.score(texts, [TASK] * 3)
    for name, expected in zip(names, ([1, 0, 1], [1, 0, 0], [1, 1, 0]), strict=True):
        assert [s.parts[f"trl:trl.rewards:{name}"] for s in scores] == expected
        assert getattr(trl, name)(completions=completions, solution=[TASK.answer] * 3) == expected
    assert [s.verdict.kind.value for s in scores] == ["correct", "wrong", "correct"]
