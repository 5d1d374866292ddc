"""Other ways to write a reference that are as right: in a box, with thousands separators. Audits try them."""

from __future__ import annotations

import itertools
import re


def in_box(gold: str) -> str:
    r"""`\boxed{gold}`, or a tag around it where its braces forbid a box."""
    depths = list(itertools.accumulate((c == "{") - (c == "}") for c in re.sub(r"\\.", "", gold)))
    safe = not depths or (min(depths) >= 0 and depths[-1] == 0)
    return rf"\boxed{{{gold}}}" if safe else f"<answer>{gold}</answer>"


def is_one_line(gold: str) -> bool:
    """True for a short text on one line that does not look like an answer's mark."""
    return "\n" not in gold and len(gold) <= 200 and "answer" not in gold.lower() and "boxed" not in gold


def with_thousands(gold: str) -> dict[str, str]:
    """The case of a whole number of four digits or more with separators; else no case."""
    whole = re.fullmatch(r"-?[1-9]\d{3,14}", gold)
    return {"thousands separators": rf"\boxed{{{int(gold):,}}}"} if whole is not None else {}


def all_numbers() -> dict[str, str]:
    """Cheats that hold every small number, or a range around all of them."""
    return {"all numbers": in_box(" ".join(str(n) for n in range(101))), "range": "between 0 and 1000000000"}


def yes_and_no() -> dict[str, str]:
    """Cheats that say both."""
    return {"yes and no": "Yes and no.", "yes/no": r"\boxed{yes/no}", "yes, then no": "Yes. No."}


def other_cases_of(gold: str) -> dict[str, str]:
    """A text in upper and lower case, and as LaTeX text."""
    return {
        "upper case": in_box(gold.upper()),
        "lower case": in_box(gold.lower()),
        "LaTeX text": rf"\boxed{{\text{{{gold}}}}}" if in_box(gold).startswith("\\") else in_box(gold),
    }
