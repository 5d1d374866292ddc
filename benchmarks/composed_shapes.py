"""References of several parts and in letters: points, intervals, lists, formulas, words, boxes of images, options."""

from __future__ import annotations

import random

from composed_values import ENGLISH, Answer, Maker, chinese

OPTIONS: tuple[tuple[str, ...], ...] = (
    ("cat", "dog", "bird", "fish"),
    ("猫", "狗", "鸟", "鱼"),
    ("a red car", "a blue bus", "a green van", "a white bike"),
    ("increase", "decrease", "stay constant", "oscillate"),
    ("红色", "蓝色", "绿色", "黄色", "白色"),
    ("12", "18", "24", "30"),
    ("1/4", "1/3", "1/2", "3/4"),
    ("30°", "45°", "60°", "90°"),
    ("3 cm", "4 cm", "5 cm", "6 cm"),
    ("$\\sqrt{2}$", "$2\\sqrt{2}$", "$3\\sqrt{2}$", "$4\\sqrt{2}$"),
    ("True", "False", "Cannot be determined"),
    ("New York City", "Los Angeles", "Chicago", "Houston", "Phoenix"),
)
POLAR = (
    ("yes", "no"), ("Yes", "No"), ("Yes.", "No."), ("**Yes**", "**No**"), ("是", "否"), ("是的", "不是"), ("对",
    "不对"),
    ("正确", "错误"), ("True", "False"), ("\\text{Yes}", "\\text{No}"),
)  # fmt: skip


def interval(rng: random.Random) -> Answer:
    """An interval with two ends, or a ray."""
    a, b = rng.randint(-9, 4), rng.randint(5, 20)
    left, right = rng.choice("(["), rng.choice(")]")
    low, high = ("<" if left == "(" else r"\le"), ("<" if right == ")" else r"\le")
    plain_low, plain_high = low.replace(r"\le", "≤"), high.replace(r"\le", "≤")
    same = [f"{left}{a}, {b}{right}", f"{left}{a},{b}{right}", f"{a} {low} x {high} {b}",
        f"{a} {plain_low} x {plain_high} {b}",
            rf"x \in {left}{a}, {b}{right}", rf"\left{left}{a}, {b}\right{right}"]  # fmt: skip
    other = "[" if left == "(" else "("
    wrong = [f"{left}{b + 1}, {b + 9}{right}", f"{left}{a}, {b + 1}{right}", f"{other}{a}, {b}{right}",
        f"{left}{-a - 1}, {b}{right}", str(a), str(b),
        f"x > {a}"]  # fmt: skip
    return Answer(kind="interval", reference=f"{left}{a}, {b}{right}", right=same, wrong=wrong)


def ray(rng: random.Random) -> Answer:
    """A solved inequality."""
    a = rng.randint(-9, 30)
    sign, word = rng.choice([(">", "("), (r"\ge", "[")])
    same = [
        f"x {sign} {a}",
        f"x {sign.replace(chr(92) + 'ge', '≥')} {a}",
        rf"{word}{a}, \infty)",
        f"{word}{a}, ∞)",
        f"{word}{a}, +∞)",
    ]
    wrong = [f"x < {a}", f"x {sign} {a + 1}", str(a), f"x = {a}", rf"(-\infty, {a})", f"x ≤ {a}"]
    return Answer(kind="ray", reference=f"x {sign} {a}", right=same, wrong=wrong)


def point(rng: random.Random) -> Answer:
    """A point of the plane."""
    a, b = rng.sample(range(-9, 10), 2)
    right = [
        f"({a}, {b})",
        f"({a},{b})",
        f"（{a}，{b}）",
        rf"\left({a}, {b}\right)",
        f"({a}, {b})".replace("-", "−"),
        f"P({a}, {b})",
    ]
    wrong = [f"({b}, {a})", f"({a}, {b + 1})", str(a), str(b), f"({a}, {b}, 0)", f"({a}, {b}) and ({b}, {a})"]
    if a:
        wrong += [f"({-a}, {b})"]
    return Answer(kind="point", reference=f"({a}, {b})", right=right, wrong=wrong)


def several(rng: random.Random) -> Answer:
    """Two or three solutions."""
    values = rng.sample(range(-9, 30), rng.choice((2, 3)))
    other = values[::-1]
    reference = ", ".join(map(str, values))
    joined = ", ".join(map(str, values[:-1]))
    right = [reference, ", ".join(map(str, other)), f"{joined} and {values[-1]}", rf"\{{{reference}\}}",
        f"{joined}, and {values[-1]}",
             rf"{joined} \text{{ and }} {values[-1]}", "、".join(map(str, values)), f"x = {joined} or x = {values[-1]}"
             if len(values) == 2 else reference]  # fmt: skip
    wrong = [
        *map(str, values),
        f"{reference}, {max(values) + 1}",
        ", ".join(map(str, [*values[:-1], values[-1] + 40])),
        f"-{max(values)}",
    ]
    return Answer(kind="list", reference=reference, right=right, wrong=wrong)


def formula(rng: random.Random) -> Answer:
    """A linear or quadratic expression."""
    a, b, c = rng.randint(2, 9), rng.randint(1, 9), rng.randint(1, 9)
    right = [f"{a}x^2+{b}x+{c}", f"{a}x^2 + {b}x + {c}", f"{c} + {b}x + {a}x^2", f"{a}x²+{b}x+{c}",
        rf"{a}x^{{2}}+{b}x+{c}",
             rf"f(x) = {a}x^2+{b}x+{c}", f"x({a}x+{b})+{c}"]  # fmt: skip
    wrong = [f"{a}x^2+{b}x-{c}", f"{a}x^2+{b + 1}x+{c}", f"{a}x^3+{b}x+{c}", str(c), f"{a}x^2", f"{b}x+{c}",
        f"{a}y^2+{b}y+{c}",
             f"{a}x^2+{b}x+{c} = 0"]  # fmt: skip
    return Answer(kind="formula", reference=f"{a}x^2+{b}x+{c}", right=right, wrong=wrong)


def line(rng: random.Random) -> Answer:
    """The equation of a line."""
    a, b = rng.randint(2, 9), rng.randint(1, 9)
    right = [f"y = {a}x + {b}", f"y={a}x+{b}", f"y = {b} + {a}x", rf"y - {a}x = {b}", f"{a}x - y + {b} = 0"]
    wrong = [f"y = {a}x - {b}", f"y = {a + 1}x + {b}", f"x = {a}y + {b}", f"y = {b}", f"y = -{a}x + {b}"]
    return Answer(kind="line", reference=f"y = {a}x + {b}", right=right, wrong=wrong)


def count(rng: random.Random) -> Answer:
    """How many things a picture shows."""
    n = rng.randint(1, 15)
    word, noun = ENGLISH[n], rng.choice(["dogs", "red cars", "people", "apples"])
    right = [
        str(n),
        word,
        word.capitalize(),
        f"{n} {noun}",
        f"{word} {noun}",
        f"{chinese(n)}个",
        f"{n}个",
        f"{chinese(n)}只",
        f"{n}只狗",
    ]
    wrong = [str(n + 1), ENGLISH[n - 1], f"{n} dozen", f"{n}.5", f"-{n}", f"{n} or {n + 1}", f"{chinese(n + 1)}个",
        f"{n}-{n + 2}",
             f"{n} pairs of {noun}", f"第{n}个", f"{n}th", f"{n} {noun} and {n + 1} cats",
             f"{chinese(n)}只狗{chinese(n + 1)}只猫",
             f"{n}%", f"more than {n}", f"at least {n}"]  # fmt: skip
    return Answer(kind="count", reference=str(n), right=right, wrong=wrong, verifiers=("count",))


def polar(rng: random.Random) -> Answer:
    """Yes or no."""
    at = rng.randrange(2)
    right, wrong = [pair[at] for pair in POLAR], [pair[1 - at] for pair in POLAR]
    wrong += ["yes and no", "yes or no", "maybe", "是或否", "not sure", "Yes/No", "不确定"]
    return Answer(kind="polar", reference=("yes", "no")[at], right=right, wrong=wrong, verifiers=("yes_no", "text"))


def word(rng: random.Random) -> Answer:
    """A word or two about a picture."""
    words = rng.choice(
        [["red", "teal", "a rectangle", "the left one", "stop sign", "Paris", "oak tree"], ["红色", "圆形", "左边"]]
    )
    gold, other = rng.sample(words, 2)
    right = [gold, gold.capitalize(), f'"{gold}"', f"**{gold}**", rf"\text{{{gold}}}", f"“{gold}”"]
    wrong = [other, f"not {gold}", f"{gold} or {other}", f"{other} {gold}", f"{gold} and {other}"]
    if not gold.isascii():
        wrong = [other, f"不是{gold}", f"{gold}或{other}"]
    return Answer(kind="word", reference=gold, right=right, wrong=wrong, verifiers=("text",))


def written(rng: random.Random) -> Answer:
    """Text that stands in a picture."""
    texts = rng.choice(
        [
            ["STOP", "No parking", "Sale: 50% off", "Room 204", "Exit 12B", "Tel 555-0199"],
            ["出口", "禁止吸烟", "小心地滑"],
        ]
    )
    gold, other = rng.sample(texts, 2)
    right = [gold, f'"{gold}"', f"“{gold}”", rf"\text{{{gold}}}", f"「{gold}」"]
    wrong = [other, f"{gold} {other}", gold[: len(gold) // 2], f"x{gold}y{other}"]
    return Answer(kind="ocr", reference=gold, right=right, wrong=wrong, verifiers=("ocr",))


def click(rng: random.Random) -> Answer:
    """A point inside a box of a screen."""
    x, y = rng.randint(200, 500), rng.randint(200, 500)
    inside = (x + rng.randint(1, 79), y + rng.randint(1, 39))
    outside = rng.choice([(x + 200, y + 3), (x - 5, y + 3), (x + 3, y + 45), (y + 1000, x)])
    forms = ["[{}, {}]", "({}, {})", "({},{})", "<point>{} {}</point>", "pyautogui.click(x={}, y={})",
        '{{"point_2d": [{}, {}]}}',
             '[{{"point_2d": [{}, {}], "label": "button"}}]', '<point x="{}" y="{}">button</point>',
             "<|box_start|>({},{})<|box_end|>"]  # fmt: skip
    right, wrong = ([form.format(*at) for form in forms] for at in (inside, outside))
    wrong += [f"({inside[0]}, {inside[1]}) or ({outside[0]}, {outside[1]})", f"[{x}]"]
    reference = f"[{x}, {y}, {x + 80}, {y + 40}]"
    return Answer(kind="click", reference=reference, right=right, wrong=wrong, verifiers=("point",))


def letter(rng: random.Random) -> Answer:
    """A letter of an option."""
    choices = rng.choice(OPTIONS)
    at, to = rng.sample(range(len(choices)), 2)
    a, b = "ABCDE"[at], "ABCDE"[to]
    right = [a, f"({a})", f"{a}.", f"{a})", f"[{a}]", f"option {a}", f"Option {a}", f"{a}. {choices[at]}",
        f"({a}) {choices[at]}",
             f"选{a}", f"{a}: {choices[at]}", f"{a}项", rf"\text{{{a}}}", rf"\text{{({a})}}", f"**{a}**", f"选项{a}",
             f"{a}（{choices[at]}）"]  # fmt: skip
    wrong = [b, f"({b})", f"{b}.", f"{a} or {b}", f"{a}/{b}", f"{a}, {b}", f"not {a}", f"{a}和{b}", f"{a}或{b}",
        f"option {b}", f"不选{a}",
             f"{b}. {choices[to]}", f"({b}) {choices[to]}", f"选{b}", f"{a}{b}", f"neither {a} nor {b}"]  # fmt: skip
    return Answer(kind="letter", reference=a, right=right, wrong=wrong, verifiers=("choice",), choices=choices)


def option(rng: random.Random) -> Answer:
    """The text of an option."""
    choices = rng.choice(OPTIONS)
    at, to = rng.sample(range(len(choices)), 2)
    right = [choices[at], f'"{choices[at]}"', choices[at].capitalize()]
    wrong = [
        choices[to],
        f"{choices[at]} or {choices[to]}",
        f"not {choices[at]}",
        f"neither {choices[at]} nor {choices[to]}",
    ]
    if not choices[0].isascii():
        wrong = [choices[to], f"{choices[at]}或{choices[to]}", f"不是{choices[at]}"]
    reference = rng.choice(["ABCDE"[at], choices[at], f"{'ABCDE'[at]}. {choices[at]}"])
    return Answer(kind="option", reference=reference, right=right, wrong=wrong, verifiers=("choice",), choices=choices)


SHAPES: tuple[Maker, ...] = (
    interval, ray, point, several, formula, line, count, polar, word, written, click, letter, option,
)  # fmt: skip
