"""docs/configuration.md lists exactly the schema's keys, with their types and defaults."""

import json
import re
from pathlib import Path

import pytest

from configs.keys import REQUIRED, describe, is_list, schema_keys, section_of

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"


def documented():
    """Dotted key -> (type, default) of every row, under every section that its heading names."""
    found = {}
    for part in re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        for section in re.findall(r"`([^`]+)`", part.partition("\n")[0]) or [""]:
            for name, kind, default in re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \| .+ \|$", part, re.MULTILINE):
                key = f"{section}.{name}".lstrip(".")
                assert key not in found, f"{key} has two rows"
                found[key] = (kind, default)
    return found


def is_row(key):
    """A section that is always there has a heading, but no row."""
    return key.pattern[-1] != "N" and (section_of(key.annotation) is None or key.default is None)


def expected(key):
    """The type and default as the page shows them; None for the default of a list, which the page says in words."""
    if is_list(key.annotation):
        return "a list", None
    kind = "a section, or null" if section_of(key.annotation) else describe(key.annotation)
    if key.default is REQUIRED:
        return kind, "*required*"
    return kind, f"`{key.default}`" if isinstance(key.default, str) else f"`{json.dumps(key.default)}`"


KEYS = {".".join(key.pattern): key for key in schema_keys().values() if is_row(key)}


def test_the_page_has_exactly_the_schemas_keys():
    assert sorted(documented()) == sorted(KEYS)


@pytest.mark.parametrize("name", KEYS)
def test_a_row_says_the_type_and_the_default(name):
    if name not in documented():
        pytest.skip("has no row, which the test above tells")
    kind, default = expected(KEYS[name])
    shown_kind, shown_default = documented()[name]
    assert shown_kind == kind
    assert default is None or shown_default == default
