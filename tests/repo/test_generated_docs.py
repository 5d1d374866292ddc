"""The generated parts of docs/ equal the code."""

import dataclasses
import re
import subprocess
import sys

from configs import keys
from configs.stage import StageConfig
from configs.stage_kinds import STAGE_KINDS

KINDS = {(name,) for name in STAGE_KINDS}
COMMON = {(field.name,) for field in dataclasses.fields(StageConfig)}


def test_the_pages_equal_the_code(root):
    done = subprocess.run([sys.executable, "docs/generate.py", "--check"], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_page_that_differs_is_reported_and_mended(root, tmp_path):
    for name in ("generate.py", "configuration.md", "metrics.md", "troubleshooting.md"):
        (tmp_path / name).write_text((root / "docs" / name).read_text(encoding="utf-8"), encoding="utf-8")
    page = tmp_path / "configuration.md"
    right = page.read_text(encoding="utf-8")
    page.write_text(right.replace("- `seed` (", "- `sed` ("), encoding="utf-8")

    def generate(*arguments):
        command = [sys.executable, str(tmp_path / "generate.py"), *arguments]
        return subprocess.run(command, cwd=root, capture_output=True, text=True)

    checked = generate("--check")
    assert (checked.returncode, checked.stdout.count("python docs/generate.py")) == (1, 1)
    assert generate().returncode == 0
    assert page.read_text(encoding="utf-8") == right


def test_every_key_has_a_meaning(root):
    page = (root / "docs" / "configuration.md").read_text(encoding="utf-8").replace("\n  ", " ")
    assert not re.findall(r"^- `\w+` \(.*\): *$", page, re.MULTILINE)


def test_every_section_has_its_keys_under_its_heading(root):
    """A heading names the places of a section in a recipe; the list under it has exactly the section's keys.

    Keys of one kind of stage stand under the kind's name, those of every stage under `stages.N`.
    """
    page = (root / "docs" / "configuration.md").read_text(encoding="utf-8")
    found = set()
    for part in re.split(r"^## ", page, flags=re.MULTILINE)[1:]:
        for section in re.findall(r"`([^`]+)`", part.partition("\n")[0]) or [""]:
            found |= {f"{section}.{name}".lstrip(".") for name in re.findall(r"^- `(\w+)` \(", part, re.MULTILINE)}
    has_row = {
        ".".join(key.pattern[2:] if key.pattern[2:3] in KINDS else key.pattern)
        for key in keys.schema_keys().values()
        if key.pattern[-1] != "N" and (keys.section_of(key.annotation) is None or key.default is None)
        if not (key.pattern[2:3] in KINDS and key.pattern[3:4] in COMMON)
    }
    assert found == has_row
