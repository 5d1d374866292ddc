"""The end of an error about an unknown name: what may have been meant, or what there is."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest_name(name: str, allowed: Iterable[str]) -> str:
    """`; did you mean 'x'?`, with up to three names, or `; allowed are a, b` where none is near."""
    names = list(allowed)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if near:
        return f"; did you mean {' or '.join(near)}?"
    return f"; allowed are {', '.join(names[:12])}" if names else "; there is none"
