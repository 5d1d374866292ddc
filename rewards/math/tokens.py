r"""The words of a formula: numbers, letters, commands, marks and subscripts; a cursor over them."""

from __future__ import annotations

import re

MAX_LENGTH = 2_000
MAX_DEPTH = 60

FUNCTIONS = (
    "arcsin", "arccos", "arctan", "arccot", "sinh", "cosh", "tanh", "coth", "sin", "cos", "tan", "cot", "sec", "csc",
    "ln", "lg", "log", "exp",
)  # fmt: skip
_WORDS = (*FUNCTIONS, "sqrt", "pi", "asin", "acos", "atan", "cbrt", "abs", "binom", "floor", "ceil")
ALIASES = {"asin": "arcsin", "acos": "arccos", "atan": "arctan", "lg": "log10", "tg": "tan", "ctg": "cot"}
GREEK = [
    "alpha",
    "beta",
    "gamma",
    "delta",
    "epsilon",
    "varepsilon",
    "zeta",
    "eta",
    "theta",
    "vartheta",
    "iota",
    "kappa",
    "lambda",
    "mu",
    "nu",
    "xi",
    "rho",
    "sigma",
    "tau",
    "upsilon",
    "phi",
    "varphi",
    "chi",
    "psi",
    "omega",
    "Gamma",
    "Delta",
    "Theta",
    "Lambda",
    "Xi",
    "Sigma",
    "Phi",
    "Psi",
    "Omega",
    "hbar",
    "ell",
]
DOTS = {"dots", "cdots", "ldots", "dotsb", "dotsc", "dotsm"}
_TOKEN = re.compile(
    r"(?P<number>\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d*)?|\.\d+)|\\(?P<command>[a-zA-Z]+|[^a-zA-Z])"
    rf"|(?P<word>(?:{'|'.join(_WORDS)})(?![a-zA-Z]))|(?P<run>[a-zA-Z]+)|(?P<dots>\.\.\.|…)|(?P<mark>[-+*/^_{{}}()\[\]|!':])"
)
_LONGEST_RUN = 4  # letters that stand together; more is a word
_NAME = re.compile(r"\\(?:text|mathrm|mathbf|mathit|mathcal|mathbb|operatorname)(?![a-zA-Z])|[\s{}]|\\[,;:! ]")
_PLAIN = re.compile(r"[A-Za-z0-9,+\-*'^\\ _{}=]*")


class Unreadable(Exception):
    """The text is no formula of this grammar."""


class Cursor:
    """A place in a list of tokens, each a kind and its text."""

    def __init__(self, tokens: list[tuple[str, str]]) -> None:
        self.tokens = tokens
        self.at = 0

    def peek(self) -> tuple[str, str]:
        return self.tokens[self.at] if self.at < len(self.tokens) else ("end", "")

    def following(self) -> tuple[str, str]:
        if self.at >= len(self.tokens):
            raise Unreadable("it ends too early")
        self.at += 1
        return self.tokens[self.at - 1]

    def expect(self, text: str) -> None:
        if self.following() not in (("mark", text), ("command", text)):
            raise Unreadable(f"{text!r} is missing")


def tokenize(text: str) -> list[tuple[str, str]]:
    """The tokens of `text`, as pairs of a kind and a text. Raises Unreadable."""
    tokens, at = [], 0
    while at < len(text):
        if text[at] in " ~&\t\n":
            at += 1
            continue
        match = _TOKEN.match(text, at)
        if match is None:
            raise Unreadable(f"unexpected {text[at]!r}")
        kind = match.lastgroup or ""
        tokens += _pieces(kind, match[kind])
        at = match.end()
        if kind == "mark" and match[kind] == "_":
            name, at = _subscript(text, at)
            tokens[-1] = ("subscript", name)
    return tokens


def _pieces(kind: str, text: str) -> list[tuple[str, str]]:
    if kind == "run":
        if len(text) > _LONGEST_RUN:
            raise Unreadable("a word")
        return [("letter", char) for char in text]
    if kind == "word":
        return [("command", text)]
    if kind == "command" and text in (",", ";", ":", "!", " ", "quad", "displaystyle"):
        return []
    return [(kind, text)]


def _subscript(text: str, at: int) -> tuple[str, int]:
    while text[at : at + 1] == " ":
        at += 1
    if text[at : at + 1] != "{":
        match = re.compile(r"\\[a-zA-Z]+|[A-Za-z0-9]").match(text, at)
        if match is None:
            raise Unreadable("an empty subscript")
        return match.group().lstrip("\\"), match.end()
    depth = 0
    for end in range(at, len(text)):
        depth += (text[end] == "{") - (text[end] == "}")
        if depth == 0:
            name = _NAME.sub("", text[at + 1 : end])
            if not name or not _PLAIN.fullmatch(name):
                raise Unreadable("an odd subscript")
            return name.replace("\\", ""), end + 1
    raise Unreadable("an open brace")
