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
_TENTHS = re.compile(r"([1-9一二两三四五六七八九])成([1-9一二三四五六七八九])?")
_AND_A_HALF = re.compile(
    r"([零〇一二两三四五六七八九十百千]{1,12}|\d{1,9})(个|米|厘米|公里|千克|公斤|斤|升|小时|年|天)半(\D{0,4})"
)
_CHINESE = re.compile(r"(负)?([零〇一壹二两兩三四五六七八九十百千万亿]{1,16})(?:点([零〇一二三四五六七八九]{1,12}))?")
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
_AND_PART = re.compile(
    r"(\d{1,9}|[a-z]\S{0,20}(?: \S{1,20}){0,4}) and (?:a|one) (half|third|quarter)(?: (thousand|million|billion))?"
)
_LARGE = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
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
    """`十二` as `12`, `三分之二` as `2/3`, `三比四` as `3:4`, `五成` as `50%`; None for every other text."""
    tenths = _TENTHS.fullmatch(text)
    if tenths is not None:
        return f"{10 * int(_digits(tenths[1])) + int(_digits(tenths[2] or '零'))}%"
    ratio = [_chinese(side) for side in text.split("比")]
    if len(ratio) == 2:
        return f"{ratio[0]}:{ratio[1]}" if None not in ratio else None
    share = _PARTS.fullmatch(text)
    if share is not None:
        below, above = (part if part.isdigit() else _chinese(part) for part in share.groups())
        above = share[2] if above is None and _DECIMAL.fullmatch(share[2]) else above
        if above is None or (below is None and share[1] != "百"):
            return None
        return f"{above}%" if share[1] == "百" else f"{above}/{below}"
    return _chinese(text)


def counted_number(text: str) -> str | None:
    """`三十五个` as `35个`, `共三十五人` as `35人`, `第七` as `7`, `两个半小时` as `2.5小时`; else None."""
    half = _AND_A_HALF.fullmatch(text)
    if half is not None:
        whole = half[1] if half[1].isdigit() else _chinese(half[1])
        return f"{whole}.5{half[3] if half[2] == '个' else half[2]}" if whole is not None else None
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
    total, rest = 0, match[2]
    for mark, size in (("亿", 10**8), ("万", 10**4)):
        head, found, tail = rest.rpartition(mark)
        if found:
            part = _below_ten_thousand(head)
            if part is None:
                return None
            total, rest = total + part * size, tail
    part = _below_ten_thousand(rest) if rest else 0
    decimals = _digits(match[3] or "")
    return f"{'-' if match[1] else ''}{total + part}{'.' + decimals if decimals else ''}" if part is not None else None


def _below_ten_thousand(text: str) -> int | None:
    """The number of `五千二百零六`; `一百二` is 120."""
    total, digit, place = 0, None, 1
    for char in text:
        if char in _PLACES:
            place = _PLACES[char]
            total += (1 if digit is None else digit) * place
            digit = None
        elif digit in (None, 0):
            digit = _DIGITS[char]
        elif place > 1:
            return None
        else:
            digit = digit * 10 + _DIGITS[char]
    short = place >= 100 and text[-2:-1] in _PLACES
    return total + (digit or 0) * (place // 10 if short else 1) if text else None


def _digits(text: str) -> str:
    return "".join(char if char.isdigit() else str(_DIGITS[char]) for char in text)


def english_number(text: str) -> str | None:
    """`forty-two` as `42`, `one half` as `1/2`, `two and a half million` as `2500000`; None for every other text."""
    words = [word for word in re.split(r"[-\s]+", text.strip(" .").casefold()) if word]
    if not 0 < len(words) <= 10:
        return None
    mixed = _AND_PART.fullmatch(" ".join(words))
    if mixed is not None:
        whole, below = mixed[1] if mixed[1].isdigit() else english_number(mixed[1]), _FRACTIONS[mixed[2]]
        if whole is None or not whole.isdigit():
            return None
        return str(Fraction(int(whole) * below + 1, below) * _LARGE.get(mixed[3] or "", 1))
    if "point" in words:
        at = words.index("point")
        whole, decimals = english_number(" ".join(words[:at])), [_ENGLISH.get(word, 10) for word in words[at + 1 :]]
        return f"{whole}.{''.join(map(str, decimals))}" if whole and decimals and max(decimals) < 10 else None
    if words == ["half"] or (len(words) == 2 and words[1].rstrip("s") in _FRACTIONS and words[0] in (*_ENGLISH, "a")):
        return f"{_ENGLISH.get(words[0], 1)}/{_FRACTIONS[words[-1].rstrip('s')]}"
    return _english_whole([word for word in words if word != "and"])


def _english_whole(words: list[str]) -> str | None:
    total = part = 0
    if words[:1] == ["a"] and len(words) > 1 and words[1] in (*_LARGE, "hundred", "dozen"):
        words = words[1:]
    for word in words:
        if word in _ENGLISH:
            value = _ENGLISH[word]
            if part % 10 or (part % 100 and not (value < 10 and part % 100 >= 20)):
                return None  # "three five"
            part += value
        elif word in ("hundred", "dozen"):
            part = (part or 1) * (100 if word == "hundred" else 12)
        elif word in _LARGE:
            total, part = total + (part or 1) * _LARGE[word], 0
        else:
            return None
    return str(total + part) if words else None


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
