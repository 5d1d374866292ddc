"""The error for a row that is left out."""

from __future__ import annotations


class BadRow(ValueError):
    """A row that cannot become a task; `reason` is short and the same for all rows with this fault."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason, self.detail = reason, detail
