"""For `make docs`: links from a page to a file outside of docs/ lead to the repository."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

_OUTSIDE = re.compile(r"\]\(\.\./([^)\s]+)\)")
_ROOT = Path(__file__).resolve().parents[1]


def on_page_markdown(markdown: str, config: Any, **_: Any) -> str:
    """A hook of MkDocs: called with the text of each page."""

    def to_repository(match: re.Match[str]) -> str:
        kind = "tree" if (_ROOT / match[1].partition("#")[0]).is_dir() else "blob"
        return f"]({config['extra']['repository']}/{kind}/main/{match[1]})"

    return _OUTSIDE.sub(to_repository, markdown)
