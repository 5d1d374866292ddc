"""Multiple choice: every way to name an option, and the ways to name none."""

import pytest

from rewards.sandbox.pool import WorkerPool
from rewards.types import Task, VerdictKind
from rewards.verifiers.choice import ChoiceVerifier, reference_index

ANIMALS = ("a cat", "a dog", "a fish", "a bird")
VALUES = ("$\\frac{1}{6}$", "$10 \\mathrm{~km}$", "0.25", "$\\sqrt{12}$", "none of these")


@pytest.fixture(scope="module")
def choose():
    worker = WorkerPool(seconds=10.0)
    verifier = ChoiceVerifier(worker)

    def read(response, choices=ANIMALS):
        index = verifier.commitment(response, choices).index
        return None if index is None else "ABCDEFGHIJ"[index]

    yield read
    worker.close()


@pytest.mark.parametrize(
    "response",
    [
        "B", "b", "(B)", "B.", "[B]", "**B**", "B)", "B: a dog", "B, since it barks.", "Answer: B", "answer is (b)",
        "The answer is B", "The correct option is **B**.", "The answer is option 2.", "\\boxed{B}",
        "$\\boxed{\\text{(B)}}$",
        "\\boxed{\\mathrm{B}}", "<answer>B</answer>", "<answer>\n(B) a dog\n</answer>", "a dog", "A dog.", "Dog",
        "The answer is a dog.", "\\boxed{\\text{a dog}}", "It is a dog", "Answer：Ｂ", "答案是B", '{"answer": "B"}',
        "Not A, so the answer is B.", "The answer is neither A nor C; it must be B.", "It is not A, therefore B.",
        "Maybe answer: A? No. Final answer: B", "◁think▷ A or C? A! ◁/think▷ B", "\\boxed{A} wait, \\boxed{B}",
        "A has no tail and C swims, but the answer is B because I see a leash.", "B. It can't be A or C.",
        "```\nB\n```",
        "So B is right.\n\nAnswer: B", "I choose (B).",
    ],
)  # fmt: skip
def test_b_is_chosen(choose, response):
    assert choose(response) == "B"


@pytest.mark.parametrize(
    "response",
    [
        "", "Answer: A or B", "A, B", "A/B", "<answer>A or B or C or D</answer>",
        "(A) a cat (B) a dog (C) a fish (D) a bird",
        "\\boxed{A, B}", "Answer: A and B", "I cannot see the image.", "Sorry, I can't help.", "◁think▷ B", "\\boxed{}",
        "<answer></answer>", "It is a horse.", "Z", "\\boxed{E}", "Answer: E", "either a cat or a dog", "12",
        "I have no idea", "A cat and a dog play.",
    ],
)  # fmt: skip
def test_nothing_is_chosen(choose, response):
    assert choose(response) is None


@pytest.mark.parametrize(
    ("response", "letter"),
    [
        ("\\boxed{\\frac{2}{12}}", "A"), ("The answer is 10 km.", "B"), ("\\boxed{10}", "B"), ("1/4", "C"),
        ("\\boxed{2\\sqrt{3}}", "D"), ("So the area is $\\boxed{\\sqrt{12}}$.", "D"), ("\\boxed{7}", None),
        ("None of these", "E"), ("The answer is (A) 10 km", "A"),
    ],
)  # fmt: skip
def test_values_are_mapped_to_letters(choose, response, letter):
    assert choose(response, VALUES) == letter


def test_shuffled_options_move_the_letter(choose):
    assert choose("a dog", ANIMALS[::-1]) == "C"


def test_references():
    assert reference_index("B", ANIMALS) == reference_index("(b)", ANIMALS) == reference_index("a dog", ANIMALS) == 1
    assert reference_index("Dog", ANIMALS) == 1
    assert reference_index("C", ()) == 2
    for bad in ("", "E", "horse", "5"):
        assert reference_index(bad, ANIMALS) is None


def test_verdicts():
    worker = WorkerPool()
    verify = ChoiceVerifier(worker)
    task = Task(id="c", source="unit", question="?", answer="B", choices=ANIMALS)
    kinds = [verify(r, "B", task=task).kind for r in ("B", "C", "A or B")]
    assert kinds == [VerdictKind.CORRECT, VerdictKind.WRONG, VerdictKind.NO_ANSWER]
    assert verify("B", "horse", task=task).kind is VerdictKind.BAD_REFERENCE
    assert verify("B", "B", task=task).extracted == "B"
    twins = Task(id="c", source="unit", question="?", answer="B", choices=("AC", "CD", "CD"))
    assert verify("C", "B", task=twins).kind is VerdictKind.CORRECT
    assert worker.pids == []
