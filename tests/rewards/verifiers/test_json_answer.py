"""JSON answers: keys, order, numbers, and what is no JSON."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.types import Task, VerdictKind
from rewards.verifiers.json_answer import JsonVerifier, NotJson, read_json

C, W, N, B = VerdictKind.CORRECT, VerdictKind.WRONG, VerdictKind.NO_ANSWER, VerdictKind.BAD_REFERENCE
GOLD = '{"total": 12.5, "items": ["a", "b"], "ok": true}'


def judge(response, gold=GOLD, **options):
    return JsonVerifier(**options)(response, gold, task=Task(id="t", source="unit", question="", answer=gold)).kind


@pytest.mark.parametrize(
    ("response", "kind"),
    [
        (GOLD, C),
        ('Here:\n```json\n{"items": ["a","b"], "ok": true, "total": 12.50}\n```', C),
        (f"\\boxed{{{GOLD}}}", C),
        (f"The answer is {GOLD}.", C),
        (f"<answer>{GOLD}</answer>", C),
        (f"{GOLD}\n{GOLD}", C),
        (f"◁think▷ {{}} ◁/think▷ {GOLD}", C),
        ('{"total": 1.25e1, "items": ["a", "b"], "ok": true}', C),
        ('{"total": 12.5, "items": ["b", "a"], "ok": true}', W),
        ('{"total": 12.5, "items": ["a", "b"], "ok": 1}', W),
        ('{"total": "12.5", "items": ["a", "b"], "ok": true}', W),
        ('{"total": 12.5, "items": ["a", "b"]}', W),
        ('{"total": 12.5, "items": ["a", "b"], "ok": true, "more": 1}', W),
        ('{"total": 12.6, "items": ["a","b"], "ok": true}', W),
        ("[]", W),
        (GOLD + '{"total": 1}', N),
        (f"{GOLD} or {{}}", N),
        (f"\\boxed{{{GOLD} or {{}}}}", N),
        ("12.5", W),
        ('{"total": 12.5, "total": 12.5, "items": ["a", "b"], "ok": true}', N),
        ('{"total": NaN}', N),
        ("nothing", N),
        ("", N),
        ('{"total": 1e999999999}', N),
        ("1" * 5000, N),
        ("[" * 45_000, N),
        ("[" * 20_000 + "]" * 20_000, N),
        ('{"a":' * 20_000, N),
        ('"' * 50_000, N),
        ('["\\' * 20_000, N),
        ("[" + '"a",' * 9000 + "1]", N),
        (f"◁think▷ {GOLD}", N),
    ],
)
def test_keys_order_and_numbers(response, kind):
    assert judge(response) is kind


def test_options():
    assert judge('{"total": 12.6, "items": ["a","b"], "ok": true}', rel=0.01) is C
    assert judge("[3, 1, 2]", "[1, 2, 3]", order=False) is C
    assert judge("[3, 1, 1]", "[1, 2, 3]", order=False) is W
    assert judge("[1.4, 1.1]", "[1, 1.3]", order=False, abs=0.3) is C  # 1.1 fits both: needs a pairing
    assert judge('"A  b"', '"a b"', case=False) is C
    assert judge('"A"', '"a"') is W
    assert judge("0.3", "0.2", abs=0.1) is C
    assert judge("12", "12.0") is C
    with pytest.raises(ValueError, match="rel must be in"):
        JsonVerifier(rel=1)


def test_references_that_cannot_be_used():
    assert judge("[1]", "[1,") is B
    assert judge("[1]", "") is B
    assert judge("[1]", json.dumps(list(range(300))), order=False) is B
    assert judge(json.dumps(list(range(300))), json.dumps(list(range(300)))) is C


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.text(max_size=8) | st.floats(-1e6, 1e6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@given(VALUES)
def test_everything_equals_itself_in_any_layout(value):
    gold = json.dumps(value)
    assert judge(f"```json\n{json.dumps(value, indent=3, ensure_ascii=False)}\n```", gold) in (C, N)  # N: ``` in a text
    assert judge(gold, gold, order=False) is C


@given(st.text(alphabet='{}[]",:0123456789eE.-truefalsnN \\\n`', max_size=60))
def test_any_text_is_survived(text):
    judge(text)
    with contextlib.suppress(NotJson):
        read_json(text)
