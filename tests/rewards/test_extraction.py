"""Where the answer is, with each outcome of the table in `rewards.extraction`, and no input that breaks it."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.extraction import THINK_CLOSE, THINK_OPEN, extract_answer, last_box, split_thinking, visible


@pytest.mark.parametrize(
    ("text", "thought", "answer", "closed"),
    [
        ("plain 5", None, "plain 5", False),
        ("◁think▷a◁/think▷b", "a", "b", True),
        ("a◁/think▷b", "a", "b", True),  # the prompt opened the block
        ("◁think▷a", "a", "", False),
        ("◁think▷a◁/think▷b◁think▷c", "a◁/think▷b◁think▷c", "", False),
        ("◁think▷a◁/think▷b◁/think▷c", "a◁/think▷b", "c", True),
        ("before ◁think▷a◁/think▷", "a", "", True),
        ("<think>a</think>b", "a", "b", True),
        ("", None, "", False),
    ],
)
def test_thinking_is_split_at_its_marks(text, thought, answer, closed):
    thinking = split_thinking(text)
    assert (thinking.thought, thinking.answer_text, thinking.closed) == (thought, answer, closed)


@pytest.mark.parametrize(
    ("text", "answer", "rule"),
    [
        ("◁think▷ it is \\boxed{7}", None, "open-thinking"),
        ("◁think▷ it is \\boxed{7} ◁/think▷", None, "empty"),
        ("  \n\t", None, "empty"),
        ("◁think▷\\boxed{1}◁/think▷ 12", "12", "line"),
        ("so \\boxed{3}, no, \\boxed{4}.", "4", "box"),
        ("\\boxed{\\frac{1}{2}} and then text", "\\frac{1}{2}", "box"),
        ("\\boxed{x = \\boxed{5}}", "x = \\boxed{5}", "box"),
        ("\\boxed{5} then \\boxed{6", "5", "box"),
        ("\\boxed{\\{1, 2\\}}", "\\{1, 2\\}", "box"),
        ("$\\boxed{2}$ and $\\boxed{3}$", "2, 3", "box"),
        ("\\boxed{2} or \\boxed{3}", "3", "box"),
        ("the box \\boxed 9.", "9.", "box"),
        ("\\boxed{1} \\boxed{ }", None, "empty-box"),
        ("<answer>1</answer> <answer> 2 </answer>", "2", "tag"),
        ("<answer></answer>", None, "empty-tag"),
        ("The answer is 3.\nNo: the final answer is 4 apples.", "4 apples.", "anchor"),
        ("**Answer:** 17", "17", "anchor"),
        ("Answer:\n\n  \\(x^2\\)\n", "\\(x^2\\)", "anchor"),
        ("Answer: $$\n 8 \n$$", "8", "anchor"),
        ("答案是：42", "42", "anchor"),
        ("first line\n\n19<|im_end|>\n", "19", "line"),
        ("$$\n 31 \n$$", "31", "line"),
        ("answering took long\n6", "6", "line"),
        ("\\boxed{41} so far.\nFinal answer: 42", "42", "anchor"),
        ("\\boxed{41}. The final answer is correct.", "41", "box"),
        ("Final answer: 40\n\\boxed{41}", "41", "box"),
        ("\\boxed{41} <answer>42</answer>", "42", "anchor"),  # the later one
        ("<answer>41</answer> \\boxed{42}", "42", "box"),
        ("\\boxed{41}. Wait, I misread it. The answer is 42.", "42.", "anchor"),
        ("\\boxed{41}\n\n最终答案：42", "42", "anchor"),
        ("\\boxed{41} 不对，应该是42。", "42", "anchor"),
        ("\\boxed{42}\nThe answer is in the box.", "42", "box"),
        ("<ANSWER>7</ANSWER>", "7", "tag"),
        ("<choice>x</choice>", "x", "tag"),
        ('```json\n{"answer": "x+1"}\n```', "x+1", "json"),
        ("{'final_answer': -2.5}", "-2.5", "json"),
        ('{"answer": "a"} and {"answer": "b"}', "b", "json"),
        ("#### 18", "18", "line"),
        ("The final answer is 5. I hope it is correct.", "5.", "anchor"),
        ("The answer is **5**.", "5.", "anchor"),
        ("Jawaban: 5", "Jawaban: 5", "line"),
    ],
)
def test_each_outcome(text, answer, rule):
    found = extract_answer(text)
    assert (found.answer, found.rule) == (answer, rule)


@pytest.mark.parametrize(
    "text",
    [
        "\\boxed{" * 50_000,
        "\\boxed{1}, " * 30_000,
        "{" * 200_000 + "}" * 200_000,
        "answer is " * 50_000,
        "answer" + " " * 300_000 + "is",
        THINK_OPEN * 50_000,
        "<answer>" * 50_000,
        "\n" * 500_000 + "1",
        "<|" * 200_000,
        "\\" * 300_000,
        "$$" * 100_000,
        "答案" * 100_000,
    ],
    ids=lambda text: repr(text[:12]),
)
def test_hostile_text_costs_linear_time(text):
    start = time.perf_counter()
    extract_answer(text)
    assert time.perf_counter() - start < 2.0


PIECES = st.sampled_from(
    [
        THINK_OPEN,
        THINK_CLOSE,
        "\\boxed{",
        "}",
        "{",
        "\\",
        "<answer>",
        "</answer>",
        "answer is",
        "Answer:",
        "\n",
        "5",
        " ",
    ]
)
TEXTS = st.one_of(st.text(), st.lists(st.one_of(PIECES, st.text(max_size=4)), max_size=30).map("".join))


@settings(max_examples=400, deadline=None)
@given(TEXTS)
def test_any_text_has_an_outcome_and_it_comes_from_the_answer_text(text):
    found = extract_answer(text)
    thinking = split_thinking(text)
    assert found.rule
    if found.answer is None:
        return
    assert found.answer.strip() == found.answer != ""
    if found.rule in ("tag", "anchor", "line") and "<|" not in text:
        assert found.answer in visible(thinking.answer_text)


@settings(max_examples=200, deadline=None)
@given(
    st.text(), st.text(alphabet="0123456789abc+-{}", max_size=12).filter(lambda s: s.count("{") == 0 == s.count("}"))
)
def test_an_answer_behind_any_closed_thought_is_found(thought, answer):
    text = f"{THINK_OPEN}{thought}{THINK_CLOSE}\\boxed{{{answer}}}"
    expected = answer.strip() or None
    assert extract_answer(text).answer == expected


@settings(max_examples=200, deadline=None)
@given(TEXTS)
def test_last_box_is_balanced(text):
    found = last_box(text)
    if found is not None and "\\" not in found:
        assert found.count("{") == found.count("}")
