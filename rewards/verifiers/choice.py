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
    r"|(?:[Ff]rom|[Oo]f|[Aa]mong|[Ee]liminating|[Rr]uling out|[Rr]ejecting)\s+(?:the\s+)?(?:options?\s+|choices?\s+)?"
    r"[A-Z](?:(?:\s*,\s*(?:and\s+)?|\s+and\s+|\s*-\s*)[A-Z](?![A-Za-z]|\s+(?:fits|is|says)\b))+"
    r"|[A-Z](?:\s*(?:,|and|or|&|、)\s*(?:and\s+)?[A-Z](?![A-Za-z]))*\s+(?:are|were)\s+(?:all\s+)?"
    r"(?:not|wrong|incorrect|false|out)\b"
    r"|[(\[]?\b[A-Z][)\]]?\s*\((?:wrong|incorrect|false|no)\)"
    r"|\b(?:to reject|not correct|wrong)\s+is\s+(?:option\s+)?[(\[]?[A-Z]\b[)\]]?"
    r"|\b[Nn]ot\s+(?:(?:option|choice)\s+)?[(\[]?[A-Z]\b[)\]]?"
    r"|(?:不|不能|不应|不应该|不该|不可|别)选\s*[A-Z]|排除了?\s*[A-Z](?:\s*[、,，和及与]\s*[A-Z])*"
    r"|[A-Z](?:\s*[、,，和及与]\s*[A-Z])*\s*(?:项|选项)?\s*(?:都|均|全)?是?(?:不对|错误|不正确|错的|不符合|不成立|错)"
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
    r"|也可能|不知道|无法|不确定|わかりません|分かりません|모르",
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
    r"|(?:leav(?:es|ing)|says|故选|应选|因此选|所以选|则选|，选|,选|^选)\s*(?:only\s+)?(?:option\s+)?[(\[]?([A-Z])(?![A-Za-z])"
    r"(?!\s*(?:[、,/或和与及]|or\b|and\b)\s*[A-Z])"
    r"|(?<![A-Za-z])[(\[]?([A-Z])[)\]]?\s*(?:\(correct\)|正确|是对的|fits\b|is (?:right|correct)\b)"
)
_CHANGED = re.compile(
    r"\b(?:actually|on reflection|on second thought|wait|instead|correction|reconsider\w*|no,)", re.IGNORECASE
)
_BARE_LIST = re.compile(r"(?:\s[(\[]?[A-Z][)\]]?){1,26}")
_OPTION_LINE = re.compile(r"^\W{0,4}([A-Z])\W{0,2}[.):：]")
_FORMULA = re.compile(r"[\d·×²³\\+*/^=<>]|(?<=\w)\s*-\s*(?=\w)")
_CJK = re.compile(r"[\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7af]")
_MARKS = re.compile(r"(?<!\d)[.,]|[.,](?!\d)|[;:!?()\[\]，。；：！？]")  # a point inside a number is none
_LONE_LABEL = re.compile(r"[\s*_`\"'(\[（【$]{0,6}([A-Z])[)\]）】]?[.。]?[\s*_`\"'$]{0,4}")
_NAME = re.compile(r"(.{0,30}[^A-Z]|)([A-Z]{1,4})")
_SPELLINGS = (
    (re.compile(r"\\angle(?![a-z])|\bangle\b", re.IGNORECASE), "∠"),
    (re.compile(r"\\triangle(?![a-z])|\btriangle\b", re.IGNORECASE), "△"),
    (re.compile(r"\^?\s?\{?\\circ\}?"), "°"),
    (re.compile(r"\\(?:text|math)(?:rm|bf)?\s?\{\s?~?|\\[ ,;:]|~"), " "),
)
_IN_FORMULA = re.compile(r"=|\\(?:angle|triangle|langle|Delta|circ)|\d\s?(?:\\[a-z]+\s?\{~?)?\s?[A-Z]\b(?!\s?[.):])")
_SETTLED = re.compile(
    r"^\W{0,6}(?:(?:so|thus|therefore)[, ]+)?"
    r"(?:(?:I (?:pick|choose|select)|the answer is|answer:|option|正确选项是|答案是|选)\s*:?)?"
    r"\W{0,4}([A-Z])(?:\W{0,6}$|[.):：]\s|\s+is (?:right|correct))",
    re.IGNORECASE,
)
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
        label = _LONE_LABEL.fullmatch(span)
        if label is not None and _LETTERS.index(label[1]) < (len(choices) or len(_LETTERS)):
            return Commitment(index=_LETTERS.index(label[1]), rule=f"{rule}/letter")  # also where options are letters
        exact = _by_text(span, choices)
        if exact is not None:
            return Commitment(index=exact, rule=f"{rule}/text")
        named = _by_name(span, choices)
        if named is not None:
            return Commitment(
                index=named if named >= 0 else None, rule=f"{rule}/{'name' if named >= 0 else 'no-option'}"
            )
        count = len(choices) or len(_LETTERS)
        text = " ".join(_NEGATION.sub(" ", _STYLE.sub(" ", span)).split())
        in_formula = rule == "box" and _IN_FORMULA.search(span)  # a letter of a formula is no label
        letters = None if in_formula else _letters(text, count, whole=rule == "text")
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
    first = next((line for line in body.splitlines() if line.strip()), "")
    explained = rule == "line" and first.strip() != answer and _SETTLED.match(first) is not None
    if explained and not (_SETTLED.match(answer) or _COMMITTED.search(answer) or _CHANGED.search(body)):
        spans.append(("first-line", _SETTLED.match(first)[1]))  # the label first, then why
    spans.append((rule, answer))
    if rule == "line":
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
    named = ["".join(groups) for groups in _COMMITTED.findall(text)]
    found = [_LETTERS.index(letter) for letter in named if letter in _LETTERS[:count]]
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


def _by_name(span: str, choices: tuple[str, ...]) -> int | None:
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
