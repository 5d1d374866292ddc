"""Siblings of the kinds in `test_kinds_of_faults.py`: other units, frames of sentences, numerals and negations."""

import pytest

PETS = ("cat", "dog", "bird", "fish")


@pytest.mark.parametrize(
    ("reference", "response"),
    [
        ("18", r"\boxed{18\,\mu\mathrm{s}}"),  # units in the ways that LaTeX writes them
        ("18", r"\boxed{18\,\text{M}\Omega}"),
        ("18", r"\boxed{18\ \si{kg}}"),
        ("18", r"\boxed{\SI{18}{kg}}"),
        (r"18 \text{ m}", r"\boxed{\SI{1800}{cm}}"),
        (r"25\pi", "The area is 25π cm²."),
        (r"3\sqrt{2}", "The side is 3√2 cm."),
        ("195 minutes", "It takes 3 hours and 15 minutes."),  # quantities of several units
        ("195 minutes", r"\boxed{3 \text{ hours } 15 \text{ minutes}}"),
        ("76 inches", "6 ft 4 in"),
        ("3.25 hours", "3 h 15 min"),
        ("7", "the 7th"),  # ordinals
        ("22", "22nd"),
        ("7", r"\boxed{7^{\text{th}}}"),
        ("7", "第7"),
        ("7", "第七个"),
        ("35", "三十五个"),  # Chinese numerals with measure words and units
        ("35", "共三十五人"),
        ("35", r"\boxed{三十五元}"),
        ("4.5", "The answer is four and a half."),
        ("2.25", "two and a quarter"),
        ("4:45", "It's 4:45."),
        ("12:05", r"\boxed{12:05}"),
        ("3, 7", "Possible values: 3, 7."),
        ("\u200b15", r"\boxed{15}"),
        ("5", r"\boxed{5} is the answer, not 6."),
        ("5", r"It is not 4 but \boxed{5}."),
        ("3, 5", r"It is \boxed{3} and \boxed{5}, which is not wrong."),
        ("36", "The number of possible outcomes is 36."),
        ("2500.75", "The 4 fields have 2,500.75m²"),
        ("3/7", r"答案：每人得到 (\frac{3}{7}) 千克。"),
        ("48.5", "The answer is $48.5$. As said above, we use $A = P r^n$ where $P$ is known."),
    ],
)
def test_right_mathematical_siblings(earns, reference, response):
    assert earns("math", reference, response)


@pytest.mark.parametrize(
    ("reference", "response"),
    [
        ("12:00", r"\boxed{1:00}"),  # clock times are no ratios
        ("12:00", r"\boxed{6:00}"),
        ("3:05", r"\boxed{6:10}"),
        ("4:45", "It's 4:46."),
        ("15 minutes", "It takes 3 hours and 15 minutes."),
        ("4", "6 ft 4 in"),
        ("15", "3 h 15 min"),
        ("4", "The rug is 15 cm by 4 cm."),
        ("7", "Possible values: 3, 7."),  # one of several
        ("7", "Answer: 7; alternatively 8"),
        ("7", r"\boxed{7\text{ π}}"),
        (r"7 \text{ m}", r"\boxed{7 \text{ nautical miles}}"),
        (r"7 \text{ kg}", r"\boxed{7 \text{ metric tons}}"),
        ("7 \\text{ g}", r"\boxed{7 \text{ troy ounces}}"),
        (r"18 \text{ m}", r"\boxed{18\,\mu\mathrm{m}}"),
        (r"18 \text{ Ω}", r"\boxed{18\,\text{M}\Omega}"),
        ("45", "It costs £45k."),
        ("3", "3成"),
        ("9", r"\boxed{9折}"),
        ("3", r"\boxed{三角形}"),
        ("10", "十几个"),
        ("4", "The answer is four and a half."),
        ("5", r"\boxed{5} is not the answer."),  # denied
        ("5", r"$\boxed{5}$ is wrong."),
        ("5", r"The answer is not $\boxed{5}$."),
        ("5", r"It isn't \boxed{5}."),
        ("5", r"答案不是\boxed{5}。"),
        ("5", "It can't be 5."),
        ("5", "It is never 5."),
    ],
)
def test_wrong_mathematical_siblings(earns, reference, response):
    assert not earns("math", reference, response)


@pytest.mark.parametrize(
    ("choices", "reference", "response", "right"),
    [
        (PETS, "B. dog", "B", True),  # a reference with its label
        (PETS, "(B) dog", "The animal is a dog.", True),
        (PETS, "B: dog", "C", False),
        (PETS, "A", "The dog sleeps, as shown in figure A.", False),
        (PETS, "B", "As shown in figure A, the dog sleeps.", True),
        (PETS, "B", "The dog sleeps.\n\nSee diagram A.", True),
        (("(1,4)", "(1,-4)"), "B", "The vertex is (1, −4).", True),
        (("decrease", "increase"), "B", "It increases.", True),
        (("decrease", "increase", "stay constant"), "C", "It stays constant.", True),
        (("decrease", "increase"), "A", "It doesn't decrease.", False),
        (("5", "-5", "10"), "A", "The value drops by 5.", False),
        (("5", "15", "10"), "A", "The value drops by 5.", True),
    ],
)
def test_choice_siblings(earns, choices, reference, response, right):
    assert earns("choice", reference, response, choices) is right


@pytest.mark.parametrize(
    ("verifier", "reference", "response", "right"),
    [
        ("text", "红色", "颜色是红色。", True),
        ("text", "红色", "不是红色。", False),
        ("text", "红色", "可能是红色。", False),
        ("yes_no", "no", "不正确", True),
        ("yes_no", "yes", "不正确", False),
        ("yes_no", "yes", "正确。", True),
        ("count", "5", "第五个", False),
        ("count", "7", "the 7th", False),
        ("ocr", "STOP", "The sign says 'STOP'.", True),
        ("ocr", "STOP", "The sign says 'SHOP'.", False),
    ],
)
def test_short_siblings(earns, verifier, reference, response, right):
    assert earns(verifier, reference, response) is right
