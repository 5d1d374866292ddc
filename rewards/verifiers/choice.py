"""Which option of a multiple-choice question a response commits to: by letter, number, or the option's text or value.

The last committed answer counts. Letters that are ruled out ("not A") do not count, and a response that names several
options without settling on one is no answer.
"""

from __future__ import annotations

import re
import time
import unicodedata
from dataclasses import dataclass

from rewards.extraction import Extraction, extract_answer, split_thinking
from rewards.math.literal import literals_equal, parse_literal
from rewards.math.normalize import plain, to_latex
from rewards.math.prose import from_prose
from rewards.math.units import conversion, split_unit, units_agree
from rewards.sandbox.pool import Worker
from rewards.types import Task, Verdict, VerdictKind
from rewards.verifiers.math import MathVerifier

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_STYLE = re.compile(
    r"\\(?:text|math)(?:bf|rm|it|sf)?\s{0,4}\{|\\boxed\s{0,4}\{|[${}*`\"“”「」【】]|(?<![A-Za-z])'|'(?![A-Za-z])|\\[()\[\],;!\s]"
)
_LEADING = re.compile(
    r"^\W*(?:(?:option|choice|answer|letter)\s*:?\s*)?[(\[]?([A-Za-z])[)\]]?(?=$|[\s.,:;)\]。，、…/&|])", re.I
)
_MARKED = re.compile(
    r"[(\[（]([A-Z])[)\]）]|\b(?:option|choice|answer|letter)\s*(?:is\s*)?:?\s*([A-Z])\b(?![a-z'])"
    r"|(?<![A-Za-z'\\])([B-HJ-Z])(?![A-Za-z'])|(?<![A-Za-z'\\])([AI])(?=$|[.,:;)!?。，/&或和与、+]|-[A-Z]\b|\s+(?:or|and|is|nor)\b)"
)
_NEGATION = re.compile(
    r"\b(?:not|isn't|can't be|cannot be|rather than|instead of|neither|nor|exclude[sd]?|eliminate[sd]?|rule[sd]? out"
    r"|than)\s+(?:be\s+)?(?:option\s+)?[(\[]?[A-Z][)\]]?(?:\s*(?:,|or|nor|and|/)\s*[(\[]?[A-Z][)\]]?(?![A-Za-z]))*(?![A-Za-z])"
    r"|[(\[]?\b[A-Z]\b[)\]]?\s+(?:is|are|was)\s+(?:\w+\s+)?(?:not|wrong|incorrect|false|out|ruled out|impossible)\b"
    r"|不是\s*[A-Z]|(?<![A-Za-z])[A-Z]\?\s*(?=[Nn]o\b|[Nn]ot\b|[Ww]rong)"
)
_JOINED = re.compile(
    r"^\s*\(?(?:,|/|&|\||;|\+|、|or\b|and\b|或|和|与|及|-(?=[A-Z]))\s*(?:option\s+)?[(\[]?"
    r"(?:[B-HJ-Z]|[AI](?!\s+[a-z]))[)\]]?(?![A-Za-z'])"
)
_BECAUSE = re.compile(r"\b(?:because|since|as)\b|因为", re.IGNORECASE)
_ORDINAL = re.compile(r"\b(?:option|choice|number)\s*(?:number\s*)?#?\s*(\d{1,2})\b", re.IGNORECASE)
_UNSURE = re.compile(
    r"\b(?:none of|no option|unsure|not sure|cannot|can't|unable|sorry|impossible to|don't know|no idea|no sé"
    r"|ne sais pas|weiß nicht|não sei|non so|не знаю)\b"
    r"|不知道|无法|不确定|わかりません|分かりません|모르",
    re.I,
)
_JSON = re.compile(
    r"[\"']\s*(?:answer|choice|final_answer|option)\s*[\"']\s*:\s*[\"']([^\"']{1,200})[\"']", re.IGNORECASE
)
_COMMITTED = re.compile(
    r"\b(?:should be|must be|has to be|it's|it is|I (?:choose|pick|select)|I'(?:d|ll) (?:go with|choose|pick|say)|so"
    r"|thus|hence|therefore|answer is)[,:]?\s+(?:that\s+)?(?:the\s+)?(?:answer\s+)?(?:is\s+)?(?:it'?s\s+)?"
    r"(?:option\s+)?[(\[]?([A-Z])[)\]]?"
    r"(?![A-Za-z'])(?!\s*(?:,|/|or\b|and\b)\s*[(\[]?[A-Z]\b)|(?<![A-Za-z])[(\[]?([A-Z])[)\]]?\s+it\s+is\b"
)
_CHANGED = re.compile(
    r"\b(?:actually|on reflection|on second thought|wait|instead|correction|reconsider\w*|no,)", re.IGNORECASE
)
_BARE_LIST = re.compile(r"(?:\s[(\[]?[A-Z][)\]]?){1,26}")
_OPTION_LINE = re.compile(r"^\W{0,4}([A-Z])\W{0,2}[.):：]")
_FORMULA = re.compile(r"[\d·×²³\\+*/^=<>]|(?<=\w)\s*-\s*(?=\w)")
_CJK = re.compile(r"[\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7af]")
_MARKS = re.compile(r"(?<!\d)[.,]|[.,](?!\d)|[;:!?()\[\]，。；：！？]")  # a point inside a number is none
_MAX_SPAN = 2_000  # characters


@dataclass(frozen=True, slots=True, kw_only=True)
class Commitment:
    """The option that was chosen (0 is A), or None, and the rule that read it."""

    index: int | None
    rule: str


class ChoiceVerifier:
    """Multiple choice over `Task.choices`; the reference is a letter or the text of an option."""

    def __init__(self, worker: Worker) -> None:
        self._math = MathVerifier(worker)

    def __call__(self, response: str, reference: str, *, task: Task) -> Verdict:
        """Judge `response`. Without options, letters alone are compared. Never raises."""
        start = time.perf_counter()
        response = response if isinstance(response, str) else ""
        gold = reference_index(reference, task.choices)
        found = Commitment(index=None, rule="reference")
        kind = VerdictKind.BAD_REFERENCE
        if gold is not None:
            found = self.commitment(response, task.choices)
            kind = VerdictKind.NO_ANSWER if found.index is None else VerdictKind.WRONG
            if found.index is not None and (found.index == gold or _same_option(found.index, gold, task.choices)):
                kind = VerdictKind.CORRECT
        return Verdict(
            kind=kind,
            score=float(kind is VerdictKind.CORRECT),
            extracted=_LETTERS[found.index] if found.index is not None else None,
            rule=found.rule,
            seconds=time.perf_counter() - start,
            detail="" if gold is not None else f"{reference[:80]!r} is neither a letter nor one of the options",
        )

    def commitment(self, response: str, choices: tuple[str, ...]) -> Commitment:
        """The option that `response` commits to."""
        response = unicodedata.normalize("NFKC", response[-100_000:])
        extraction = extract_answer(response)
        if extraction.answer is None:
            return Commitment(index=None, rule=extraction.rule)
        body = split_thinking(response).answer_text
        if extraction.rule == "line" and _copied(body):
            return Commitment(index=None, rule="line/options-copied")
        if "<choices>" in body.casefold() and body.casefold().count("<choice>") > 1:
            return Commitment(index=None, rule="tag/hedge")
        for rule, span in _spans(extraction, body):
            found = self._read(span, choices, rule)
            if found is not None:
                return found
            if rule in ("box", "tag", "json"):
                break
        return Commitment(index=None, rule=f"{extraction.rule}/no-option")

    def _read(self, span: str, choices: tuple[str, ...], rule: str) -> Commitment | None:
        """What `span` commits to; a Commitment to None where it hedges; None where it names no option at all."""
        span = span[-_MAX_SPAN:]
        exact = _by_text(span, choices)
        if exact is not None:
            return Commitment(index=exact, rule=f"{rule}/text")
        count = len(choices) or len(_LETTERS)
        text = " ".join(_NEGATION.sub(" ", _STYLE.sub(" ", span)).split())
        letters = _letters(text, count, whole=rule == "text")
        if letters is not None:
            return Commitment(
                index=letters if letters >= 0 else None, rule=f"{rule}/{'letter' if letters >= 0 else 'hedge'}"
            )
        ordinal = _ORDINAL.search(text)
        if ordinal is not None and 1 <= int(ordinal[1]) <= count:
            return Commitment(index=int(ordinal[1]) - 1, rule=f"{rule}/number")
        if rule == "text" or _UNSURE.search(text):
            return None
        value = self._by_value(span, choices)
        if value is not None:
            return Commitment(index=value, rule=f"{rule}/value")
        inside = _by_inclusion(text, choices)
        return Commitment(index=inside, rule=f"{rule}/option-text") if inside is not None else None

    def _by_value(self, span: str, choices: tuple[str, ...]) -> int | None:
        """The one option whose value is equal to `span`'s, exactly or by algebra."""
        for candidate in dict.fromkeys((span, from_prose(span))):
            given = split_unit(to_latex(candidate))
            literal = parse_literal(given.text)
            hits = []
            for index, choice in enumerate(choices):
                option = split_unit(to_latex(choice))
                value = parse_literal(option.text)
                if literal is not None and value is not None:
                    same = units_agree(option.unit, given.unit) and literals_equal(
                        value, literal, conversion(option.unit, given.unit)
                    )
                else:
                    same = option.text.replace(" ", "") == given.text.replace(" ", "") != ""
                if same:
                    hits.append(index)
            if len(hits) == 1:
                return hits[0]
        if len(span) > 200 or not _FORMULA.search(span):
            return None
        candidate = from_prose(span)
        equal = [
            index
            for index, choice in enumerate(choices)
            if _FORMULA.search(choice) and self._math.compare(candidate, choice).kind is VerdictKind.CORRECT
        ]
        return equal[0] if len(equal) == 1 else None


def reference_index(reference: str, choices: tuple[str, ...]) -> int | None:
    """Index of the right option: `reference` is a letter ("B", "(b)") or the text of an option; None if neither."""
    letter = re.fullmatch(r"\s*[(\[]?([A-Za-z])[)\].]?\s*", reference)
    if letter is not None:
        index = _LETTERS.index(letter[1].upper())
        if index < (len(choices) or len(_LETTERS)):
            return index
    return _by_text(reference, choices)


def _spans(extraction: Extraction, body: str) -> list[tuple[str, str]]:
    assert extraction.answer is not None
    rule, answer = extraction.rule, extraction.answer
    spans: list[tuple[str, str]] = []
    as_json = _JSON.findall(body)
    if as_json and rule == "line":
        spans.append(("json", as_json[-1]))
    spans.append((rule, answer))
    if rule == "line":
        first = next((line for line in body.splitlines() if line.strip()), "")
        if first.strip() != answer:
            spans.append(("first-line", first))
        spans.append(("text", body))
    return spans


def _letters(text: str, count: int, *, whole: bool) -> int | None:
    """Index of the letter that `text` names, -1 where it hedges between several, None where it names none."""
    leading = None if whole else _LEADING.match(text)
    if leading is not None and _counts(leading[1], leading.group(), text, count):
        rest = text[leading.end() :].lstrip(" .)")
        joined = _JOINED.match(text[leading.end() :]) or _JOINED.match(rest)
        if _BARE_LIST.fullmatch(text[leading.end() :].rstrip(" .")):
            return -1
        changed = _CHANGED.search(rest)
        later = _committed(rest[changed.end() :], count) if changed is not None else None
        if later is not None:
            return later
        others = {_LETTERS.index(x) for x in _marked(rest) if x in _LETTERS[:count]}
        index = _LETTERS.index(leading[1].upper())
        several = joined is not None or (len(re.findall(r"[(\[][A-Z][)\]]", rest)) > 0 and len(others - {index}) > 1)
        return -1 if (several and others - {index}) or joined is not None else index
    named = [_LETTERS.index(x) for x in _marked(text) if x in _LETTERS[:count]]
    if not named:
        return None
    if len(set(named)) == 1:
        return named[0]
    before = {_LETTERS.index(x) for x in _marked(_BECAUSE.split(text)[0]) if x in _LETTERS[:count]}
    if len(before) == 1 and not whole:
        return before.pop()
    committed = _committed(text, count) if not whole else None
    if committed is not None:
        return committed
    return None if whole else -1


def _committed(text: str, count: int) -> int | None:
    """Index of the letter of the last phrase that settles on one ("so B", "I choose C"), None without one."""
    found = [_LETTERS.index(a or b) for a, b in _COMMITTED.findall(text) if (a or b) in _LETTERS[:count]]
    return found[-1] if found else None


def _copied(body: str) -> bool:
    """True where the last lines repeat the options, `A. ...` and `B. ...` below each other."""
    lines = [line for line in body.splitlines() if line.strip()][-2:]
    marks = [_OPTION_LINE.match(line) for line in lines]
    letters = [mark[1] for mark in marks if mark is not None]
    return len(letters) == 2 and ord(letters[1]) - ord(letters[0]) == 1


def _counts(letter: str, matched: str, text: str, count: int) -> bool:
    """False for the article "a", the pronoun "I" and other words that only look like a letter at the start."""
    if letter.upper() not in _LETTERS[:count]:
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


def _by_text(span: str, choices: tuple[str, ...]) -> int | None:
    wanted = _words(span).replace(" ", "")
    hits = [index for index, choice in enumerate(choices) if wanted and _words(choice).replace(" ", "") == wanted]
    return hits[0] if hits and len({choices[i] for i in hits}) == 1 else None


def _by_inclusion(text: str, choices: tuple[str, ...]) -> int | None:
    """The one option whose words stand in `text`; an option inside a longer one that also stands there is left out."""
    haystack = f" {_words(text)} "
    present = [(index, _words(choice)) for index, choice in enumerate(choices)]
    present = [(i, words) for i, words in present if _stands_in(words, haystack)]
    present = [(i, w) for i, w in present if not any(w != other and w in other for _, other in present)]
    return present[0][0] if len(present) == 1 else None


def _stands_in(words: str, haystack: str) -> bool:
    """True where the words are said and not only denied ("not a dog", "不是红色")."""
    if _CJK.search(words):
        return len(words) > 1 and words in re.sub(rf"(?:不是|并非|而非|不)\s?{re.escape(words)}", " ", haystack)
    denied = rf" (?:not|isn't|never|neither|nor|than|rather than|instead of) (?:an? |the )?{re.escape(words)} "
    return (
        len(words) > 1 and re.search(r"[^\W\d]", words) is not None and f" {words} " in re.sub(denied, "  ", haystack)
    )


def _words(text: str) -> str:
    return re.sub(r"^(?:a|an|the)\s+", "", " ".join(_MARKS.sub(" ", _plain(text)).split()))


def _plain(text: str) -> str:
    return re.sub(r"(?<=\w)\s?_\s?(?=\w)", "", plain(text))


def _same_option(left: int, right: int, choices: tuple[str, ...]) -> bool:
    return max(left, right) < len(choices) and choices[left].strip() == choices[right].strip()
