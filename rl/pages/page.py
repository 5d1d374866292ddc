"""Assembles a page: template, styles, scripts and data in one HTML file under a strict content security policy."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from configs.files import write_text

ASSETS = Path(__file__).parent / "assets"


REPORT_STYLES = ("base.css", "report.css")  # of all pages but the book
REPORT_SCRIPTS = ("theme.js",)


def write_page(
    path: Path, template: str, values: Mapping[str, object], *, styles: Sequence[str], scripts: Sequence[str]
) -> None:
    """Write the page that `render_page` returns, atomically. Raises OSError."""
    write_text(path, render_page(template, values, styles=styles, scripts=scripts))


def render_page(template: str, values: Mapping[str, object], *, styles: Sequence[str], scripts: Sequence[str]) -> str:
    """A template of `assets/` with `values`, as the text of one file.

    The page gets the `styles` and `scripts`, files of `assets/`, and a policy that allows these alone, by their hashes.
    A text in `values` is escaped; `packed` data are safe in a script element of type `text/plain`.
    """
    style = "\n".join(_asset(name) for name in styles)
    script = "\n".join(_asset(name) for name in scripts)
    page = _environment().get_template(template)
    fixed = {"style": Markup(style), "script": Markup(script), "policy": policy(style, script)}
    return page.render(**values, **fixed)


def policy(style: str, script: str) -> str:
    """The content security policy: this style and this script, images in data URIs, and nothing from anywhere else.

    Trusted types make the browser refuse every assignment of markup (`innerHTML` and the like), in our script too.
    """
    return (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )


def packed(value: object) -> str:
    """`value` as JSON, gzip and base64: letters, digits, `+`, `/` and `=`, so that no parser of HTML sees markup."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode("ascii"), compresslevel=6, mtime=0)).decode("ascii")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


@cache
def _asset(name: str) -> str:
    """A file of `assets/`, as an element can hold it: a closing tag inside would end the element."""
    text = (ASSETS / name).read_text(encoding="utf-8")
    if "</" in text:
        raise ValueError(f"{name}: holds `</`, which may end its element")
    return text


@cache
def _environment() -> Environment:
    return Environment(loader=FileSystemLoader(ASSETS), autoescape=True, undefined=StrictUndefined)
