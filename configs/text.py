"""Text for people: error messages on one line, cut to a length, and hints at the name that was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def printable(text: str, *, keep: str = "") -> str:
    """`text` with control and format characters, which a terminal may obey, and lone surrogates replaced by `?`.

    `keep` lists characters that stay, such as line breaks.
    """
    return "".join(char if char.isprintable() or char in keep else "?" for char in text)


def shorten(text: str, limit: int = 300) -> str:
    """`text` on one line of at most `limit` printable characters; white space becomes single spaces."""
    line = printable(" ".join(text.split()))
    return line if len(line) <= limit else f"{line[: limit - 4].rstrip()} ..."


def one_line(error: BaseException, limit: int = 300) -> str:
    """What `error` says on one line, or the name of its type where it says nothing."""
    return shorten(str(error), limit) or type(error).__name__


def nearest_names(name: str, names: Iterable[str], *, most: int = 1) -> list[str]:
    """The names, at most `most`, that are close enough to `name` to be what was meant; the closest first."""
    return difflib.get_close_matches(name, list(names), n=most, cutoff=0.6 if most == 1 else 0.5)


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """` (did you mean 'x'?)` for the nearest of `names`, or an empty text where none is near."""
    close = nearest_names(name, names)
    return f" (did you mean {close[0]!r}?)" if close else ""


def nearest_or_allowed(name: str, allowed: Iterable[str]) -> str:
    """`; did you mean x?`, with up to three names, or `; allowed are a, b` where none is near."""
    names = list(allowed)
    close = nearest_names(name, names, most=3)
    if close:
        return f"; did you mean {' or '.join(close)}?"
    return f"; allowed are {', '.join(names[:12])}" if names else "; there is none"
