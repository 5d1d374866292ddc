r"""A small grammar of our own from normalised LaTeX (or plain text) to a tree: numbers, letters, operators, functions.

It reads what answers are made of, and says `Unreadable` for everything else: prose, matrices, relations, lists.
No name is looked up anywhere: a letter is a letter. Work is linear in the length of the text, depth is bounded.
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache

from rewards.math.nodes import Node, letters, operations, rename
from rewards.math.tokens import ALIASES, DOTS, FUNCTIONS, GREEK, MAX_DEPTH, MAX_LENGTH, Cursor, Unreadable, tokenize

__all__ = ["Node", "Unreadable", "letters", "operations", "parse_formula", "rename"]


@lru_cache(maxsize=8192)
def parse_formula(text: str) -> Node:
    """The tree of `text`. Raises Unreadable."""
    if len(text) > MAX_LENGTH:
        raise Unreadable("too long")
    parser = _Parser(tokenize(text))
    node = parser.sum(0)
    if parser.at < len(parser.tokens):
        raise Unreadable(f"unexpected {parser.tokens[parser.at][1]!r}")
    return node


_NOT_FACTORS = frozenset(
    ("}", "rbrace", "rfloor", "rceil", "rvert", "cdot", "times", "ast", "div", "circ", "degree", "prime")
)
_OPAQUE = frozenset(("sum", "prod", "int", "iint", "oint", "lim"))
_CLOSING = {"(": ")", "[": "]", "{": "}", "|": "|"}
_BRACKET_COMMANDS = {
    "lfloor": ("rfloor", "floor"), "lceil": ("rceil", "ceil"), "lvert": ("rvert", "abs"), "{": ("}", ""),
    "lbrace": ("rbrace", ""),
}  # fmt: skip


class _Parser(Cursor):
    """Recursive descent; each method reads from `at` and leaves it behind what it has read."""

    def sum(self, depth: int, *, bar: bool = False) -> Node:
        if depth > MAX_DEPTH:
            raise Unreadable("too deep")
        terms = [self._product(depth, bar)]
        while self.peek() in (("mark", "+"), ("mark", "-")):
            negative = self.following()[1] == "-"
            term = self._product(depth, bar)
            terms.append(Node("neg", (term,)) if negative else term)
        return terms[0] if len(terms) == 1 else Node("add", tuple(terms))

    def _product(self, depth: int, bar: bool) -> Node:
        factors = [self._signed(depth)]
        while True:
            token = self.peek()
            if token in (("mark", "*"), ("command", "cdot"), ("command", "times"), ("command", "ast")):
                self.following()
                factors.append(self._signed(depth))
            elif token in (("mark", "/"), ("command", "div"), ("mark", ":")):
                self.following()
                factors.append(Node("inv", (self._signed(depth),)))
            elif self._starts_factor(token, bar):
                if self.tokens[self.at - 1][0] == "number" and (token[0] == "number" or token == ("mark", "{")):
                    raise Unreadable("a number that runs into another")
                factors.append(self._power(depth))
            else:
                return factors[0] if len(factors) == 1 else Node("mul", tuple(factors))

    def _signed(self, depth: int) -> Node:
        if self.peek() == ("mark", "-"):
            self.following()
            return Node("neg", (self._signed(depth + 1),)) if depth < MAX_DEPTH else self._deep()
        if self.peek() == ("mark", "+"):
            self.following()
        return self._power(depth)

    def _power(self, depth: int) -> Node:
        node = self._atom(depth)
        while self.peek() in (("mark", "!"), ("mark", "^"), ("mark", "'")):
            mark = self.following()[1]
            if mark == "!":
                node = Node("fact", (node,))
            elif mark == "'":
                node = self._primed(node)
            else:
                node = self._exponent(node, depth)
        return node

    def _exponent(self, base: Node, depth: int) -> Node:
        token = self.peek()
        if token in (("command", "circ"), ("command", "degree")):
            self.following()
            return Node("deg", (base,))
        if token == ("command", "prime"):
            self.following()
            return self._primed(base)
        if token == ("mark", "{") and self.tokens[self.at + 1 : self.at + 2] == [("command", "prime")]:
            self.at += 2
            self.expect("}")
            return self._primed(base)
        power = self._signed(depth + 1) if token == ("mark", "-") else self._exponent_atom(depth + 1)
        return Node("pow", (base, power))

    def _exponent_atom(self, depth: int) -> Node:
        """One atom; a further `^` belongs to it, so that towers group to the right."""
        node = self._atom(depth)
        if self.peek() == ("mark", "^"):
            self.following()
            node = self._exponent(node, depth + 1)
        return node

    def _primed(self, node: Node) -> Node:
        if node.op != "sym":
            raise Unreadable("a prime that is not on a letter")
        return Node("sym", name=node.name + "'")

    def _atom(self, depth: int) -> Node:
        if depth > MAX_DEPTH:
            self._deep()
        kind, text = self.following()
        if kind == "number":
            return self._number(text, depth)
        if kind == "letter":
            return self._letter(text, depth)
        if kind == "dots" or (kind == "command" and text in DOTS):
            return Node("sym", name="...")
        if kind == "mark" and text in _CLOSING:
            node = self.sum(depth + 1, bar=text == "|")
            self.expect(_CLOSING[text])
            return Node("fn", (node,), name="abs") if text == "|" else node
        if kind == "command":
            return self._command(text, depth)
        raise Unreadable(f"unexpected {text!r}")

    def _number(self, text: str, depth: int) -> Node:
        whole, _, decimals = text.replace(",", "").partition(".")
        if self.peek()[0] == "subscript":
            raise Unreadable("a number in another base")
        value = Fraction(int((whole or "0") + decimals), 10 ** len(decimals))
        node = Node("num", value=value)
        if text.isdigit() and self.peek() == ("command", "frac"):
            fraction = self._atom(depth + 1)
            if fraction.op == "div" and all(a.op == "num" for a in fraction.args):
                return Node("add", (node, fraction))  # a mixed number
            return Node("mul", (node, fraction))
        return node

    def _letter(self, text: str, depth: int) -> Node:
        if self.peek()[0] == "subscript":
            return Node("sym", name=f"{text}_{self.following()[1]}")
        if text == "e":
            return Node("const", name="e")
        if text == "i":
            return Node("const", name="i")
        if text in "fg" and self.peek() == ("mark", "("):
            return self._applied(text, depth)
        return Node("sym", name=text)

    def _applied(self, text: str, depth: int) -> Node:
        """`f(2)` and `f(x)` are names of a value; `g(1+x)` is a product."""
        start = self.at
        self.following()
        inner = self.sum(depth + 1)
        self.expect(")")
        if inner.op in ("num", "sym"):
            return Node("sym", name=f"{text}({inner.value if inner.op == 'num' else inner.name})")
        self.at = start
        return Node("sym", name=text)

    def _command(self, text: str, depth: int) -> Node:
        text = ALIASES.get(text, text)
        if text in ("frac", "binom"):
            first, second = self._argument(depth), self._argument(depth)
            return Node("div" if text == "frac" else "binom", (first, second))
        if text in ("sqrt", "cbrt"):
            return self._root(depth, cube=text == "cbrt")
        if text in FUNCTIONS or text == "log10":
            return self._function(text, depth)
        if text in ("abs", "floor", "ceil"):
            return Node("fn", (self._argument(depth),), name=text)
        if text in _BRACKET_COMMANDS:
            closing, name = _BRACKET_COMMANDS[text]
            node = self.sum(depth + 1)
            if self.following() != ("command", closing):
                raise Unreadable("an open bracket")
            return Node("fn", (node,), name=name) if name else node
        if text in ("pi", "infty"):
            return Node("const", name="pi" if text == "pi" else "inf")
        if text in _OPAQUE:
            return self._opaque(text, depth)
        if text in GREEK:
            subscript = f"_{self.following()[1]}" if self.peek()[0] == "subscript" else ""
            return Node("sym", name=f"\\{text.removeprefix('var')}{subscript}")
        if text in ("vec", "overrightarrow", "overline", "bar", "hat", "mathbf", "mathcal", "triangle", "angle"):
            return self._decorated(text)
        raise Unreadable(f"\\{text}")

    def _opaque(self, text: str, depth: int) -> Node:
        """A sum or an integral as an unknown function of its body, named after its limits: enough to show equality."""
        start = self.at
        while self.peek()[0] == "subscript" or self.peek() == ("mark", "^"):
            if self.following()[0] == "mark":
                self._argument(depth)
        limits = "".join(token for _, token in self.tokens[start : self.at])
        return Node("mul", (Node("sym", name=f"\\{text}_{limits}"), self._product(depth + 1, bar=False)))

    def _decorated(self, text: str) -> Node:
        letters_ = []
        brace = self.peek() == ("mark", "{")
        if brace:
            self.following()
        while self.peek()[0] == "letter" and (brace or not letters_ or text in ("triangle", "angle")):
            letters_.append(self.following()[1])
        if brace:
            self.expect("}")
        if not letters_:
            raise Unreadable(f"\\{text}")
        subscript = f"_{self.following()[1]}" if self.peek()[0] == "subscript" else ""
        style = "vec" if text == "overrightarrow" else text
        return Node("sym", name=f"\\{style} {''.join(letters_)}{subscript}")

    def _root(self, depth: int, *, cube: bool) -> Node:
        order = Node("num", value=Fraction(3 if cube else 2))
        if self.peek() == ("mark", "["):
            self.following()
            order = self.sum(depth + 1)
            self.expect("]")
        return Node("root", (self._argument(depth), order))

    def _function(self, name: str, depth: int) -> Node:
        power, base = None, None
        while self.peek()[0] == "subscript" or self.peek() == ("mark", "^"):
            kind, text = self.following()
            if kind == "subscript":
                base = parse_formula(text) if text else None
            else:
                power = self._argument(depth)
        node = self._function_argument(depth)
        if name == "log" and base is not None:
            node = Node("log", (node, base))
        elif power is not None and power == Node("neg", (Node("num", value=Fraction(1)),)) and name[0] != "a":
            return Node("fn", (node,), name=f"arc{name}")
        else:
            node = Node("fn", (node,), name=name)
        return Node("pow", (node, power)) if power is not None else node

    def _function_argument(self, depth: int) -> Node:
        """A group, or the factors up to the next function, operator or sum."""
        if self.peek() in (("mark", "("), ("mark", "["), ("mark", "{"), ("mark", "|")):
            return self._atom(depth + 1)
        if self.peek() == ("mark", "-"):
            return self._signed(depth + 1)
        factors = [self._power(depth + 1)]
        while True:
            token = self.peek()
            if (
                token == ("mark", "/")
                and self.tokens[self.at + 1 : self.at + 2]
                and self.tokens[self.at + 1][0] == "number"
            ):
                self.following()
                factors.append(Node("inv", (self._power(depth + 1),)))
                continue
            bracket = token == ("mark", "(") or (token[0] == "command" and token[1] in (*FUNCTIONS, *_BRACKET_COMMANDS))
            if bracket or not self._starts_factor(token, bar=True):
                return factors[0] if len(factors) == 1 else Node("mul", tuple(factors))
            factors.append(self._power(depth + 1))

    def _argument(self, depth: int) -> Node:
        """The argument of a command: a group, or one digit or letter."""
        kind, text = self.peek()
        if kind == "number" and len(text) > 1 and text.isdigit():
            self.tokens[self.at : self.at + 1] = [("number", text[0]), ("number", text[1:])]
        if (kind, text) == ("mark", "-"):
            return self._signed(depth + 1)
        return self._atom(depth + 1)

    def _starts_factor(self, token: tuple[str, str], bar: bool) -> bool:
        kind, text = token
        if kind == "mark":
            return text in "([{" or (text == "|" and not bar)
        if kind == "command":
            return text not in _NOT_FACTORS
        return kind in ("number", "letter", "dots")

    def _deep(self) -> Node:
        raise Unreadable("too deep")
