"""Which option of a multiple-choice question a response commits to: by letter, number, or the option's text or value.

The last committed answer counts. Letters that are ruled out ("not A") do not count, and a response that names several
options without settling on one is no answer.
"""

from __future__ import annotations

import re
import time
import unicodedata
from dataclasses import dataclass

from rewards.extraction import Extraction, extract_answer, split_thinking, visible
from rewards.math.literal import literals_equal, parse_literal
from rewards.math.normalize import to_latex
from rewards.math.prose import from_prose
from rewards.math.units import conversion, split_unit, units_agree
from rewards.sandbox.pool import Worker
from rewards.sentences import stated, without_remarks
from rewards.types import Task, Verdict, VerdictKind
from rewards.verifiers.base import BuiltInVerifier
from rewards.verifiers.choice_letters import CHANGED, COMMITTED, LETTERS, SETTLED, letter_index, options_copied
from rewards.verifiers.choice_texts import by_inclusion, by_name, by_text, same_option
from rewards.verifiers.equivalent_answers import in_box, is_one_line
from rewards.verifiers.math import MathVerifier

_STYLE = re.compile(
    r"\\(?:text|math)(?:bf|rm|it|sf)?\s{0,4}\{|\\boxed\s{0,4}\{|[${}*`\"“”「」【】]|(?<![A-Za-z])'|'(?![A-Za-z])|\\[()\[\],;!\s]"
)
_NEGATION = re.compile(
    r"\b(?:not|isn't|can't be|cannot be|rather than|instead of|neither|nor|exclude[sd]?|eliminate[sd]?|rule[sd]? out"
    r"|than)\s+(?:be\s+)?(?:[Oo]ption\s+)?[(\[]?[A-Z][)\]]?(?:\s*(?:,|or|nor|and|/)\s*[(\[]?[A-Z][)\]]?(?![A-Za-z]))*(?![A-Za-z])"
    r"|[(\[]?\b[A-Z]\b[)\]]?\s+(?:is|are|was)\s+(?:\w+\s+)?(?:not|wrong|incorrect|false|out|ruled out|impossible)\b"
    r"|(?:[Ff]rom|[Oo]f|[Aa]mong|[Ee]liminating|[Rr]uling out|[Rr]ejecting)\s+(?:the\s+)?(?:options?\s+|choices?\s+)?"
    r"[A-Z](?:(?:\s*,\s*(?:and\s+)?|\s+and\s+|\s*-\s*)[A-Z](?![A-Za-z]|\s+(?:fits|is|says)\b))+"
    r"|[A-Z](?:\s*(?:,|and|or|&|、)\s*(?:and\s+)?[A-Z](?![A-Za-z]))*\s+(?:are|were)\s+(?:all\s+)?"
    r"(?:not|wrong|incorrect|false|out)\b"
    r"|[(\[]?\b[A-Z][)\]]?\s*\((?:wrong|incorrect|false|no)\)"
    r"|\b(?:to reject|not correct|wrong)\s+is\s+(?:option\s+)?[(\[]?[A-Z]\b[)\]]?"
    r"|\b[Nn]ot\s+(?:(?:option|choice)\s+)?[(\[]?[A-Z]\b[)\]]?"
    r"|(?:不|不能|不应|不应该|不该|不可|别)选\s*[(（]?[A-Z]|排除了?\s*[A-Z](?:\s*[、,，和及与]\s*[A-Z])*"
    r"|[A-Z](?:\s*[、,，和及与]\s*[A-Z])*\s*(?:项|选项)?\s*(?:都|均|全)?是?(?:不对|错误|不正确|错的|不符合|不成立|错)"
    r"|不是\s*(?:选项?)?[(（\[]?\s*[A-Z](?![A-Za-z])[)）\]]?|(?<![A-Za-z])[A-Z]\?\s*(?=[Nn]o\b|[Nn]ot\b|[Ww]rong)"
)
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
_FORMULA = re.compile(r"[\d·×²³\\+*/^=<>]|(?<=\w)\s*-\s*(?=\w)")
_LONE_LABEL = re.compile(r"[\s*_`\"'(\[（【$]{0,6}([A-Z])[)\]）】]?[.。]?[\s*_`\"'$]{0,4}")
_IN_FORMULA = re.compile(r"=|\\(?:angle|triangle|langle|Delta|circ)|\d\s?(?:\\[a-z]+\s?\{~?)?\s?[A-Z]\b(?!\s?[.):])")
_LABELLED = re.compile(r"[(\[]?([A-Z])[)\].:：、]{1,2} ?(\S.{0,1000})", re.DOTALL)
_POINTED_AT = re.compile(  # the name of a picture is no option: "see figure A", "in panel (B)"
    r"\b(?:see|in|from|of|per)\s+(?:the\s+)?(?:fig(?:ure|\.)?|panel|image|picture|diagram|table|appendix|section)\s+"
    r"[(\[]?[A-Z]\b[)\]]?|[见如]图\s?[A-Z](?![A-Za-z])",
    re.IGNORECASE,
)
_DOWN = re.compile(r"\b(?:decreas|drop|fall|fell|declin|los[est]|reduc|shr[aiu]nk)|下降|减少|降低", re.IGNORECASE)
_BOTH_POSSIBLE = re.compile(  # "it could be A and it could be B" settles on neither
    r"可能(?:是|选|为)?\s?[A-Z](?![A-Za-z]).{0,20}?可能(?:是|选|为)?\s?[A-Z](?![A-Za-z])"
    r"|\b(?:[Cc]ould|[Mm]ay|[Mm]ight)\s(?:also\s)?be\s(?:option\s)?[(\[]?[A-Z]\b.{0,40}?"
    r"\b(?:could|may|might)\s(?:also\s|equally\s)?be\s(?:option\s)?[(\[]?[A-Z]\b"
)
_DENIED = re.compile(r"\W{0,3}(?:\\text\s?\{\s?)?(?:not|isn't|never|neither|不是|并非)(?![A-Za-z])", re.IGNORECASE)
_BEFORE_STOP = re.compile(r"(?<=\S)\s(?=[.。,，;；)]|[或和与])")
_CAPITAL = re.compile(r"(?<![A-Za-z])[A-Z](?![A-Za-z])")
_OR = re.compile(r"(?<![A-Za-z])or(?![A-Za-z])|或|还是")
_MAX_SPAN = 2_000  # characters


@dataclass(frozen=True, slots=True, kw_only=True)
class Commitment:
    """The option that was chosen (0 is A), or None, and the rule that read it."""

    index: int | None
    rule: str


class ChoiceVerifier(BuiltInVerifier):
    """Multiple choice over `Task.choices`; the reference is a letter or the text of an option."""

    needs_worker = True

    def __init__(self, worker: Worker) -> None:
        self._math = MathVerifier(worker)

    @staticmethod
    def rewritings(task: Task) -> dict[str, str]:
        """The letter in several forms, the text of the option, and both."""
        index = reference_index(task.answer, task.choices)
        if index is None:
            return {}
        letter = LETTERS[index]
        cases = {
            "letter": letter,
            "lower case": rf"\boxed{{{letter.lower()}}}",
            "parentheses": f"({letter})",
            "stop": f"{letter}.",
            "letter in a sentence": f"The answer is {letter}.",
        }
        if index < len(task.choices):
            text = task.choices[index]
            cases["letter and text"] = f"{letter}. {text}"
            if task.choices.count(text) == 1 and text.strip().upper() not in LETTERS and is_one_line(text):
                cases["option text"] = in_box(text)
        return cases

    @staticmethod
    def cheats(task: Task) -> dict[str, str]:
        """All letters at once."""
        letters = LETTERS[: len(task.choices) or 4]
        return {
            "all letters": ", ".join(letters),
            "all letters in a box": rf"\boxed{{{', '.join(letters)}}}",
            "letters joined by or": f"The answer is {' or '.join(letters)}.",
        }

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
            if found.index is not None and (found.index == gold or same_option(found.index, gold, task.choices)):
                kind = VerdictKind.CORRECT
        return Verdict(
            kind=kind,
            score=float(kind is VerdictKind.CORRECT),
            extracted=LETTERS[found.index] if found.index is not None else None,
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
        body = visible(split_thinking(response).answer_text)
        if extraction.rule == "line" and options_copied(body):
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
        span = _answered(span[-_MAX_SPAN:]) if rule in ("anchor", "line") else span[-_MAX_SPAN:]
        label = _LONE_LABEL.fullmatch(span)
        if label is not None and LETTERS.index(label[1]) < (len(choices) or len(LETTERS)):
            return Commitment(index=LETTERS.index(label[1]), rule=f"{rule}/letter")  # also where options are letters
        exact = by_text(span, choices)
        if exact is None and rule in ("anchor", "line"):
            said = stated(span, last=False) if rule == "anchor" else without_remarks(span)
            exact = by_text(said.strip(' .。"“”「」'), choices)
        if exact is not None:
            return Commitment(index=exact, rule=f"{rule}/text")
        named = by_name(span, choices)
        if named is not None:
            return Commitment(
                index=named if named >= 0 else None, rule=f"{rule}/{'name' if named >= 0 else 'no-option'}"
            )
        count = len(choices) or len(LETTERS)
        if _BOTH_POSSIBLE.search(span) or (rule != "text" and _offers_several(span, choices)):
            return Commitment(index=None, rule=f"{rule}/hedge")
        unstyled = _POINTED_AT.sub(" ", _STYLE.sub(" ", span))
        denied = set(_CAPITAL.findall(" ".join(_NEGATION.findall(unstyled))))
        text = _BEFORE_STOP.sub("", " ".join(_NEGATION.sub(" ", unstyled).split()))
        in_formula = rule == "box" and _IN_FORMULA.search(span)  # a letter of a formula is no label
        letters = None if in_formula else letter_index(text, count, whole=rule == "text")
        if letters is not None:
            return Commitment(
                index=letters if letters >= 0 else None, rule=f"{rule}/{'letter' if letters >= 0 else 'hedge'}"
            )
        ordinal = _ORDINAL.search(text)
        if ordinal is not None and 1 <= int(ordinal[1]) <= count:
            return Commitment(index=int(ordinal[1]) - 1, rule=f"{rule}/number")
        if rule == "text" or _UNSURE.search(text):
            return None
        value = self._by_value(span, choices, last=rule != "anchor") if not _DENIED.match(span) else None
        if value is not None and LETTERS[value] not in denied:
            return Commitment(index=value, rule=f"{rule}/value")
        inside = by_inclusion(unstyled, choices)
        said = inside is not None and LETTERS[inside] not in denied  # "not C (Chicago)"
        return Commitment(index=inside, rule=f"{rule}/option-text") if said else None

    def _by_value(self, span: str, choices: tuple[str, ...], *, last: bool) -> int | None:
        """The one option whose value is equal to `span`'s, exactly or by algebra."""
        for candidate in dict.fromkeys((span, from_prose(span, last=last))):
            if candidate != span and _DOWN.search(span) and len(set(map(_size, choices))) < len(set(choices)):
                return None  # "drops by 5" beside the options 5 and -5
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
        candidate = from_prose(span, last=last)
        equal = [
            index
            for index, choice in enumerate(choices)
            if _FORMULA.search(choice) and self._math.compare(candidate, choice).kind is VerdictKind.CORRECT
        ]
        return equal[0] if len(equal) == 1 else None


def _answered(span: str) -> str:
    """`span` behind a question that it answers itself: "A or B? The tail says B."."""
    question, mark, rest = span.replace("？", "?").rpartition("?")
    return rest if mark and rest.strip() and _OR.search(question) else span


def _offers_several(span: str, choices: tuple[str, ...]) -> bool:
    """True where "or" stands between two options: "3 cm or 4 cm"."""
    sides = _OR.split(span)
    if len(sides) == 1 or any(_OR.search(choice) for choice in choices):
        return False
    named = [by_inclusion(plain_side, choices) for plain_side in (_STYLE.sub(" ", side) for side in sides)]
    return len({index for index in named if index is not None}) > 1


def _size(choice: str) -> str:
    """An option without its sign."""
    return choice.replace("−", "-").strip().lstrip("+-")


def reference_index(reference: str, choices: tuple[str, ...]) -> int | None:
    """Index of the right option: `reference` is a letter ("B", "(b)") or the text of an option; None if neither."""
    letter = re.fullmatch(r"\s*[(\[]?([A-Za-z])[)\].]?\s*", reference)
    if letter is not None:
        index = LETTERS.index(letter[1].upper())
        if index < (len(choices) or len(LETTERS)):
            return index
    labelled = _LABELLED.fullmatch(reference.strip())
    if labelled is not None and choices:  # `B. dog`: label and text must be of one option
        index = LETTERS.index(labelled[1])
        return index if by_text(labelled[2], choices) == index else by_text(reference, choices)
    return by_text(reference, choices)


def _spans(extraction: Extraction, body: str) -> list[tuple[str, str]]:
    assert extraction.answer is not None
    rule, answer = extraction.rule, extraction.answer
    spans: list[tuple[str, str]] = []
    as_json = _JSON.findall(body)
    if as_json and rule == "line":
        spans.append(("json", as_json[-1]))
    first = next((line for line in body.splitlines() if line.strip()), "")
    settled = SETTLED.match(first) if rule == "line" and first.strip() != answer else None
    if settled is not None and not (SETTLED.match(answer) or COMMITTED.search(answer) or CHANGED.search(body)):
        spans.append(("first-line", settled[1]))  # the label first, then why
    spans.append((rule, answer))
    if rule == "line":
        if first.strip() != answer:
            spans.append(("first-line", first))
        spans.append(("text", body))
    return spans
