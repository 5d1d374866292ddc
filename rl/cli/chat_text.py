"""Turns streamed tokens into text on a console: whole characters, with thinking separate from the answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from rich.text import Text

from rewards.extraction import THINK_MARKS
from rl.run.console import PlainConsole

_OPEN, _CLOSE = zip(*THINK_MARKS, strict=True)


class TextStream:
    """Decodes token by token; a character whose bytes are spread over tokens is held back until it is complete.

    The tokenizer is byte-level: after a complete character, the next tokens can be decoded on their own.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._held: list[int] = []

    def add(self, token_id: int) -> str:
        """The text that this token completes, perhaps empty."""
        self._held.append(token_id)
        text = self._decode(self._held)
        if text.endswith("�"):
            return ""
        self._held = []
        return text

    def finish(self) -> str:
        """The text that was held back; an incomplete character becomes �."""
        text = self._decode(self._held) if self._held else ""
        self._held = []
        return text


class ThinkingSplitter:
    """Splits streamed text into pieces of thinking and of answer, without the think marks.

    Example: `feed("◁thi")` yields nothing, `feed("nk▷ 7+4")` yields `(True, " 7+4")`.
    """

    def __init__(self) -> None:
        self.thinking = False
        self._held = ""

    def feed(self, text: str) -> Iterator[tuple[bool, str]]:
        """Yield pieces as (is thinking, text); what may begin a think mark is held back until more text comes."""
        self._held += text
        while True:
            marks = _CLOSE if self.thinking else _OPEN
            found = [(at, mark) for mark in marks if (at := self._held.find(mark)) >= 0]
            if not found:
                break
            at, mark = min(found)
            if at:
                yield self.thinking, self._held[:at]
            self._held = self._held[at + len(mark) :]
            self.thinking = not self.thinking
        keep = _unfinished(self._held, marks)
        certain, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        if certain:
            yield self.thinking, certain

    def finish(self) -> Iterator[tuple[bool, str]]:
        """Yield the text that was held back."""
        if self._held:
            yield self.thinking, self._held
        self._held = ""


class AnswerPrinter:
    """Prints streamed text on a console: thinking dimmed, an empty line, then the answer."""

    def __init__(self, console: PlainConsole) -> None:
        self._console = console
        self._splitter = ThinkingSplitter()
        self._last: bool | None = None  # whether the last piece was thinking

    def feed(self, text: str) -> None:
        """Print `text`, except an end that may begin a think mark."""
        for thinking, piece in self._splitter.feed(text):
            self._print(thinking, piece)

    def close(self) -> None:
        """Print the rest and end the line."""
        for thinking, piece in self._splitter.finish():
            self._print(thinking, piece)
        self._console.print()

    def _print(self, thinking: bool, piece: str) -> None:
        if self._last is not thinking:
            piece = piece.lstrip()
            if not piece:
                return
            if self._last is not None:
                self._console.print("\n")
            self._last = thinking
        self._console.print(Text(piece, style="dim" if thinking else ""), end="")


def _unfinished(text: str, marks: Sequence[str]) -> int:
    """Length of the longest suffix of `text` that is the beginning of one of the marks."""
    longest = max(len(mark) for mark in marks) - 1
    for length in range(min(longest, len(text)), 0, -1):
        if any(mark.startswith(text[-length:]) for mark in marks):
            return length
    return 0
