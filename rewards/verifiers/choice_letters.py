"""Which letter a text settles on: labels, letters that are ruled out, phrases that commit to one."""

from __future__ import annotations

import re

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


_LEADING = re.compile(
    r"^\W*(?:(?:option|choice|answer|letter)\s*:?\s*)?[(\[]?([A-Za-z])[)\]]?(?=$|[\s.,:;()\]。，、…/&|（项]|选项)", re.I
)


_MARKED = re.compile(
    r"[(\[（]([A-Z])[)\]）]|\b(?:option|choice|answer|letter)\s*(?:is\s*)?:?\s*([A-Z])\b(?![a-z'])"
    r"|(?<![A-Za-z'\\])([B-HJ-Z])(?![A-Za-z'])|(?<![A-Za-z'\\])([AI])(?=$|[.,:;()!?。，/&或和与、+项]|-[A-Z]\b|\s+(?:or|and|is|nor)\b)"
)


_JOINED = re.compile(
    r"^\s*\(?(?:,|/|&|\||;|\+|、|or\b|and\b|或|和|与|及|-(?=[A-Z]))\s*(?:option\s+)?[(\[]?"
    r"(?:[B-HJ-Z]|[AI](?!\s+(?!because|since|as)[a-z]))[)\]]?(?![A-Za-z'])|^\s?[/&|]\s?[AI](?![A-Za-z'])"
)


_ALTERNATIVE = re.compile(
    r"(?:\bor\s|或|还是)\s?(?:option\s+|选项?\s?)?[(\[]?([A-Z])[)\]]?(?![A-Za-z'])"
)  # "A. a cat or B"


_BECAUSE = re.compile(r"\b(?:because|since|as)\b|因为", re.IGNORECASE)


COMMITTED = re.compile(
    r"\b(?:should be|must be|has to be|it's|it is|I (?:choose|pick|select)|I'(?:d|ll) (?:go with|choose|pick|say)|so"
    r"|thus|hence|therefore|answer is)[,:]?\s+(?:that\s+)?(?:the\s+)?(?:answer\s+)?(?:is\s+)?(?:it'?s\s+)?"
    r"(?:option\s+)?[(\[]?([A-Z])[)\]]?"
    r"(?![A-Za-z'])(?!\s*(?:[,/或和与、]|or\b|and\b)\s*[(\[]?[A-Z]\b)|(?<![A-Za-z])[(\[]?([A-Z])[)\]]?\s+it\s+is\b"
    r"|(?:leav(?:es|ing)|says|故选|应选|因此选|所以选|则选|，选|,选|^选)\s*(?:only\s+)?(?:option\s+)?[(\[]?([A-Z])(?![A-Za-z])"
    r"(?!\s*(?:[、,/或和与及]|or\b|and\b)\s*[A-Z])"
    r"|(?<![A-Za-z])[(\[]?([A-Z])[)\]]?\s*(?:\(correct\)|正确|是对的|fits\b|is (?:right|correct)\b)"
)


CHANGED = re.compile(
    r"\b(?:actually|on reflection|on second thought|wait|instead|correction|reconsider\w*|no,)", re.IGNORECASE
)


_BARE_LIST = re.compile(r"(?:\s[(\[]?[A-Z][)\]]?){1,26}")


_OPTION_LINE = re.compile(r"^\W{0,4}([A-Z])\W{0,2}[.):：]")


SETTLED = re.compile(
    r"^\W{0,6}(?:(?:so|thus|therefore)[, ]+)?"
    r"(?:(?:I (?:pick|choose|select)|the answer is|answer:|option|正确选项是|答案是|选)\s*:?)?"
    r"\W{0,4}([A-Z])(?:\W{0,6}$|[.):：]\s|\s+is (?:right|correct))",
    re.IGNORECASE,
)


def letter_index(text: str, count: int, *, whole: bool) -> int | None:
    """Index of the letter that `text` names, -1 where it hedges between several, None where it names none."""
    leading = None if whole else _LEADING.match(text)
    if leading is not None and _counts(leading[1], leading.group(), text, count):
        rest = text[leading.end() :].lstrip(" .)")
        joined = _JOINED.match(text[leading.end() :]) or _JOINED.match(rest)
        if _BARE_LIST.fullmatch(text[leading.end() :].rstrip(" .")):
            return -1
        changed = CHANGED.search(rest)
        later = committed_index(rest[changed.end() :], count) if changed is not None else None
        if later is not None:
            return later
        others = {LETTERS.index(x) for x in _marked(rest) if x in LETTERS[:count]}
        index = LETTERS.index(leading[1].upper())
        alternative = _ALTERNATIVE.search(_BECAUSE.split(rest)[0])
        if alternative is not None and alternative[1] in LETTERS[:count] and alternative[1] != LETTERS[index]:
            return -1
        several = joined is not None or (len(re.findall(r"[(\[][A-Z][)\]]", rest)) > 0 and len(others - {index}) > 1)
        return -1 if (several and others - {index}) or joined is not None else index
    named = [LETTERS.index(x) for x in _marked(text) if x in LETTERS[:count]]
    if not named:
        return None
    if len(set(named)) == 1:
        return named[0]
    before = {LETTERS.index(x) for x in _marked(_BECAUSE.split(text)[0]) if x in LETTERS[:count]}
    if len(before) == 1 and not whole:
        return before.pop()
    committed = committed_index(text, count) if not whole else None
    if committed is not None:
        return committed
    return None if whole else -1


def committed_index(text: str, count: int) -> int | None:
    """Index of the letter of the last phrase that settles on one ("so B", "I choose C"), None without one."""
    named = ["".join(groups) for groups in COMMITTED.findall(text)]
    found = [LETTERS.index(letter) for letter in named if letter in LETTERS[:count]]
    return found[-1] if found else None


def options_copied(body: str) -> bool:
    """True where the last lines repeat the options, `A. ...` and `B. ...` below each other."""
    lines = [line for line in body.splitlines() if line.strip()][-2:]
    marks = [_OPTION_LINE.match(line) for line in lines]
    letters = [mark[1] for mark in marks if mark is not None]
    return len(letters) == 2 and ord(letters[1]) - ord(letters[0]) == 1


def _counts(letter: str, matched: str, text: str, count: int) -> bool:
    """False for the article "a", the pronoun "I" and other words that only look like a letter at the start."""
    if letter.upper() not in LETTERS[:count]:
        return False
    alone = len(text.strip(" .)(")) <= 1
    marked = bool(re.search(r"[(\[)\]]|option|choice|letter", matched, re.IGNORECASE))
    if letter.islower():
        return alone or marked or text[len(matched) : len(matched) + 1] in ("", ")", ".", ":")
    following = text[len(matched) :]
    return (
        letter not in "AI"
        or marked
        or not re.match(r"\s+[a-z]", following)
        or bool(re.match(r"\s+(?:because|since|is|as|or|and)\b", following))
    )


def _marked(text: str) -> list[str]:
    return [next(g for g in match.groups() if g) for match in _MARKED.finditer(text)]
