"""Errors that a user can act on, and what is wrong with a recipe. It imports nothing, so every package can use it."""

from __future__ import annotations

from dataclasses import dataclass

from configs.text import counted

_SHOWN = 50


class UserError(Exception):
    """Something in the user's hands is wrong. The text gives the value, what is allowed, and how to fix it.

    The command line prints the text of this class and of its subclasses. All other errors keep their traceback.
    """


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake.

    Example: `Problem("rl.steps", "my.yaml:7", "rl.steps = 'ten': must be a whole number")`.
    """

    key: str  # dotted path; empty where the whole file is meant
    where: str  # `file:line`, `file` or `command line`
    message: str  # the value, what is allowed, the fix

    def __str__(self) -> str:
        return f"{self.where}: {self.message}"


class ConfigError(UserError, ValueError):
    """A recipe that cannot be run; `problems` lists everything found, and the text shows all of it."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__(problems)  # as the only argument, so that the error survives pickling between processes
        self.problems = problems

    def __str__(self) -> str:
        if len(self.problems) == 1:
            return str(self.problems[0])
        more = len(self.problems) - _SHOWN
        rest = [f"  and {more} more"] if more > 0 else []
        shown = [f"  {p}" for p in self.problems[:_SHOWN]]
        return "\n".join([f"{counted(len(self.problems), 'problem')} in the recipe:", *shown, *rest])
