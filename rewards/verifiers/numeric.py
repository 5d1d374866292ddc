"""Numbers within a tolerance, and counts: `numeric(rel=0.01)`, `numeric(abs=0.5)`, `count`.

One number is read out of the answer, never more: a sentence with several of them, a range or a hedge is no answer.
Values are exact fractions, so that a tolerance ends exactly where it says.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from fractions import Fraction

from rewards.extraction import Extraction
from rewards.math.literal import Literal, Measure, parse_literal, split_unit, units_agree
from rewards.math.normalize import to_latex
from rewards.math.quantity import quantities, signed, unwrapped, withheld
from rewards.math.spoken import chinese_number
from rewards.math.units import VALUE_WORDS, conversion
from rewards.sentences import stated
from rewards.types import Task
from rewards.verifiers.base import ExtractingVerifier
from rewards.verifiers.equivalent_answers import all_numbers, with_thousands
from rewards.verifiers.verdicts import Found, bad_reference, correct_if, no_answer

_MAX = 400  # characters of an answer or a sentence that holds one number
_LINE = 20_000  # characters of an answer with prose around its number
_SCALES = {"thousand": 3, "million": 6, "billion": 9, "trillion": 12, "k": 3, "mn": 6, "bn": 9}
_SCALED = re.compile(rf"(.*\d)\s{{0,3}}({'|'.join(_SCALES)})\b\.?(.*)", re.IGNORECASE | re.DOTALL)
_HEDGE = re.compile(
    r"\b(?:or|either|maybe|perhaps|possibly|between|not|isn't|at least|at most|more than|less than|fewer than|over"
    r"|under|up to)\b|±|\\pm|[<>≤≥]|(?<![\d}])~|或|不是",
    re.IGNORECASE,
)
_RANGE = re.compile(r"\d\s*(?:-|–|—|\bto\b|\.\.)\s*\d")
_SCALE_MARK = re.compile(r"(\d)\s?(?:thousand|million|billion|trillion|mn|bn)\b", re.IGNORECASE)
_EQUALS = re.compile(r"=|\\approx(?![a-z])|≈")
_DELIMITER = re.compile(r"\\[()\[\]]|\\(?:text|mathrm|mathbf)\s?\{([^{}]*)\}|\*\*")
_FACTORIAL = re.compile(r"\d\s?!")  # or an exclamation; nobody knows
_UNITS = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
]  # fmt: skip
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_WORDS = {word: value for value, word in enumerate(_UNITS)} | {word: 20 + 10 * at for at, word in enumerate(_TENS)}
_WORDS |= {f"{ten}-{one}": _WORDS[ten] + _WORDS[one] for ten in _TENS for one in _UNITS[1:10]}
_WORDS |= {"none": 0, "a-hundred": 100, "one-hundred": 100}
_WORD = re.compile(
    r"\b(?:" + "|".join(sorted((w.replace("-", "[- ]") for w in _WORDS), key=len, reverse=True)) + r")\b", re.IGNORECASE
)
_CHINESE = re.compile(  # one number and a measure word, with or without a noun, and what says how many there are
    r"(?P<before>(?:一共|[^零〇一二两三四五六七八九十百千万几\d]){0,16}?(?:[有是为共见约到：:，,]|\s)\s?|)"
    r"(?P<number>[零〇一二两三四五六七八九十百千万]{1,8}|\d{1,9})"
    r"(?P<measure>个|只|张|条|本|件|位|名|辆|头|匹|棵|朵|人|根|支|枚|块|座|架|艘|颗|粒|双眼|种|次|元|岁|层|排|盏|台|把)?"
    r"(?P<noun>[\u4e00-\u9fff]{0,8})[。.!！]?"
)
_CHINESE_HEDGE = re.compile(r"[没不非或]|至少|至多|最多|最少|超过|少于|多于|可能|也许|大于|小于|接近")
_CHINESE_NUMERAL = re.compile(r"[零〇一二两三四五六七八九十百千万几\d]")
_ATTACHED = re.compile(  # behind a number: what changes its value
    rf"\d\s{{0,2}}(?:{VALUE_WORDS.pattern}|i(?![a-z])|[-+]\W*$|pairs?\b|and an?\b|and one\b|[百打]|千(?![克米瓦卡帕]))"
    r"|\d(?:st|nd|rd|th)\b|(?:dozens?|pairs?)\b|\d(?-i:[MK]\b)|\d\s?(?-i:B\b)|[$€£¥]\s?\d[\d.,]*\s?[mbk]\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    """A number as it was written, and its unit."""

    value: Fraction
    percent: bool = False
    unit: str = ""


class NumericVerifier(ExtractingVerifier):
    """Right within `abs`, or within `rel` times the size of the reference, whichever is more; both ends count.

    Without either the values must be equal. A unit may be missing; two known units of one kind are converted, of two
    kinds they are different answers. Where one side alone has a percent sign, 45 and 0.45 both stand for 45%.
    """

    def __init__(self, *, rel: float = 0.0, abs: float = 0.0) -> None:
        if not 0 <= rel < 1:
            raise ValueError(f"rel = {rel}: must be at least 0 and less than 1, such as 0.01 for one percent")
        if abs < 0:
            raise ValueError(f"abs = {abs}: must be 0 or more")
        self._rel, self._abs = Fraction(str(rel)), Fraction(str(abs))

    @staticmethod
    def rewritings(task: Task) -> dict[str, str]:
        """With thousands separators."""
        return with_thousands(task.answer.strip())

    @staticmethod
    def cheats(task: Task) -> dict[str, str]:
        """All numbers at once."""
        return all_numbers()

    def judge(self, extraction: Extraction, reference: str, *, response: str, task: Task) -> Found:
        """Compare the extracted answer with `reference`."""
        gold = read_number(reference)
        if gold is None:
            return bad_reference(f"{reference[:80]!r} is not a number")
        if extraction.answer is None:
            return no_answer(extraction.rule)
        given = number_in(extraction)
        if isinstance(given, str):
            return no_answer(f"{extraction.rule}/{given}")
        if (gold.percent and _is_known(given.unit)) or (given.percent and _is_known(gold.unit)):
            return correct_if(False, f"{extraction.rule}/unit")
        if gold.unit != given.unit and _is_known(gold.unit) and _is_known(given.unit):
            if not units_agree(gold.unit, given.unit):
                return correct_if(False, f"{extraction.rule}/unit")
            given = replace(given, value=given.value * conversion(gold.unit, given.unit), unit=gold.unit)
        return correct_if(self._within(gold, given), f"{extraction.rule}/tolerance")

    def _within(self, gold: Number, given: Number) -> bool:
        values = [given.value]
        if gold.percent and not given.percent:
            values.append(given.value * 100)
        elif given.percent and not gold.percent:
            values.append(given.value / 100)
        allowed = max(self._abs, self._rel * abs(gold.value))
        return any(abs(value - gold.value) <= allowed for value in values)


class CountVerifier(ExtractingVerifier):
    """How many: a whole number in digits or words (`3`, `three dogs`, `三个`), and no other number beside it."""

    @staticmethod
    def rewritings(task: Task) -> dict[str, str]:
        """With thousands separators, or in words."""
        gold = task.answer.strip()
        small = gold.isdecimal() and len(gold) < 3 and int(gold) <= 10
        return {**with_thousands(gold), **({"in words": _UNITS[int(gold)]} if small else {})}

    @staticmethod
    def cheats(task: Task) -> dict[str, str]:
        """All numbers at once."""
        return all_numbers()

    def judge(self, extraction: Extraction, reference: str, *, response: str, task: Task) -> Found:
        """Compare the extracted answer with `reference`."""
        gold = number_in(Extraction(answer=reference, rule="box"), words=True)
        if isinstance(gold, str) or gold.value.denominator != 1 or gold.value < 0:
            return bad_reference(f"{reference[:80]!r} is not a whole number")
        if extraction.answer is None:
            return no_answer(extraction.rule)
        given = number_in(extraction, words=True)
        if isinstance(given, str):
            return no_answer(f"{extraction.rule}/{given}")
        return correct_if(given.value == gold.value and not given.percent, f"{extraction.rule}/count")


def read_number(text: str) -> Number | None:
    """The number that all of `text` is, with unit, percent sign or scale word, or None. Bounded work."""
    if len(text) > _MAX:
        return None
    bare = re.sub(r"^(?:≈|~|\\approx|about|approximately|around|=)\s*", "", text.strip(), flags=re.IGNORECASE)
    if _HEDGE.search(bare) or _RANGE.search(bare):
        return None
    latex = to_latex(bare)
    scaled = _SCALED.fullmatch(latex)
    measure, literal = _measure(scaled[1] if scaled is not None else latex)
    if scaled is None:
        return Number(value=literal.value, percent=literal.percent, unit=measure.unit) if literal is not None else None
    after = scaled[3].strip()
    unit = split_unit(f"1 {after}").unit if after else measure.unit
    if literal is None or literal.percent or (after and not re.fullmatch(r"[A-Za-z. ]{1,40}", after)):
        return None
    return Number(value=literal.value * 10 ** _SCALES[scaled[2].lower()], unit=unit)


def number_in(extraction: Extraction, *, words: bool = False) -> Number | str:
    """The one number of an extracted answer, or the reason why there is none: `hedge`, `question` and the like.

    `words`: number words count too.
    """
    answer = extraction.answer or ""
    if len(answer) > _LINE:
        return "refused"
    answer = signed(" ".join(answer.split())).strip('*_`"“”')
    if _FACTORIAL.search(answer):
        return "arithmetic"
    is_question = False
    if extraction.rule in ("anchor", "line"):
        is_question = answer.endswith("?")
        answer = stated(answer, last=extraction.rule == "line").strip('*_`"“”')
    answer = unwrapped(answer)
    if words and (counted := _chinese_count(answer)) is not None:
        return counted
    if _changed(answer):
        return "changed"
    after = _EQUALS.split(answer)[-1]
    whole = read_number(after)
    if whole is not None and (after == answer or not _HEDGE.search(answer)):
        return whole
    if len(answer) > _MAX:
        return "refused"
    if is_question:
        return "question"
    if _HEDGE.search(answer) or _RANGE.search(after):
        return "hedge"
    return _only_number(answer, words=words)


def _changed(answer: str) -> bool:
    """True where a word or mark behind the number changes its value: `5 dozen`, `45M`, `100 squared`, `>100`."""
    found = _ATTACHED.search(_SCALE_MARK.sub(r"\1", answer))
    return found is not None or bool(re.match(r"\s*[<>≤≥]", answer))


def _chinese_count(answer: str) -> Number | str | None:
    """The number of a Chinese phrase such as `图中有3只狗` or `二十五个`; why there is none; None for other text."""
    if not re.search(r"[\u4e00-\u9fff]", answer):
        return None
    answer = _DELIMITER.sub(lambda m: m[1] or "", answer)
    match = _CHINESE.fullmatch(re.sub(r"(?<=[\u4e00-\u9fff])\s|\s(?=[\u4e00-\u9fff])", "", answer))
    if match is None:
        return "several" if _CHINESE_NUMERAL.search(answer) else None
    if _CHINESE_HEDGE.search(match["before"]):
        return "hedge"
    if match["noun"] and (not match["measure"] or _CHINESE_NUMERAL.search(match["noun"])):
        return "several"
    digits = match["number"] if match["number"].isdigit() else chinese_number(match["number"])
    if digits is None:
        return "none"
    return Number(value=Fraction(digits))


def _only_number(sentence: str, *, words: bool) -> Number | str:
    """The number of a sentence that holds one; of an equation, the one after the last "="."""
    if words:
        sentence = _WORD.sub(lambda m: str(_WORDS[re.sub(r"\s", "-", m[0].lower())]), sentence)
    sentence = _EQUALS.split(sentence)[-1]
    runs = quantities(sentence)
    if not runs:
        return "none"
    if any(withheld(sentence, run.start, run.end) for run in runs):
        return "hedge"
    numbers = [read_number(run.text) for run in runs]
    first = numbers[0]
    if first is None or None in numbers:
        return "several" if len(numbers) > 1 else "arithmetic"
    return first if len({(n.value, n.percent) for n in numbers if n is not None}) == 1 else "several"


def _is_known(unit: str) -> bool:
    """True for a unit of measurement: it disagrees with a mass or with a time."""
    return not (units_agree(unit, "kg") and units_agree(unit, "s"))


def _measure(latex: str) -> tuple[Measure, Literal | None]:
    """`latex` without its unit, and the literal that is left; `50\\%` is a literal, not a measure."""
    whole = parse_literal(latex)
    measure = Measure(text=latex, unit="") if whole is not None else split_unit(latex)
    return measure, whole if whole is not None else parse_literal(measure.text)
