"""What a check says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "fault"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """The outcome of a check: the value that was found, what is allowed, and what to do where it is not.

    A `fault` stops a run, or has stopped it; with a `warning` it runs, slowly or at a risk.
    """

    level: Level
    value: str
    allowed: str = ""
    fix: str = ""


def ok(value: str, allowed: str = "") -> CheckResult:
    """Nothing to do."""
    return CheckResult(level="ok", value=value, allowed=allowed)


def warning(value: str, allowed: str, fix: str) -> CheckResult:
    """The run works, slowly or at a risk."""
    return CheckResult(level="warning", value=value, allowed=allowed, fix=fix)


def fault(value: str, allowed: str, fix: str) -> CheckResult:
    """The run cannot work, or has ended, until this is mended."""
    return CheckResult(level="fault", value=value, allowed=allowed, fix=fix)


def least(value: float, *, needed: float, wished: float, unit: str, fix: str) -> CheckResult:
    """A size in bytes that is to be `needed` at least, better `wished`. `unit` says of what, such as `free`."""
    shown, allowed = f"{gib(value)} {unit}", f"at least {gib(needed)}, better {gib(wished)}"
    if value < needed:
        return fault(shown, allowed, fix)
    return warning(shown, allowed, fix) if value < wished else ok(shown, f"at least {gib(needed)}")


def gib(size: float) -> str:
    """A number of bytes, for people."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
