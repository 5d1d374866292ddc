"""Where the answer is in a response: after the thinking; last box, else `<answer>`, else "answer is", else last line.

Every function is linear in the length of the text, whatever the text. Outcomes of `extract_answer`:

==========================  =====================================================
in the text after thinking  outcome
==========================  =====================================================
think block left open       no answer, rule `open-thinking`
nothing but white space     no answer, rule `empty`
one or more balanced boxes  the last one (the outermost if nested), rule `box`;
                            a tag or "answer is" behind it, with a digit, formula
                            or single letter, replaces it, rule `anchor`
`<answer>...</answer>`      the last pair, rule `tag`
"answer is", "Answer:"      the last one: the rest of its line, rule `anchor`
anything else               the last line that is not empty, rule `line`
==========================  =====================================================

A box or tag that is empty commits to nothing: no answer, rule `empty-box` or `empty-tag`. So does a box that the words
beside it deny ("is not \\boxed{5}", "\\boxed{5} is wrong"): rule `denied-box`.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass

THINK_OPEN = "◁think▷"
THINK_CLOSE = "◁/think▷"

THINK_MARKS = ((THINK_OPEN, THINK_CLOSE), ("<think>", "</think>"))  # Kimi's own; what most other models write
_TAIL = 100_000  # characters: an answer further from the end than this is not looked for
_BOX = re.compile(r"\\{1,2}(?:begin)?f?box(?:ed)?\s{0,8}\{|\\.|[{}]", re.DOTALL)
_BOX_OPENS = re.compile(r"\\{1,2}(?:begin)?f?box(?:ed)?\s{0,8}\{")
_BETWEEN = re.compile(
    r"\}[\s$]*(?:\\quad)?[\s$]*(?:,|,?\s*(?:\\text\{[^{}]{0,20})?\band\b\s*\}?)[\s$]*(?:\\quad)?[\s$]*\\boxed\s*\{"
)
_JOINED_BOXES = 20
_BARE_BOX = re.compile(r"\\boxed\s{1,8}([^\s$\\{}]{1,40})")
_SPECIAL = re.compile(r"<\|[^|<>\n]{1,40}\|>|</?s>|<(?:eos|end_of_turn|pad)>")
_JSON = re.compile(
    r"[\"'](?:final_?)?answer[\"']\s{0,8}:\s{0,8}(?:\"((?:[^\"\\]|\\.){1,400})\"|'([^'\\]{1,400})'|(-?\d[\d.eE+-]{0,60}))",
    re.IGNORECASE,
)
_INVISIBLE = re.compile("[\u00ad\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]")
_LINE_MARKS = re.compile(
    r"^(?:#{1,6}|>(?!\s?[\d.-])|[∴⇒⟹→]|[=-]>|\\(?:therefore|implies|Rightarrow)(?![a-z]))\s*"
)  # a heading, a quotation; `>100` is a bound
_BULLET = re.compile(r"^\s{0,8}[-*•]\s+(?=\S)")  # below "Answer:", where a minus sign would touch its number
_ONE_CELL = re.compile(r"\|\s+([^|]{1,400}?)\s+\|")
_CLOSING_WORDS = re.compile(r"\bI hope (?:it|this) is correct\.?", re.IGNORECASE)
_ANCHOR = re.compile(
    r"\banswer\**\s{0,3}(?:is|are|was|would be|should be|must be)\b\s{0,3}[:：]?"
    r"|\banswer\**\s{0,3}[:：]\**"
    r"|答案\**\s{0,3}(?:[是为為]\s?[:：]?|[:：】\]]+)|答え\**\s{0,3}[は:：]+|정답\**\s{0,3}[은는:：]+"
    r"|\b(?:réponse|respuesta|resposta|antwort|risposta|ответ)\**\s{0,3}[:：]",
    re.IGNORECASE,
)
_CORRECTED = re.compile(r"(?:应该是|应为|应是|改为)\s?([^。，,;；\n]{1,40})")
_RETRACTED = re.compile(
    r"\b(?:no[,.]|wait|actually|mistake|misread|wrong|incorrect|correction)|不对|错了|更正|重新", re.IGNORECASE
)
_DENIED_BEFORE = re.compile(
    r"(?:\bnot|\b[a-z]{2,6}n't(?: be)?|\bnever|不是|不等于|并非)[\s$*(:：]{0,6}$", re.IGNORECASE
)
_DENIED_AFTER = re.compile(
    r"[}\s$*)]{1,6}(?:(?:is|was|are)\s(?:not|wrong|incorrect|false)\b|isn't\b|(?:是错|不对|不正确|是不对))",
    re.IGNORECASE,
)
_ALTERNATIVE = re.compile(  # the display formula before it is not all of the answer
    r"[^\n.。]{0,8}?(?:\b(?:or|to)\b|[或到至]|还是)|\s{0,4}(?:and\b|和)"
)
_DISPLAY = (("$$", "$$"), ("\\[", "\\]"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Thinking:
    """A response split at its think marks."""

    thought: str | None  # None where the response has no think mark at all
    answer_text: str  # what follows the last closing mark; empty where a block was left open
    closed: bool  # True where there is a block and it was closed


@dataclass(frozen=True, slots=True, kw_only=True)
class Extraction:
    """The text that a response commits to, or None, and the rule that found it or refused it."""

    answer: str | None
    rule: str


def split_thinking(text: str) -> Thinking:
    """Split `text` into its thought and the answer after it.

    A closing mark without an opening one closes a block that the prompt opened. Only what follows the last closing
    mark is answer text; a block opened after it, and never closed, leaves no answer.
    """
    opened, closed, closed_end, first_end = -1, -1, 0, -1
    for open_mark, close_mark in THINK_MARKS:
        at = text.rfind(open_mark)
        if at >= 0:
            opened = max(opened, at)
            start = text.find(open_mark)
            first_end = start + len(open_mark) if first_end < 0 else min(first_end, start + len(open_mark))
        at = text.rfind(close_mark)
        if at > closed:
            closed, closed_end = at, at + len(close_mark)
    if opened < 0 and closed < 0:
        return Thinking(thought=None, answer_text=text, closed=False)
    begin = first_end if first_end >= 0 and (closed < 0 or first_end <= closed) else 0
    if opened > closed:
        return Thinking(thought=text[begin:], answer_text="", closed=False)
    return Thinking(thought=text[begin:closed], answer_text=text[closed_end:], closed=True)


def extract_answer(text: str) -> Extraction:
    """The answer that `text` (a whole response) commits to; the module's table tells each outcome. Never raises."""
    thinking = split_thinking(text)
    if thinking.thought is not None and not thinking.closed:
        return Extraction(answer=None, rule="open-thinking")
    body = visible(thinking.answer_text[-_TAIL:])
    body = _SPECIAL.sub("\n", body) if "<" in body else body
    body = _CLOSING_WORDS.sub("", body) if "hope" in body.lower() else body
    if not body.strip():
        return Extraction(answer=None, rule="empty")
    late = _later_answer(body)
    if late:
        return Extraction(answer=late, rule="anchor")
    for rule, find in (("box", last_box), ("tag", _last_tag)):
        found = find(body)
        if found is not None:
            if rule == "box" and _denied(body, found):
                return Extraction(answer=None, rule="denied-box")
            found = found.strip()
            return Extraction(answer=found, rule=rule) if found else Extraction(answer=None, rule=f"empty-{rule}")
    as_json = _last_match(_JSON, body) if "{" in body else None
    if as_json is not None:
        return Extraction(answer=next(g for g in as_json.groups() if g).strip(), rule="json")
    anchored = _last_anchor(body)
    if anchored:
        return Extraction(answer=anchored, rule="anchor")
    lines = [line for line in body.splitlines() if line.strip(" \t*_#`|>-$\\[]")]
    if not lines:
        return Extraction(answer=None, rule="empty")
    line = lines[-1].strip()
    cell = _ONE_CELL.fullmatch(line)
    return Extraction(answer=cell[1] if cell is not None else _LINE_MARKS.sub("", line), rule="line")


def visible(text: str) -> str:
    """`text` without characters that cannot be seen: zero widths, soft hyphens, marks of direction."""
    return text if text.isascii() else _INVISIBLE.sub("", text)


def last_box(text: str) -> str | None:
    r"""What is inside the last balanced `\boxed{}` of `text`, the outermost where boxes nest; None without one.

    Boxes that only "and" or a comma stands between are one answer in several parts, and are joined with commas.
    """
    if "box" not in text:
        return None
    # What stands before the first box cannot change what is found: its braces close no box.
    opening = _BOX_OPENS.search(text)
    stack: list[int] = []  # for each open brace: where its content starts if it is a box, else -1
    boxes: deque[tuple[int, int]] = deque(maxlen=_JOINED_BOXES)
    for token in _BOX.finditer(text, opening.start()) if opening is not None else ():
        piece = token.group()
        if piece == "{":
            stack.append(-1)
        elif piece == "}":
            start = stack.pop() if stack else -1
            if start >= 0:
                while boxes and boxes[-1][0] > start:
                    boxes.pop()  # it stood inside this one
                boxes.append((start, token.start()))
        elif piece.endswith("{") and len(piece) > 2:
            stack.append(token.end())
    if not boxes:
        bare = _last_match(_BARE_BOX, text)
        return bare.group(1) if bare is not None else None
    spans = list(boxes)
    first = len(spans) - 1
    while first > 0 and _BETWEEN.fullmatch(text, spans[first - 1][1], min(spans[first][0], spans[first - 1][1] + 80)):
        first -= 1
    return ", ".join(text[start:end] for start, end in spans[first:])


def _denied(text: str, box: str) -> bool:
    """True where words beside the last box, whose content is `box`, say that it is not the answer."""
    start = max(text.rfind("\\boxed"), text.rfind("\\fbox"))
    if start < 0 or not box:
        return False
    at = text.find(box, start)  # -1 where several boxes were joined
    after = _DENIED_AFTER.match(text, at + len(box)) if at >= 0 else None
    return after is not None or _DENIED_BEFORE.search(text, max(0, start - 24), start) is not None


def _last_match(pattern: re.Pattern[str], text: str, start: int = 0) -> re.Match[str] | None:
    return next(iter(deque(pattern.finditer(text, start), maxlen=1)), None)


def _last_tag(text: str) -> str | None:
    found = None
    for name in ("answer", "choice"):
        lowered = text.lower() if "<ANSWER>" in text or "<Answer>" in text else text
        end = lowered.rfind(f"</{name}>")
        start = lowered.rfind(f"<{name}>", 0, end) if end >= 0 else -1
        if start >= 0 and found is None:
            found = text[start + len(name) + 2 : end]
    return found


def _later_answer(text: str) -> str | None:
    """What a tag, or a phrase such as "the answer is", commits to behind the last box: the later one counts.

    It must hold a digit, a formula or one letter, or follow a retraction: "the answer is in the box" commits to nothing
    new.
    """
    box = max(text.rfind("\\boxed"), text.rfind("\\fbox"))
    if box < 0:
        return None
    later = text[box:]
    tagged = _last_tag(later)
    found = tagged.strip() if tagged is not None else _last_anchor(later)
    if not found:
        corrected = _last_match(_CORRECTED, later)
        found = corrected[1] if corrected is not None else None
    commits = found and (re.search(r"\d|\\[a-z]|^\W*[A-Z]\W*$", found) or _RETRACTED.search(later))
    return found if commits else None


def _last_anchor(text: str) -> str | None:
    anchor = _last_match(_ANCHOR, text)
    if anchor is None:
        return None
    rest = text[anchor.end() :].lstrip(" \t*_:：")
    for opening, closing in _DISPLAY:
        if rest.lstrip().startswith(opening):
            inner = rest.lstrip()[len(opening) :]
            end = inner.find(closing)
            if end >= 0 and not _ALTERNATIVE.match(inner, end + len(closing)):
                return inner[:end].strip()
    for at, line in enumerate(rest.split("\n", 4)[:4]):
        if line.strip(" \t*_`.:："):
            line = _BULLET.sub("", line) if at else line
            return (line if line.count("**") % 2 == 0 else line.replace("**", "")).strip()
    return None
