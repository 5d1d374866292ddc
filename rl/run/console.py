"""The console of all commands. Text of data, models and libraries is printed without its control sequences."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleDimensions, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from configs.text import counted, printable

_LONGEST = 20_000  # characters of one text


class PlainConsole(Console):
    """A console that prints text literally.

    Markup, emoji codes and highlighting are off, and texts are not wrapped. Every text goes through `printable`, those
    in tables and progress bars too, and is cut after 20,000 characters. Only styles of our own, such as
    `Text(..., style="dim")`, reach the terminal as escape sequences.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"markup": False, "emoji": False, "highlight": False, **options})
        self._is_forced = bool(options.get("force_terminal"))

    @property
    def can_redraw(self) -> bool:
        """Whether lines can be drawn again in place: on a terminal that is not dumb.

        FORCE_COLOR makes Rich colour a pipe, which still is no terminal.
        """
        return self.is_interactive and (self._is_forced or self.file.isatty())

    @property
    def size(self) -> ConsoleDimensions:
        """Columns and lines of the terminal that is written to, also while the standard streams go elsewhere."""
        if self._width is None and self._height is None and self.can_redraw:
            try:
                found = os.get_terminal_size(self.file.fileno())
            except (OSError, ValueError):  # no file
                pass
            else:
                if found.columns and found.lines:  # those of `script` and of some job runners are 0
                    return ConsoleDimensions(*found)
        return super().size

    @size.setter
    def size(self, new_size: tuple[int, int]) -> None:
        self._width, self._height = new_size

    def print(self, *objects: Any, **options: Any) -> None:
        """Print; a text stays on one line, however wide the terminal is, while tables fit it."""
        texts = all(isinstance(item, str | Text) for item in objects)
        super().print(*objects, **{"soft_wrap": texts, **options})

    def render_str(self, text: str, **options: Any) -> Text:
        """The text without passwords and cut to a length; here it is still in one piece."""
        left_out = len(text) - _LONGEST
        cut = text if left_out <= 0 else f"{text[:_LONGEST]} ... ({counted(left_out, 'more character')})"
        return super().render_str(printable(cut, keep="\n\t"), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments that are written, whatever the text came in: a `Text` or a column of a progress bar."""
        for segment in super().render(renderable, options):
            text = printable(segment.text, keep="\n")
            yield segment if segment.control or text == segment.text else Segment(text, segment.style)
