"""Kinds of answers that were once paid or refused wrongly, each with siblings; the rules stand in docs/verifiers.md."""

import pytest

from rewards import Task

PETS = ("cat", "dog", "bird", "fish")
ANGLES = ("∠P", "∠Q", "∠R", "∠S")
SHOPS = ("Shop C", "Shop A", "Shop D", "Shop B")


@pytest.mark.parametrize(
    ("reference", "response"),
    [
        ("18", "The surface is 18 m^2."),  # the whole quantity, not its exponent
        ("8\\sqrt{5}", "So the diagonal is 8√5."),
        ("3:4", "The ratio is 3:4."),
        ("2.5 billion", "It has 2.5 billion stars."),
        ("45000", "The cost is 45 000 euros."),
        ("5000 \\text{ kg/m^3}", "\\boxed{5 \\text{ g/cm^3}}"),
        ("0.25 \\text{ A}", "\\boxed{250 \\text{ mA}}"),
        ("7 \\text{ cm^3}", "\\boxed{7 \\text{ mL}}"),
        ("90 \\text{ km/h}", "\\boxed{25 \\text{ m/s}}"),
        ("3 \\text{ kg}", "\\boxed{6 斤}"),
        ("-7", "The change is minus 7."),
        ("-7", "结果是负7。"),
        ("15", "\\boxed{1\u200b5}"),  # a character that cannot be seen
        ("15", "Answer: 15 ✅"),
        ("15", "The answer is 15 (see step 2)."),
        ("15", "The answer is $15$, because $b=4$."),
        ("18", "\\boxed{12}. Wait, I misread the height. The answer is 18."),  # the later one counts
        ("\\sqrt{7}", "\\boxed{2.645751}"),
        ("9\\pi", "\\boxed{28.274334}"),
    ],
)
def test_right_mathematical_answers(earns, reference, response):
    assert earns("math", reference, response)


@pytest.mark.parametrize(
    ("reference", "response"),
    [
        ("2", "The surface is 18 m^2."),  # a part of the quantity
        ("3", "The volume is 64 dm^3."),
        ("5", "So the diagonal is 8√5."),
        ("4", "The ratio is 3:4."),
        ("2.5", "It has 2.5 billion stars."),
        ("0", "The cost is 45 000 euros."),
        ("4", "The solutions are x = 1 and x = 4."),
        ("2", "The answer is 15 (see step 2)."),
        ("9", "The value is at most 9."),
        ("9", "结果至少是9。"),
        ("7", "\\boxed{7 dozen}"),  # words that change the value
        ("7", "\\boxed{7\\text{ hundredths}}"),
        ("7", "\\boxed{7\\text{ squared}}"),
        ("7", "\\boxed{7 ppm}"),
        ("7", "The answer is 7 crore."),
        ("7", "结果是负7。"),
        ("7", "\\boxed{7\\text{, 8}}"),
        ("4 \\text{ GHz}", "\\boxed{4 \\text{ kHz}}"),  # other units
        ("4 \\text{ m}", "\\boxed{4 \\text{ pm}}"),
        ("4 \\text{ g}", "\\boxed{4 \\text{ oz}}"),
        ("4 \\text{ m/s}", "\\boxed{4 \\text{ m/s^2}}"),
        ("4 \\text{ Ω}", "\\boxed{4 \\text{ kΩ}}"),
        ("4 公斤", "\\boxed{4 斤}"),
        ("30^\\circ", "\\boxed{30\\text{ rad}}"),
        ("12", "\\boxed{12}. Wait, I misread the height. The answer is 18."),
        ("12", "\\boxed{12} 不对，应为18。"),
        ("\\sqrt{7}", "\\boxed{2.645752}"),  # the seventh digit is not the rounding of it
        ("\\sqrt{7}", "\\boxed{2.6458}"),
    ],
)
def test_wrong_mathematical_answers(earns, reference, response):
    assert not earns("math", reference, response)


@pytest.mark.parametrize(
    ("choices", "reference", "response"),
    [
        (("D", "C", "B", "A"), "B", "\\boxed{B}"),  # options that are letters: the label counts
        (("D", "C", "B", "A"), "D", "(D)"),
        (ANGLES, "C", "The smallest angle is ∠R."),  # a name with a letter is no label
        (ANGLES, "D", "\\boxed{\\angle S}"),
        (SHOPS, "B", "Therefore Shop A sold the most."),
        (PETS, "B", "B\n\nIt has a collar, which a fish (D) never wears."),  # the label first, then why
        (PETS, "C", "**C. bird**\n\nOption A shows a cat."),
        (PETS, "D", "A, B and C are wrong, so D."),
        (PETS, "C", "A、B、D都不对，故选C。"),
        (PETS, "A", "排除B、C、D，选A。"),
        (PETS, "C", "\\boxed{A}. Wait, that is wrong. The correct answer is C."),
        (("1:3", "1:4", "4:1"), "B", "The ratio is 1:4."),
        (("9 cm", "12 cm"), "B", "The side is 12 cm."),
    ],
)
def test_right_choices(earns, choices, reference, response):
    assert earns("choice", reference, response, choices)


@pytest.mark.parametrize(
    ("choices", "reference", "response"),
    [
        (("D", "C", "B", "A"), "C", "\\boxed{B}"),
        (ANGLES, "A", "The smallest angle is ∠R."),
        (SHOPS, "A", "Shop C closed early; Shop A sold the most."),
        (("3 A", "5 A", "9 A"), "A", "The current is 4 A."),
        (("10 J", "20 J"), "A", "\\boxed{A = 3}"),
        (("10 J", "20 J"), "B", "\\boxed{\\angle B = 20^\\circ}"),
        (PETS, "D", "B\n\nIt has a collar, which a fish (D) never wears."),
        (PETS, "B", "不能选B"),
        (PETS, "B", "Not option (B)."),
        (PETS, "A", "\\boxed{A}. Wait, that is wrong. The correct answer is C."),
        (("4", "14", "44"), "A", "The area is 14 m^4"),
    ],
)
def test_wrong_choices(earns, choices, reference, response):
    assert not earns("choice", reference, response, choices)


@pytest.mark.parametrize(
    ("verifier", "reference", "response", "right"),
    [
        ("numeric", "8", "8 dozen", False),
        ("numeric", "8", "minus 8", False),
        ("numeric", "-8", "negative 8", True),
        ("numeric", "8", "8 and a half", False),
        ("numeric", "8", "8M", False),
        ("numeric(rel=0.05)", "8", ">8", False),
        ("numeric(rel=0.01)", "2.71828", "$e \\approx 2.72$", True),
        ("numeric", "8", "共8元。", True),
        ("count", "6", "six dozen", False),
        ("count", "6", "6 pairs", False),
        ("count", "6", "图中有6只猫。", True),
        ("count", "14", "十四", True),
        ("count", "36", "三十六个", True),
        ("count", "400", "四百", True),
        ("count", "4", "四百", False),
        ("count", "5", "五角形", False),
        ("count", "2", "两者都有", False),
        ("count", "10", "十几个", False),
        ("text", "绿色", "答案是绿色。", True),
        ("text", "绿色", "「绿色」", True),
        ("text", "bus", "b\u200bus", True),
        ("yes_no", "true", "The claim is true.", True),
        ("yes_no", "no", "这句话是错的。", True),
        ("yes_no", "yes", "\u200bYes\u200b", True),
        ("text", "cat", "The animal is cat. The animal is dog.", False),
        ("point", "[10, 10, 30, 30]", "agent.click(x=20, y=12)", True),
        ("point", "[10, 10, 30, 30]", "The point is not (20, 12).", False),
        ("box", "[5, 5, 50, 50]", "Box: 5, 5, 50, 50", True),
        ("ocr", "Exit 12", '"Exit 12"', True),
        ("ocr", "Exit 12", "\\boxed{\\text{Exit 12}}", True),
    ],
)
def test_short_answers(earns, verifier, reference, response, right):
    assert earns(verifier, reference, response) is right


@pytest.mark.parametrize(
    ("verifier", "reference", "response", "right"),
    [
        ("text", '["cat", "kitty"]', "kitty", True),
        ("text", '["cat", "kitty"]', "cat, kitty", False),
        ("math", '["1/2", "0.4"]', "\\boxed{0.4}", True),
        ("math", '["1/2", "0.4"]', "\\boxed{\\frac12}", True),
        ("math", '["1/2", "0.4"]', "\\boxed{0.3}", False),
        ("math", '["x^2-1", "(x-1)(x+1)+0"]', "\\boxed{(x+1)(x-1)}", True),
        ("numeric(abs=0.1)", '["3", "5"]', "5.05", True),
        ("count", '["3", "many"]', "3", True),  # one of them is no number
        ("json", '["a", "b"]', '["a", "b"]', True),  # the list is the answer
        ("json", '["a", "b"]', '"a"', False),
    ],
)
def test_any_accepted_answer_is_right(earns, verifier, reference, response, right):
    assert earns(verifier, reference, response) is right


def test_a_list_of_unusable_references_is_a_bad_reference(scorer):
    task = Task(id="t", source="s", question="", answer='["many", "few"]', verifier="count")
    assert scorer.score(["3"], [task])[0].verdict.kind == "bad_reference"
