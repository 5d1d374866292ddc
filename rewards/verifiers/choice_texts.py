"""Which option a text names by its words: the whole text, a name with a letter, or words in a sentence."""

from __future__ import annotations

import re

from rewards.math.normalize import plain

_CJK = re.compile(r"[\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7af]")


_MARKS = re.compile(r"(?<!\d)[.,]|[.,](?!\d)|[;:!?()\[\]，。；：！？]")  # a point inside a number is none


_ENDING = re.compile(r"(?<=[a-z]{4})(?:es|ed|ing|s|d|e)(?![a-z])")


_NAME = re.compile(r"(.{0,30}[^A-Z]|)([A-Z]{1,4})")


_DENIAL = (
    r"(?: (?:not|\w{2,6}n't|cannot|never|neither|nor|than|rather than|instead of) (?:an? |the )?|(?:不是|并非|而非) ?)"
)


_SPELLINGS = (
    (re.compile(r"\\angle(?![a-z])|\bangle\b", re.IGNORECASE), "∠"),
    (re.compile(r"\\triangle(?![a-z])|\btriangle\b", re.IGNORECASE), "△"),
    (re.compile(r"\^?\s?\{?\\circ\}?"), "°"),
    (re.compile(r"\\(?:text|math)(?:rm|bf)?\s?\{\s?~?|\\[ ,;:]|~"), " "),
)


def by_text(span: str, choices: tuple[str, ...]) -> int | None:
    wanted = _words(span).replace(" ", "")
    hits = [index for index, choice in enumerate(choices) if wanted and _words(choice).replace(" ", "") == wanted]
    return hits[0] if hits and len({choices[i] for i in hits}) == 1 else None


def by_name(span: str, choices: tuple[str, ...]) -> int | None:
    """The option that is a name with a letter (`Company C`, `∠A`, `7 A`), where `span` says one.

    -1 where it says such a name that is no option, or several; None where options are no such names or it says none.
    """
    names = [_NAME.fullmatch(_symbols(choice)) for choice in choices]
    if len(choices) < 2 or any(name is None for name in names):
        return None
    before = {re.sub(r"[\d.]+", "#", name[1].strip().casefold()) for name in names if name is not None}
    if len(before) != 1 or not (kind := before.pop()):
        return None
    pattern = re.escape(kind).replace("\\#", r"[\d.]+")
    said = re.findall(rf"(?<![A-Za-z\d.])({pattern}\s*[A-Z]{{1,4}})(?![A-Za-z])", _symbols(span), re.IGNORECASE)
    wanted = {re.sub(r"\s", "", _symbols(choice)).casefold(): index for index, choice in enumerate(choices)}
    found = {wanted.get(re.sub(r"\s", "", name).casefold(), -1) for name in said if name[-1].isupper()}
    if not found:
        return None
    return found.pop() if len(found) == 1 else -1


def _symbols(text: str) -> str:
    """`text` with one spelling for angles, triangles and degrees, and without text commands."""
    for pattern, symbol in _SPELLINGS:
        text = pattern.sub(symbol, text)
    return " ".join(text.replace("}", "").replace("$", "").split())


def by_inclusion(text: str, choices: tuple[str, ...]) -> int | None:
    """The one option whose words stand in `text`; an option inside a longer one that also stands there is left out."""
    haystack = _without_denials(f" {_words(text)} ", [_words(choice) for choice in choices])
    present = [(index, _words(choice)) for index, choice in enumerate(choices)]
    present = [(i, words) for i, words in present if _stands_in(words, haystack)]
    present = [(i, w) for i, w in present if not any(w != other and w in other for _, other in present)]
    if not present:  # "increases" for the option "increase"
        haystack = f" {_stems(haystack)} "
        present = [(i, _words(c)) for i, c in enumerate(choices) if _stands_in(_stems(_words(c)), haystack)]
    return present[0][0] if len(present) == 1 else None


def _stems(words: str) -> str:
    """`words` without the endings of verbs."""
    return " ".join(_ENDING.sub("", words).split())


def _without_denials(haystack: str, options: list[str]) -> str:
    """`haystack` without options that are only denied: "not a dog", "不是红色", "neither A nor B"."""
    for words in sorted(set(options), key=len, reverse=True):
        if not words:
            continue
        if _CJK.search(words):
            haystack = re.sub(rf"(?:不是|并非|而非|不|\bnot )\s?{re.escape(words)}", " ", haystack)
        else:
            haystack = re.sub(rf"{_DENIAL}{re.escape(words)} ", "  ", haystack)
    return haystack


def _stands_in(words: str, haystack: str) -> bool:
    """True where the words of an option are said in `haystack`."""
    if _CJK.search(words):
        return len(words) > 1 and words in haystack
    return len(words) > 1 and re.search(r"[^\W\d]", words) is not None and f" {words} " in haystack


def _words(text: str) -> str:
    return re.sub(r"^(?:a|an|the)\s+", "", " ".join(_MARKS.sub(" ", _plain(text)).split()))


def _plain(text: str) -> str:
    return re.sub(r"(?<=\w)\s?_\s?(?=\w)", "", plain(text))


def same_option(left: int, right: int, choices: tuple[str, ...]) -> bool:
    return max(left, right) < len(choices) and choices[left].strip() == choices[right].strip()
