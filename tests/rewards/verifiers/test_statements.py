"""Which part of a sentence is the answer: remarks, denials, bounds and other values around it."""

import pytest

from rewards import Task
from rewards.sentences import first_sentence, stated, taken_back, without_remarks
from rewards.types import VerdictKind

PETS = ("cat", "dog", "bird", "fish")


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("9, as required", "9"),
        ("9 because the sides agree", "9"),
        ("9 (see figure 3)", "9"),
        ("9（见第4步）", "9"),
        ("9，因为两边相等", "9"),
        ("9, not 8", "9"),
        ("$9$ (not $8$)", "$9$"),
        ("9 rather than 8", "9"),
        ("答案是9，而不是8", "答案是9"),
        ("9 ✅", "9"),
        ("The answer is not 9", "The answer is not 9"),
        ("Since a = 4, it is 9", "Since a = 4, it is 9"),
    ],
)
def test_remarks(text, left):
    assert without_remarks(text) == left


def test_sentences():
    assert first_sentence("9! Good.") == "9! Good"  # a factorial ends no sentence
    assert first_sentence("9. Or 8.") == "9. Or 8."
    assert taken_back("9. Wait, it is 8.")
    assert not taken_back("9. This is the larger one.")
    assert stated("9. Wait, it is 8.", last=False) == " Wait, it is 8"


@pytest.mark.parametrize(
    ("verifier", "reference", "response"),
    [
        ("math", "9\\sqrt{2}", "The answer is $9\\sqrt2$, not $8\\sqrt2$."),
        ("math", "x > 9", "答案是x > 9（见第4步）。"),
        ("math", "x > 9", "【答案】(9, ∞)"),
        ("math", "[-4, 9)", "The answer is [-4, 9). This follows from figure 2."),
        ("math", "(-4, 9)", "The answer is （-4，9）, as required."),
        ("math", "14, -2", "My answer is 14 and -2"),
        ("math", "14, -2, 5", "The answer is $$14, -2 \\text{ and } 5$$ (see step 2)."),
        ("math", "14, -2, 5", "答案是14、-2、5。这与图3一致。"),
        ("math", "y = 3x + 4", "The answer is 3x - y + 4 = 0. This follows from figure 2."),
        ("math", "3:8", "The value is 3 to 8."),
        ("math", "3:8", "结果是3∶8。"),
        ("math", "3/8", "Hence we obtain 八分之三."),
        ("math", "8", "With 3 rulers, the result is eight apples."),
        ("math", "120 minutes", "It takes two hours."),
        ("math", "43%", "结果是百分之43。"),
        ("math", "-43", "\\boxed{负43}"),
        ("math", "43_8", "The answer is 43 (in base 8)."),
        ("math", "43%", "\\boxed{43\\%\\text{ increase}}"),
        ("math", "1%", "1"),
        ("math", "9.5", "\\boxed{９.５}"),
        ("math", "1234567", "Thus it equals 1{,}234{,}567."),
        ("math", "43", "Area $= \\frac12 \\cdot 86 = 43$ cm$^2$."),
        ("math", "6:30 p.m.", "The answer is 6:30 because the sides are equal."),
        ("numeric", "6.1 \\times 10^{-19}", "The answer is 6.1 × 10^-19 (see step 2)."),
        ("numeric", "28.3 minutes", "It is $28.3\\,\\mathrm{minutes}$."),
        ("numeric", "95 m/s", "The total is $$95\\text{ m/s}$$, altogether."),
        ("numeric", "40 mA", "\\boxed{40~\\text{mA}}"),
        ("count", "15", "答案是15个（见第2步）。"),
        ("count", "9", "\\boxed{8}. No, I misread it. The answer is nine."),
        ("text", "stop sign", "\\boxed{tree}. No, I misread it. The answer is **stop sign**."),
        ("text", "teal", "The answer is **teal** ✅"),
        ("yes_no", "yes", "答案是是的（见第2步）。"),
        ("yes_no", "yes", "故答案为是"),
        ("yes_no", "no", "The answer is \\(\\text{No}\\) ✅"),
        ("ocr", "Room 204", "The answer is “Room 204”, as required."),
        ("ocr", "Room 204", "**Answer:** $\\text{Room 204}$"),
        ("ocr", "出口", "「出口」。"),
    ],
)
def test_right_statements(earns, verifier, reference, response):
    assert earns(verifier, reference, response)


@pytest.mark.parametrize(
    ("verifier", "reference", "response"),
    [
        ("math", "9\\sqrt{2}", "The answer is not $9\\sqrt2$."),  # denied
        ("math", "(8, -3)", "The answer is not P(8, -3)."),
        ("math", "9\\sqrt{2}", "The answer is $8\\sqrt2$, not $9\\sqrt2$."),
        ("math", "7x^2 + 9", "答案不是f(x) = 7x^2 + 9。"),
        ("math", "9\\sqrt{2}", "The answer is at most $9\\sqrt2$."),  # bounds
        ("math", "24^\\circ", "结果大于\\(\\angle ABC = 24^\\circ\\)。"),
        ("math", "34.50", "It is less than $34.50."),
        ("math", "4", "So x > 4."),
        ("math", "4 hours", "The answer is $$4 \\text{ h}$$ to 5 hours."),  # other values
        ("math", "9/2", "答案是$$\\frac92$$或2/9。"),
        ("math", "-4", "9 and -4"),
        ("math", "3", "There are 2 red balls and 3 cubes."),
        ("math", "5", "4. **Metal objects (5):** 2 balls and 3 cubes"),  # a heading
        ("math", "8", "The value is 3 to 8."),
        ("math", "2", "With 2 rulers, the result is 八分之三."),
        ("math", "43", "The answer is 43 (in base 8)."),  # changed values
        ("math", "-43", "\\boxed{43\\%\\text{ decrease}}"),
        ("math", "4!", "4"),
        ("math", "284", "284!"),
        ("math", "29°", "The answer is 29 radians because the sides are equal."),
        ("math", "6", "The answer is two 3s."),
        ("math", "3", "The answer is two 3s."),
        ("math", "12", "The answer is 12 (in thousands)."),
        ("math", "12", "The value is 12 (mod 5)."),
        ("math", "12", "结果是12（万）。"),
        ("math", "12", "\\boxed{12 \\text{ (in thousands)}}"),
        ("numeric", "43", "43x"),
        ("numeric", "28.3 cm", "The answer is 28.3 inches, as required."),
        ("numeric", "43%", "The answer is 43 cm, since the picture shows it."),
        ("numeric", "$43", "The answer is 43%."),
        ("numeric", "43", "答案至少是43。"),
        ("numeric", "43", "结果是43万。"),
        ("count", "3", "一只狗两只猫"),
        ("count", "2", "一只狗两只猫"),
        ("yes_no", "yes", "The answer is yes and no because the sides are equal."),
        ("point", "[400, 200, 480, 240]", "\\boxed{\\text{not } (421, 215)}"),
    ],
)
def test_wrong_statements(earns, verifier, reference, response):
    assert not earns(verifier, reference, response)


@pytest.mark.parametrize(
    ("choices", "reference", "response", "right"),
    [
        (PETS, "D", "答案不是(D) fish。", False),
        (PETS, "C", "The answer isn't C (bird).", False),
        (PETS, "C", "The answer isn't Option C.", False),
        (PETS, "C", "The answer is not C. bird.", False),
        (PETS, "A", "\\boxed{(A) cat \\text{ or } D}", False),
        (PETS, "D", "The answer is D/A because the sides are equal.", False),
        (PETS, "A", "答案是A项。", True),
        (PETS, "A", "答案是A（cat）。", True),
        (PETS, "B", "A or B? The tail says B.", True),
        (PETS, "A", "A or B? The tail says B.", False),
        (PETS, "B", "\\boxed{A}. No, I misread it. The answer is option B.", True),
        (("猫", "狗", "鸟"), "B", '由图1可知，答案是"狗"。', True),
        (("红色", "蓝色", "绿色"), "B", "不是红色，而是蓝色", True),
        (("3 cm", "4 cm", "5 cm"), "A", "The answer is neither 3 cm nor 4 cm.", False),
        (("30°", "45°", "60°"), "A", "答案是30°。这与图3一致。", True),
        (("$\\sqrt{2}$", "$2\\sqrt{2}$"), "B", '答案不是"$2\\sqrt{2}$"。', False),
        (("$\\sqrt{2}$", "$2\\sqrt{2}$"), "B", "$2\\sqrt{2}$ or $\\sqrt{2}$", False),
    ],
)
def test_choices(earns, choices, reference, response, right):
    assert earns("choice", reference, response, choices) is right


@pytest.mark.parametrize(
    ("verifier", "reference", "response", "right"),
    [
        ("math", "18", "Answer:\n\n- 18", True),  # a bullet, not a sign
        ("math", "-18", "Answer:\n\n- 18", False),
        ("math", "18°C", "Answer:\n\n- -18°C", False),
        ("math", "34.5", "| answer |\n|---|\n| 34.5 |", True),  # a cell of a table, not an absolute value
        ("math", "34.5", "| answer |\n|---|\n| -34.5 |", False),
        ("math", "18", "∴ 18", True),
        ("numeric", "18", "=> 18 euros", True),
        ("math", "x > 18", "答案是“x > 18”。", True),
        ("math", "[4, 5)", 'The answer is "[4,5)".', True),
        ("math", "1234567", "So x = 1\u202f234\u202f567.", True),
        ("math", "5, 6", "答案是5和6。", True),
        ("math", "6", "答案是5和6。", False),
        ("math", "18", "It may be 18.", False),
        ("math", "18", "$18$不正确。", False),
        ("math", "18", "18 apples is too small.", False),
        ("math", "18°", "Not necessarily $\\angle ABC = 18^\\circ$.", False),
        ("math", "18", "18±1", False),
        ("math", "10000", "between \\$10,000 and $12,000", False),
        ("math", "6:30 p.m.", "The answer is seven.", False),
        ("numeric", "7%", "The answer is 7 percent of 7.", False),
        ("numeric", "6", "x = 5 or x = 6", False),
        ("numeric", "11 cm^2", "The total is $11\\text{ cm}^2$, altogether.", True),
        ("count", "13", "图片中共有十三个。", True),
        ("count", "13", "图中没有十三个。", False),
        ("count", "3", "答案是“3个”。", True),
        ("point", "[400, 200, 480, 240]", '{"answer": "<point>421 215</point>"}', True),
    ],
)
def test_marks_and_doubts(earns, verifier, reference, response, right):
    assert earns(verifier, reference, response) is right


def test_a_time_of_the_day_is_a_good_reference_for_every_answer(scorer):
    task = Task(id="t", source="s", question="", answer="6:30 p.m.", verifier="math")
    assert scorer.score(["The answer is seven or so."], [task])[0].verdict.kind is not VerdictKind.BAD_REFERENCE


@pytest.mark.parametrize(
    ("verifier", "reference", "response", "right"),
    [
        ("math", "30", "two and a half dozen", False),
        ("math", "36", "three dozen", True),
        ("math", "3", "three dozen", False),
        ("math", "2500000", "two and a half million", True),
        ("math", "7.5", "7 and a half", True),
        ("math", "1.25", "one point two five", True),
        ("math", "1/2", "half", True),
        ("math", "8", "three five", False),  # no numeral
        ("math", "35000", "三万五千", True),
        ("math", "120", "一百二", True),
        ("math", "2.5 hours", "两个半小时", True),
        ("math", "50%", "五成", True),
        ("math", "3:4", "三比四", True),
        ("math", "1:2", "结果是1比2。", True),
        ("math", "2", "结果是1比2。", False),
        ("math", "-5", "It is 5 degrees below zero.", True),
        ("math", "5", "It is 5 degrees below zero.", False),
        ("math", "12 cm", "\\boxed{12 \\text{ (cm)}}", True),
        ("math", "12 cm", "\\boxed{12 \\text{ (kg)}}", False),
        ("math", "12", "12 base 10", True),
        ("math", "5", "5'", False),
        ("math", "5", "'5'", True),
        ("math", "5", "Is it 5?", False),
        ("math", "6", "5=6", False),
        ("math", "6", "结果是6+。", False),
        ("count", "3", "3+", False),
        ("choice", "A", "故选：**A**。", True),
        ("choice", "A", "答案是“A或C”。", False),
    ],
)
def test_numerals_and_marks(earns, verifier, reference, response, right):
    assert earns(verifier, reference, response, PETS if verifier == "choice" else ()) is right
