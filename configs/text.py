"""Text for people: what data, models and libraries say, made harmless to show, cut to a length, and hints at names."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable

_OBEYED = ("Cc", "Cf", "Cs", "Zl", "Zp")  # control and format characters, lone surrogates, separators of lines
_JOINERS = "\u200c\u200d"  # of Persian, of Indian scripts and of emoji; they move nothing
_PASSWORD = re.compile(r"(?<=://)[^/\s@\"'<>]+@")
_QUERY = re.compile(  # `?api_key=...`, `&X-Amz-Signature=...`
    r"([?&](?:[\w-]*(?:token|secret|signature|password|credential)|\w*key|sig|pwd)=)[^&\s\"'#<>]+", re.IGNORECASE
)
_TOKEN = re.compile(r"\b(hf_|sk-|ghp_|xox[bp]-)[\w-]{16,}|(\bBearer )[\w.~+/-]{8,}=*")


class _Harmless(dict[int, str]):
    """What each character becomes; worked out when it is first seen."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        self[code] = "?" if unicodedata.category(char) in _OBEYED and char not in _JOINERS else char
        return self[code]


_HARMLESS = _Harmless()
_KEPT = {keep: _Harmless({ord(char): char for char in keep}) for keep in ("\n", "\n\t")}


def printable(text: str, *, keep: str = "") -> str:
    """`text` as it may be shown or written into a report: nothing in it is obeyed, and no password is in it.

    Control and format characters (escape sequences, links, changes of direction) and lone surrogates become `?`;
    passwords and tokens in addresses, and tokens of known forms, become `***`. `keep` lists characters that stay,
    such as line breaks.
    """
    if text.isascii() and text.isprintable():
        return without_secrets(text)
    table = _HARMLESS if not keep else _KEPT.get(keep) or _Harmless({ord(char): char for char in keep})
    return without_secrets(text.translate(table))


def without_secrets(text: str) -> str:
    """`text` with `***` for passwords and tokens in addresses, and for tokens of known forms."""
    if "://" in text:
        text = _QUERY.sub(r"\1***", _PASSWORD.sub("***@", text))
    return _TOKEN.sub(lambda found: f"{found[1] or found[2]}***", text)


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


def counted(count: float, noun: str) -> str:
    """A number and what it counts, in the plural unless it is 1. Example: `1 node`, `1,000 tasks`, `0.5 GPUs`."""
    return f"{count:,{'' if isinstance(count, int) else 'g'}} {noun}{'' if count == 1 else 's'}"


def with_article(noun: str) -> str:
    """`a` or `an` with a noun, such as the name of a type. Example: `an int`, `a dict`, `a uint8`, `an ndarray`."""
    vowel = noun[:1].lower() in tuple("aeio") or noun.startswith("nd")
    return f"{'an' if vowel else 'a'} {noun}"
