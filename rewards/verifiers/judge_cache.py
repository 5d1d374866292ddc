"""Verdicts of a judge on disk: one small file each, named by a hash of everything that the verdict depends on."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def default_folder() -> Path:
    """`~/.cache/thinkvl/judge`, or where XDG_CACHE_HOME says."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "thinkvl" / "judge"


class JudgeCache:
    """Yes or no by request. Safe for several threads and processes: files are written aside and renamed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, request: Mapping[str, Any]) -> bool | None:
        """What was found for `request`, None where nothing was, or where its file is broken."""
        try:
            value = json.loads(self._file(request).read_bytes())
        except (OSError, ValueError):
            return None
        answer = value.get("equivalent") if isinstance(value, dict) else None
        return answer if isinstance(answer, bool) else None

    def put(self, request: Mapping[str, Any], equivalent: bool) -> None:
        """Remember an answer. A disk that is full or read-only costs the memory, not the verdict."""
        file = self._file(request)
        with contextlib.suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=file.parent)
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as aside:
                    json.dump({"equivalent": equivalent, "request": request}, aside)
                Path(name).replace(file)
            except OSError:
                Path(name).unlink(missing_ok=True)
                raise

    def _file(self, request: Mapping[str, Any]) -> Path:
        digest = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
        return self._folder / digest[:2] / f"{digest}.json"
