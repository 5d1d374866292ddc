"""The two READMEs say the same, and AGENTS.md stays short and true."""

import re

import pytest

FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMENT = re.compile(r"\s+#.*$", re.MULTILINE)
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


@pytest.fixture(scope="module")
def pages(root):
    return [(root / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh.md")]


def headings(page):
    return [len(level) for level in re.findall(r"^(#+) ", FENCE.sub("", page), re.MULTILINE)]


def code(page):
    """The blocks in a language, without their comments."""
    return [COMMENT.sub("", text) for language, text in FENCE.findall(page) if language]


def links(page):
    return set(re.findall(r"\]\(([^)]+)\)", page)) - {"README.md", "README.zh.md"}


def test_both_have_the_same_sections_commands_and_links(pages):
    english, chinese = pages
    assert headings(chinese) == headings(english)
    assert code(chinese) == code(english)
    assert links(chinese) == links(english)


def test_both_have_the_same_figures_in_their_tables(pages):
    english, chinese = (
        [NUMBER.findall(line) for line in page.splitlines() if line.startswith("|") and NUMBER.search(line)]
        for page in pages
    )
    assert [sorted(row) for row in chinese] == [sorted(row) for row in english]


def test_the_page_for_assistants_is_short_and_its_targets_exist(root):
    page, makefile = ((root / name).read_text(encoding="utf-8") for name in ("AGENTS.md", "Makefile"))
    assert len(page.splitlines()) <= 60
    named = set(re.findall(r"make ([a-z-]+)", page))
    assert len(named) >= 5
    assert named <= set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
