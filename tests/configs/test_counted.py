"""Numbers with what they count, and nouns with their article."""

import pytest

from configs.text import counted, with_article


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 tasks"), (1, "1 task"), (2, "2 tasks"), (1000, "1,000 tasks"), (1.0, "1 task"), (0.5, "0.5 tasks")],
)
def test_only_one_is_singular(count, text):
    assert counted(count, "task") == text


@pytest.mark.parametrize(
    ("noun", "text"),
    [
        ("int", "an int"),
        ("dict", "a dict"),
        ("uint8", "a uint8"),
        ("ndarray", "an ndarray"),
        ("NoneType", "a NoneType"),
    ],
)
def test_the_article_follows_the_sound(noun, text):
    assert with_article(noun) == text
