"""The keys, read from the schema."""

from typing import Any, Literal

import pytest

from configs import keys
from configs.keys import REQUIRED


@pytest.mark.parametrize(
    ("path", "default"),
    [
        (("stages", 0, "rl", "steps"), REQUIRED),
        (("stages", 0, "rl", "optimizer", "learning_rate"), 1e-6),
        (("data", "train", 3, "limit"), None),
        (("threads",), None),
    ],
)
def test_a_key_is_found_with_its_default(path, default):
    key = keys.find(path)
    assert key is not None
    assert key.default == default


@pytest.mark.parametrize(
    "path",
    [("stages", 0, "rl", "stepz"), ("data", "train", "use"), ("data", 0), ("stages", 0, "rl", "steps", "x"), ("N",)],
)
def test_a_path_that_is_no_key(path):
    assert keys.find(path) is None


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (int, "a whole number"),
        (float | None, "a number, or null"),
        (Literal["a", "b"], "one of a, b"),
        (dict[str, Any], "a mapping of names to any value"),
    ],
)
def test_a_type_in_words(annotation, words):
    assert keys.describe(annotation) == words


def test_every_annotation_of_the_schema_has_words():
    assert all(keys.describe(key.annotation) for key in keys.schema_keys().values())


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (("stages", 0, "rl", "tau"), ("stages", 0, "rl", "loss", "tau")),
        (("stages", 0, "rl", "loss", "tau"), ("stages", 0, "rl", "loss", "tau")),
        (("stages", 0, "rl", "steps"), ("stages", 0, "rl", "steps")),
        (("steps",), ("steps",)),  # several keys end so
        (("stages", 0, "rl", "use"), ("stages", 0, "rl", "use")),  # the only key is in a list: which item is meant?
        (("data", "train", 0, "columns", "steps"), ("data", "train", 0, "columns", "steps")),
    ],
)
def test_a_short_key_written_out(path, expected):
    assert keys.written_out(path) == expected


@pytest.mark.parametrize(
    ("path", "inside"),
    [
        (("data", "train", 0, "columns", "image"), True),
        (("data", "train", 0, "options", "a", "b"), True),
        (("data", "train", 0, "columns"), False),
        (("stages", 0, "rl", "steps"), False),
    ],
)
def test_the_users_own_names(path, inside):
    assert keys.is_free(path) is inside
