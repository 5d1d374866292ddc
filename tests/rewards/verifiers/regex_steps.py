"""A backtracking matcher that counts the characters it looks at: what a regular expression costs, without a clock.

It reads the parse tree that `re` itself compiles and walks it as `re` does, so that a pattern which backtracks without
bound does so here too. `steps` gives up at `limit`.
"""

from __future__ import annotations

import re
from re import _constants as c
from re import _parser  # type: ignore[attr-defined]


class TooMany(Exception):
    """More characters were looked at than allowed."""


class Matcher:
    """One pattern over one text."""

    def __init__(self, pattern, text, limit):
        self.tree = _parser.parse(pattern.pattern, pattern.flags)
        self.flags = self.tree.state.flags
        self.text, self.count, self.limit, self.groups = text, 0, limit, {}

    def search_all(self):
        """What `finditer` does; returns the number of characters looked at."""
        at = 0
        while at <= len(self.text):
            end = self.first(list(self.tree), at)
            at = end if end is not None and end > at else at + 1
        return self.count

    def first(self, items, at):
        return next(iter(self.walk(items, at)), None)

    def look(self, test, at):
        self.count += 1
        if self.count > self.limit:
            raise TooMany
        return at < len(self.text) and test(self.text[at])

    def walk(self, items, at):
        if not items:
            yield at
            return
        (op, arg), rest = items[0], items[1:]
        for end in self.one(op, arg, at):
            yield from self.walk(rest, end)

    def one(self, op, arg, at):
        if op in (c.LITERAL, c.NOT_LITERAL, c.ANY, c.IN):
            if self.look(self.test(op, arg), at):
                yield at + 1
        elif op is c.BRANCH:
            for branch in arg[1]:
                yield from self.walk(list(branch), at)
        elif op is c.SUBPATTERN:
            for end in self.walk(list(arg[3]), at):
                if arg[0]:
                    self.groups[arg[0]] = self.text[at:end]
                yield end
        elif op in (c.MAX_REPEAT, c.MIN_REPEAT, c.POSSESSIVE_REPEAT):
            yield from self.repeat(op, *arg, at)
        elif op in (c.ASSERT, c.ASSERT_NOT):
            direction, inner = arg
            start = at if direction == 1 else at - inner.getwidth()[1]
            found = start >= 0 and any(direction == 1 or end == at for end in self.walk(list(inner), start))
            if found == (op is c.ASSERT):
                yield at
        elif op is c.AT:
            if self.position(arg, at):
                yield at
        elif op is c.GROUPREF:
            value = self.groups.get(arg, "")
            self.count += len(value)
            if self.text.startswith(value, at):
                yield at + len(value)
        else:
            raise NotImplementedError(op)

    def repeat(self, op, low, high, inner, at):
        items = list(inner)
        single = len(items) == 1 and items[0][0] in (c.LITERAL, c.NOT_LITERAL, c.ANY, c.IN)
        if single:
            test, end, ends = self.test(*items[0]), at, [at]
            while len(ends) <= (high if high is not c.MAXREPEAT else len(self.text)) and self.look(test, end):
                end += 1
                ends.append(end)
                if op is c.MIN_REPEAT and len(ends) > low:
                    yield ends[-2] if len(ends) - 2 >= low else end
            chosen = ends[low:]
            yield from reversed(chosen) if op is c.MAX_REPEAT else chosen[-1:]
            return
        yield from self.group_repeat(op, low, high, items, at, 0)

    def group_repeat(self, op, low, high, items, at, done):
        if op is c.MIN_REPEAT and done >= low:
            yield at
        if high is c.MAXREPEAT or done < high:
            for end in self.walk(items, at):
                if end > at or done < low:
                    yield from self.group_repeat(op, low, high, items, end, done + 1)
        if op is not c.MIN_REPEAT and done >= low:
            yield at

    def position(self, where, at):
        word = lambda i: 0 <= i < len(self.text) and (self.text[i].isalnum() or self.text[i] == "_")  # noqa: E731
        if where in (c.AT_BEGINNING, c.AT_BEGINNING_STRING):
            return at == 0 or (where is c.AT_BEGINNING and self.flags & re.M and self.text[at - 1] == "\n")
        if where in (c.AT_END, c.AT_END_STRING):
            return at == len(self.text) or (where is c.AT_END and self.text[at:] == "\n")
        return (word(at) != word(at - 1)) == (where is c.AT_BOUNDARY)

    def test(self, op, arg):
        if op is c.ANY:
            return (lambda ch: True) if self.flags & re.S else (lambda ch: ch != "\n")
        if op is c.IN:
            tests = [self.member(*item) for item in arg if item[0] is not c.NEGATE]
            negated = arg[0][0] is c.NEGATE
            return lambda ch: any(test(ch) for test in tests) != negated
        fold = (lambda ch: ch.lower()) if self.flags & re.I else (lambda ch: ch)
        wanted = fold(chr(arg))
        return lambda ch: (fold(ch) == wanted) == (op is c.LITERAL)

    def member(self, op, arg):
        if op is c.LITERAL:
            return self.test(op, arg)
        if op is c.RANGE:
            low, high = arg
            both = self.flags & re.I
            return lambda ch: low <= ord(ch) <= high or (both and any(low <= ord(x) <= high for x in ch.swapcase()))
        classes = {
            c.CATEGORY_DIGIT: str.isdecimal, c.CATEGORY_NOT_DIGIT: lambda ch: not ch.isdecimal(),
            c.CATEGORY_SPACE: str.isspace, c.CATEGORY_NOT_SPACE: lambda ch: not ch.isspace(),
            c.CATEGORY_WORD: lambda ch: ch.isalnum() or ch == "_",
            c.CATEGORY_NOT_WORD: lambda ch: not (ch.isalnum() or ch == "_"),
        }  # fmt: skip
        return classes[arg]


def steps(pattern, text, limit=10**6):
    """Characters that finding all matches of `pattern` in `text` looks at; `limit` where it is that many or more."""
    try:
        return Matcher(pattern, text, limit).search_all()
    except (TooMany, RecursionError):
        return limit
