"""A terminal for tests: the lines that a person sees after the bytes that a program wrote."""

from __future__ import annotations

import re

_PART = re.compile(r"\x1b\[(\?)?([\d;]*)([A-Za-z])|([\r\n])|([^\x1b\r\n]+)")


class Terminal:
    """Knows what Rich writes: carriage return, line feed, cursor up, erase line, colours, and showing the cursor.

    Lines that are longer than it is wide are wrapped. Any other sequence is an error.
    """

    def __init__(self, columns: int = 80) -> None:
        self.columns = columns
        self.lines = [""]
        self.cursor_shown = True
        self._row = self._column = 0

    def feed(self, text: str) -> None:
        """Take in what a program wrote."""
        at = 0
        while at < len(text):
            part = _PART.match(text, at)
            assert part, f"no terminal obeys {text[at : at + 20]!r}"
            at = part.end()
            private, number, letter, control, plain = part.groups()
            if plain:
                for char in plain:
                    self._put(char)
            elif control:
                self._column = 0
                self._row += control == "\n"
                self.lines += [""] * (self._row + 1 - len(self.lines))
            elif letter == "A":
                self._row = max(0, self._row - int(number or 1))
            elif letter == "K":
                self.lines[self._row] = ""
            elif private:
                assert number == "25"
                self.cursor_shown = letter == "h"
            else:
                assert letter == "m"

    def resize(self, columns: int) -> None:
        """Wrap the lines again, as most terminals do; the cursor stays at the last."""
        self.columns = columns
        cut = [[line[at : at + columns] for at in range(0, max(1, len(line)), columns)] for line in self.lines]
        self.lines = [piece for pieces in cut for piece in pieces]
        self._row, self._column = len(self.lines) - 1, len(self.lines[-1])

    @property
    def text(self) -> str:
        """The lines without trailing blanks."""
        return "\n".join(line.rstrip() for line in self.lines).rstrip()

    def _put(self, char: str) -> None:
        if self._column == self.columns:
            self._row, self._column = self._row + 1, 0
            self.lines += [""] * (self._row + 1 - len(self.lines))
        line = self.lines[self._row].ljust(self._column)
        self.lines[self._row] = line[: self._column] + char + line[self._column + 1 :]
        self._column += 1
