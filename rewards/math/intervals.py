r"""Sets of real numbers, however they are written: intervals, inequalities, unions, set-builders, points left out.

`-1 < x \le 2`, `(-1, 2]`, `x \in (-1, 2]` and `\{x \mid -1 < x \le 2\}` are one region. Only solved inequalities are
read (a bare variable between numbers): `2x + 1 > 7` is the question, not its answer.
"""

from __future__ import annotations

import re

from rewards.math.formula import Unreadable, parse_formula
from rewards.math.real_line import ALL, HIGH, LOW, End, RealSet, below, comparable, merged, overlap, same_end
from rewards.math.values import nodes_equal, same_number, value_of

RELATION = re.compile(r"<=|>=|=<|!=|<|>|\\(?:leq?|geq?|neq?|lt|gt)(?![a-zA-Z])")
_SHAPE = re.compile(
    r"[<>]|!=|\\(?:leq?|geq?|neq?|lt|gt|cup|cupdot|cap|infty|in|setminus|backslash|mathbb|emptyset|varnothing)(?![a-zA-Z])"
    r"|real numbers?|\bor\b"
)
_UNION = re.compile(
    r"\\(?:cup|cupdot|bigcup|sqcup)(?![a-zA-Z])|\\text\s?\{\s?,?\s?or\s?\}|(?<![a-zA-Z\\])(?:or|U)(?![a-zA-Z])"
)
_MEET = re.compile(
    r"\\cap(?![a-zA-Z])|\\text\s?\{\s?,?\s?and\s?\}|(?<![a-zA-Z\\])and(?![a-zA-Z])|\\(?:land|wedge)(?![a-zA-Z])"
)
_MINUS = re.compile(r"\\(?:setminus|backslash|smallsetminus)(?![a-zA-Z])|(?<=[})\]])\s?[-\\]\s?(?=\\\{)")
_MEMBER = re.compile(r"^\s?(\\?[a-zA-Z]+(?:_\{?\w{1,8}\}?)?(?:\([a-z]\))?)\s?\\in(?![a-zA-Z])\s?")
_BUILDER = re.compile(
    r"^\\\{\s?(\\?[a-zA-Z]+)\s?(?:\\in\s?(?:\\mathbb\s?\{?\s?R\s?\}?|\\R(?![a-zA-Z]))\s?)?(?:\||:|\\mid(?![a-zA-Z])|\\colon(?![a-zA-Z]))(.*)\\\}$"
)
_REALS = re.compile(
    r"\\mathbb\s?\{?\s?R\s?\}?|\\R|ℝ|(?:\\text\s?\{)?\s?(?:all|any|every)?\s?reals?(?: numbers?)?(?: x)?\s?\}?",
    re.IGNORECASE,
)
_EMPTY = re.compile(r"\\(?:emptyset|varnothing)|\\\{\s?\\\}")
_VARIABLE = re.compile(r"^(?:[a-zA-Z]|\\[a-z]+)(?:_\{?\w{1,8}\}?)?'*(?:\([a-z](?:,\s?[a-z])*\))?$")
_FOR_REAL = re.compile(
    r"(?:[,;]|\\text\s?\{\s?,?\s?(?:where|for|with)\s?\}|\b(?:where|for|with)\b)\s?[a-z]\s?\\in\s?\\mathbb\s?\{?\s?R\s?\}?\s?$"
)
_INFINITY = re.compile(r"([-+]?)\s?(?:\\infty|\\inf|inf(?:inity)?|oo)")
_FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "!=": "!="}
_NAMES = {
    "\\lt": "<",
    "\\gt": ">",
    "\\le": "<=",
    "\\leq": "<=",
    "\\ge": ">=",
    "\\geq": ">=",
    "\\ne": "!=",
    "\\neq": "!=",
    "=<": "<=",
}
_MAX_PIECES = 60


def may_be_region(gold: str, answer: str) -> bool:
    """True where one of two texts is written in a way that only sets of numbers are."""
    return bool(_SHAPE.search(gold) or _SHAPE.search(answer))


def regions_equal(gold: str, answer: str) -> bool | None:
    """True or False where both texts describe sets of real numbers, None where one does not."""
    left, right = parse_real_set(gold), parse_real_set(answer)
    if left is None or right is None:
        return None
    if left.variable and right.variable and left.variable != right.variable:
        return False
    ends = [end for region in (left, right) for piece in region.pieces for end in piece]
    if all(end.value is not None for end in ends):
        a, b = merged(left.pieces), merged(right.pieces)
    else:
        a, b = left.pieces, right.pieces
    return len(a) == len(b) and all(
        same_end(x, y) for one, other in zip(a, b, strict=True) for x, y in zip(one, other, strict=True)
    )


def parse_real_set(text: str) -> RealSet | None:
    """The set of real numbers that `text` describes, None where it describes none."""
    try:
        region = _union(_FOR_REAL.sub("", text.strip()), 0)
    except (Unreadable, OverflowError):
        return None
    return region if len(region.pieces) <= _MAX_PIECES else None


def chains_equal(gold: str, answer: str) -> bool | None:
    """Chains of relations, such as `a < b \\le c`, side by side; None where one is no chain or cannot be read."""
    left, right = _chain(gold), _chain(answer)
    if len(left[0]) < 2 or len(right[0]) < 2:
        return None
    if right[1][0][0] == _FLIPPED[left[1][0]][0] != "!":
        right = _flip(right)
    if left[1] != right[1]:
        return False
    try:
        outcomes = [nodes_equal(parse_formula(a), parse_formula(b)) for a, b in zip(left[0], right[0], strict=True)]
    except Unreadable:
        return None
    return None if None in outcomes else all(outcomes)


def _union(text: str, depth: int) -> RealSet:
    if depth > 4:
        raise Unreadable("nested sets")
    parts = split_at(text, _UNION)
    regions = [_meet(part, depth) for part in parts]
    names = {region.variable for region in regions if region.variable}
    if len(names) > 1:
        raise Unreadable("two variables")
    return RealSet(tuple(piece for region in regions for piece in region.pieces), names.pop() if names else "")


def _meet(text: str, depth: int) -> RealSet:
    parts = split_at(text, _MEET)
    if len(parts) == 1 and RELATION.search(text):
        parts = split_at(text, re.compile("[,;]"))
    regions = [_difference(part, depth) for part in parts]
    if len(regions) == 1:
        return regions[0]
    names = {region.variable for region in regions if region.variable}
    if len(names) > 1:
        raise Unreadable("two variables")
    pieces = regions[0].pieces
    for region in regions[1:]:
        pieces = tuple(p for one in pieces for other in region.pieces if (p := overlap(one, other)) is not None)
    if not pieces and not _MEET.search(text):  # `x < 1, x > 3` lists two cases
        pieces = tuple(piece for region in regions for piece in region.pieces)
    return RealSet(pieces, names.pop() if names else "")


def _difference(text: str, depth: int) -> RealSet:
    first, *others = split_at(text, _MINUS)
    region = _primary(first, depth)
    for other in others:
        for low, high in _primary(other, depth).pieces:
            if low.value is None or high.value is None or not same_number(low.value, high.value):
                raise Unreadable("only points can be left out")
            holes = ((LOW, End(low.node, low.value, False)), (End(low.node, low.value, False), HIGH))
            pieces = tuple(p for one in region.pieces for hole in holes if (p := overlap(one, hole)) is not None)
            region = RealSet(pieces, region.variable)
    return region


def _primary(text: str, depth: int) -> RealSet:
    text = text.strip()
    member = _MEMBER.match(text)
    if member is not None and not text.startswith("\\{"):
        region = _union(text[member.end() :], depth + 1)
        if region.variable:
            raise Unreadable("a condition on a member")
        return RealSet(region.pieces, member[1])
    if _REALS.fullmatch(text):
        return ALL
    if _EMPTY.fullmatch(text):
        return RealSet(())
    builder = _BUILDER.match(text)
    if builder is not None:
        region = _union(builder[2], depth + 1)
        if region.variable not in ("", builder[1]):
            raise Unreadable("a set-builder over another variable")
        return RealSet(region.pieces)
    if text.startswith("\\{") and text.endswith("\\}"):
        points = [_end(part, True) for part in split_at(text[2:-2], re.compile("[,;]"))]
        return RealSet(tuple((point, point) for point in points))
    if RELATION.search(text):
        return _inequality(text)
    label, equals, value = text.partition("=")
    if equals and _VARIABLE.match(label.strip()):
        point = _end(value, True)
        return RealSet(((point, point),), label.strip())
    return _interval(text, depth)


def _interval(text: str, depth: int) -> RealSet:
    if len(text) < 5 or text[0] not in "([]" or text[-1] not in ")[]":
        raise Unreadable("no interval")
    parts = split_at(text[1:-1], re.compile("[,;]"))
    if len(parts) == 1 and text[0] == "(" and text[-1] == ")":
        return _union(text[1:-1], depth + 1)
    if len(parts) != 2:
        raise Unreadable("no interval")
    low, high = _end(parts[0], text[0] == "["), _end(parts[1], text[-1] == "]")
    if low.value is not None and high.value is not None and below(high, low):
        raise Unreadable("an interval that runs backwards")
    return RealSet(((low, high),))


def _inequality(text: str) -> RealSet:
    sides, relations = _chain(text)
    at = next((i for i, side in enumerate(sides) if _VARIABLE.match(side.lstrip("-+ "))), None)
    if at is None or len(sides) > 3 or (len(sides) == 3 and at != 1):
        raise Unreadable("not solved for one variable")
    name = sides[at]
    pieces: tuple[tuple[End, End], ...] = ((LOW, HIGH),)
    if name.startswith("-"):
        name = name[1:].strip()
        sides = [side if i == at else f"-({side})" for i, side in enumerate(sides)]
        relations = [_FLIPPED[r] for r in relations]
    for index, relation in enumerate(relations):
        other = sides[index] if index + 1 == at else sides[index + 1]
        found = _half_lines(relation if index + 1 != at else _FLIPPED[relation], other)
        if any(end.value is None for piece in found for end in piece):
            return RealSet(_symbolic(sides, relations, at), name.strip())
        pieces = tuple(p for one in pieces for piece in found if (p := overlap(one, piece)) is not None)
    return RealSet(pieces, name.strip())


def _symbolic(sides: list[str], relations: list[str], at: int) -> tuple[tuple[End, End], ...]:
    """The piece between ends that are formulas with letters."""
    if "!=" in relations:
        raise Unreadable("a formula left out")
    low, high = LOW, HIGH
    for index, relation in enumerate(relations):
        other = sides[index] if index + 1 == at else sides[index + 1]
        relation = relation if index + 1 != at else _FLIPPED[relation]
        if relation[0] == ">":
            low = _end(other, relation == ">=")
        else:
            high = _end(other, relation == "<=")
    return ((low, high),)


def _half_lines(relation: str, other: str) -> tuple[tuple[End, End], ...]:
    if relation == "!=" and other.lstrip().startswith("\\pm"):
        size = other.replace("\\pm", "", 1)
        low, high = sorted((_end(size, False), _end(f"-({size})", False)), key=lambda end: float(comparable(end.value)))
        return ((LOW, low), (low, high), (high, HIGH))
    end = _end(other, relation in ("<=", ">="))
    if relation == "!=":
        return ((LOW, end), (end, HIGH))
    return ((end, HIGH),) if relation[0] == ">" else ((LOW, end),)


def _chain(text: str) -> tuple[list[str], list[str]]:
    relations = [_NAMES.get(m.group(), m.group()) for m in RELATION.finditer(text)]
    return [side.strip() for side in RELATION.split(text)], relations


def _flip(chain: tuple[list[str], list[str]]) -> tuple[list[str], list[str]]:
    return chain[0][::-1], [_FLIPPED[r] for r in reversed(chain[1])]


def _end(text: str, closed: bool) -> End:
    text = text.strip().rstrip(".")
    infinite = _INFINITY.fullmatch(text)
    if infinite is not None:
        return LOW if infinite[1] == "-" else HIGH
    node = parse_formula(text)
    value = value_of(node)
    if value is not None and value.imag != 0:
        raise Unreadable("no real number")
    return End(node, value, closed)


def split_at(text: str, pattern: re.Pattern[str]) -> list[str]:
    r"""`text` split where `pattern` matches outside of brackets; half-open intervals such as `(1, 2]` are brackets."""
    depths, depth, at = [0] * (len(text) + 1), 0, 0
    while at < len(text):
        if text[at] == "\\" and text[at + 1 : at + 2] not in ("{", "}"):
            depths[at] = depth
            at += 1
        elif text[at] in "([{":
            depth += 1
        elif text[at] in ")]}":
            depth -= 1
        depths[at] = depth
        at += 1
    parts, start = [], 0
    for match in pattern.finditer(text):
        if depths[match.start()] <= 0 or (match.group().startswith("\\text") and depths[match.start()] <= 0):
            parts.append(text[start : match.start()])
            start = match.end()
    parts.append(text[start:])
    return [part.strip() for part in parts]
