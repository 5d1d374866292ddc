"""For `make docs`: the site has its own copy of mermaid, which draws the diagrams in the reader's browser."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError  # pyright: ignore[reportMissingImports]  # of the extra `docs`
from mkdocs.structure.files import File, Files  # pyright: ignore[reportMissingImports]


def on_files(files: Files, config: Any, **_: Any) -> Files:
    """A hook of MkDocs: called with the files of the site."""
    source = os.environ.get("THINKVL_MERMAID")
    if source is None:
        raise PluginError("THINKVL_MERMAID must name mermaid.min.js: build the site by `make docs`, which fetches it")
    files.append(File.generated(config, "assets/mermaid.min.js", abs_src_path=str(Path(source).resolve())))
    return files
