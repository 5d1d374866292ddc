"""Numbers and times that are written out: 3.5 million, 十二, 三分之二, 30°15', 3:30 p.m."""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache

_PADDED = re.compile(r":0\d")  # the minutes of a clock: no ratio is written so
_SCALES = {
    "hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12, "万": 4, "萬": 4, "亿": 8, "億": 8,
}  # fmt: skip
_SCALED = re.compile(
    r"(?<=\d)\s?(?:(\\text\s?\{)\s?)?(hundred|thousand|million|billion|trillion|万|萬|亿|億)(?![a-z])", re.IGNORECASE
)
SCALE = re.compile(
    r"(?<![A-Za-z])(?:hundred|thousand|million|billion|trillion)(?![a-z])|\d\s?[万萬亿億]"
    r"|[$€£¥]\s?\d[\d.,]{0,20}\s?[kmb]n?(?![a-z])",
    re.IGNORECASE,
)
_NUMERALS = ("零〇", "一壹", "二两兩", "三", "四", "五", "六", "七", "八", "九")
_DIGITS = {char: value for value, chars in enumerate(_NUMERALS) for char in chars}
_PLACES = {"十": 10, "百": 100, "千": 1000}
_CHINESE = re.compile(r"(负)?([零〇一壹二两兩三四五六七八九十百千]{1,12})(?:点([零〇一二三四五六七八九]{1,12}))?")
_DECIMAL = re.compile(r"[0-9]{1,9}\.[0-9]{1,9}")
_PARTS = re.compile(r"(.{1,12})分之(.{1,12})")
_MEASURE_WORDS = (  # what may stand behind a Chinese numeral and leaves its value
    "个|只|张|条|本|件|位|名|辆|头|匹|棵|朵|人|根|支|枚|块|座|架|艘|颗|粒|种|次|元|岁|层|排|盏|台|把|倍|题|步|页|项|期"
    "|米|厘米|毫米|千米|公里|克|千克|公斤|吨|升|毫升|秒|分钟|小时|天|周|个月|年|度|平方米|平方厘米|立方米|立方厘米"
)
_COUNTED = re.compile(
    rf"(?:第|(?:答案是|一共|总共|共|约|大约)?有?)([零〇一二两三四五六七八九十百千]{{1,12}}|\d{{1,9}})"
    rf"(?:({_MEASURE_WORDS})[^零〇一二两三四五六七八九十百千万亿\W\da-zA-Z半多几余来或和与点分成折倍不]{{0,6}})?"
)
_ORDINAL = re.compile(
    r"(?:the )?(\d{1,9})\s?(?:\^\s?)?(?:\{\s?)?(?:\\text\s?\{\s?)?(?:st|nd|rd|th)\s?\}{0,2}", re.IGNORECASE
)
_AND_PART = re.compile(r"([A-Za-z]\S{0,20}(?:\s\S{1,20}){0,4})\sand\s(?:a|one)\s(half|third|quarter)\.?", re.IGNORECASE)
_UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
    " eighteen nineteen twenty"
)
_TENS = "thirty forty fifty sixty seventy eighty ninety"
_ENGLISH = {word: value for value, word in enumerate(_UNITS.split())}
_ENGLISH |= {word: 10 * value for value, word in enumerate(_TENS.split(), start=3)}
_FRACTIONS = {
    "half": 2,
    "halve": 2,
    "third": 3,
    "quarter": 4,
    "fourth": 4,
    "fifth": 5,
    "sixth": 6,
    "eighth": 8,
    "tenth": 10,
}
_NOUN = re.compile(  # number words, and the name of what is counted
    rf"((?:(?:{'|'.join([*_ENGLISH, 'hundred', 'thousand', 'and'])})[\s-]){{1,8}})"
    rf"((?!(?:{'|'.join([*_ENGLISH, *_FRACTIONS, 'hundred', 'thousand', 'million', 'billion', 'trillion'])})s?\b)"
    r"(?!(?:dozens?|of|or|and|to|by|in|is|more|less|than|point|over|minus|plus|times|out|per|percent|pairs?|each|squared"
    r"|way|such|possible|can|may|must)\b)[a-z]{3,20}(?: [a-z]{3,20})?)",
    re.IGNORECASE,
)
_ARC = re.compile(
    r"([-+]?)(\d{1,4})\s*\^\s*\\circ\s*(\d{1,2}(?:\.\d+)?)\s*(?:'(?!')|\^\s*\{?\s*\\prime\s*\}?|′)"
    r"(?:\s*(\d{1,2}(?:\.\d+)?)\s*(?:''|\"|\^\s*\{?\s*\\prime\s*\\prime\s*\}?|″))?"
)
_TIME = re.compile(
    r"(\d{1,2})(?::(\d{2}))?(?::(\d{2}))?\s*(?:\\text\s*\{)?\s*(?:([ap])\.?\s?m\b\.?|noon|o'clock)?\s*\}?",
    re.IGNORECASE,
)


def scaled(text: str) -> str:
    r"""`2.5 million` as `2.5 \times 10^{6}`; what follows, such as a currency, stays."""
    return _SCALED.sub(lambda m: rf" \times 10^{{{_SCALES[m[2].casefold()]}}} {m[1] or ''}", text)


def chinese_number(text: str) -> str | None:
    """`十二` as `12`, `三分之二` as `2/3`, `百分之二十` as `20%`; None for every other text."""
    share = _PARTS.fullmatch(text)
    if share is not None:
        below, above = (part if part.isdigit() else _chinese(part) for part in share.groups())
        above = share[2] if above is None and _DECIMAL.fullmatch(share[2]) else above
        if above is None or (below is None and share[1] != "百"):
            return None
        return f"{above}%" if share[1] == "百" else f"{above}/{below}"
    return _chinese(text)


def counted_number(text: str) -> str | None:
    """`三十五个` as `35个`, `共三十五人` as `35人`, `第七` and `第七个` as `7`; None for every other text."""
    counted = _COUNTED.fullmatch(text)
    if counted is None:
        return None
    number = counted[1] if counted[1].isdigit() else _chinese(counted[1])
    return None if number is None else number if text.startswith("第") else number + (counted[2] or "")


def ordinal(text: str) -> str | None:
    r"""`7th`, `the 7th` and `7^{\text{th}}` as `7`; None for every other text."""
    match = _ORDINAL.fullmatch(text.strip())
    return match[1] if match is not None else None


def _chinese(text: str) -> str | None:
    match = _CHINESE.fullmatch(text)
    if match is None:
        return None
    total, digit, places = 0, None, False
    for char in match[2]:
        if char in _PLACES:
            total += (1 if digit is None else digit) * _PLACES[char]
            digit, places = None, True
        elif digit in (None, 0):
            digit = _DIGITS[char]
        elif places:
            return None
        else:
            digit = digit * 10 + _DIGITS[char]
    decimals = "".join(str(_DIGITS[char]) for char in match[3] or "")
    return f"{'-' if match[1] else ''}{total + (digit or 0)}{'.' + decimals if decimals else ''}"


def english_number(text: str) -> str | None:
    """`forty-two` as `42`, `one half` as `1/2`, `three hundred and five` as `305`; None for every other text."""
    mixed = _AND_PART.fullmatch(text.strip()) if " and " in text else None
    if mixed is not None:
        whole, below = english_number(mixed[1]), _FRACTIONS[mixed[2].casefold()]
        return f"{int(whole) * below + 1}/{below}" if whole is not None and whole.isdigit() else None
    words = [word for word in re.split(r"[-\s]+", text.strip(" .").casefold()) if word != "and"]
    if not 0 < len(words) <= 8:
        return None
    if len(words) == 2 and words[1].rstrip("s") in _FRACTIONS and words[0] in (*_ENGLISH, "a"):
        return f"{_ENGLISH.get(words[0], 1)}/{_FRACTIONS[words[1].rstrip('s')]}"
    total = part = 0
    for word in words:
        if word in _ENGLISH:
            part += _ENGLISH[word]
        elif word == "hundred":
            part = (part or 1) * 100
        elif word == "thousand":
            total, part = total + (part or 1) * 1000, 0
        else:
            return None
    return str(total + part)


def counted_words(text: str) -> str | None:
    """`six apples` as `6 apples`, `two hours` as `2 hours`; None for every other text, such as `one of them`."""
    match = _NOUN.fullmatch(text.strip(" ."))
    number = english_number(match[1]) if match is not None else None
    return f"{number} {match[2]}" if match is not None and number is not None and number.isdigit() else None


def arc_degrees(text: str) -> str | None:
    r"""`30^\circ 15'` as a fraction of degrees, None for every other text."""
    match = _ARC.fullmatch(text.strip())
    if match is None:
        return None
    value = Fraction(match[2]) + Fraction(match[3]) / 60 + Fraction(match[4] or 0) / 3600
    return f"{match[1]}{value.numerator}/{value.denominator}"


@lru_cache(maxsize=2048)
def clock_time(text: str) -> tuple[int, str] | None:
    """Seconds after midnight (or noon) as written, and "a", "p" or "" where no half of the day is; None for no time."""
    match = _TIME.fullmatch(text.strip())
    if match is None or (match[2] is None and match[4] is None):
        return None
    hours, minutes, seconds = (int(part or 0) for part in match.group(1, 2, 3))
    if hours > 24 or minutes > 59 or seconds > 59 or (match[4] and hours > 12):
        return None
    return hours * 3600 + minutes * 60 + seconds, (match[4] or "").lower()


def times_equal(gold: str, answer: str) -> bool | None:
    """Equality of two clock times; None where one is no time, or both may be ratios: no a.m., p.m. or `:05`."""
    left, right = clock_time(gold), clock_time(answer)
    if left is None or right is None:
        return None
    if not (left[1] or right[1]) and not (_PADDED.search(gold) or _PADDED.search(answer)):
        return None
    if bool(left[1]) == bool(right[1]):
        return left == right
    (marked, half), (bare, _) = (left, right) if left[1] else (right, left)
    hour = marked % (12 * 3600)
    return bare in (marked, hour + 12 * 3600 if half == "p" else hour)
