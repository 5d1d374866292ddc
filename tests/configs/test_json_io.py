"""JSON that is stricter than Python's."""

import math

import pytest

from configs.json_io import parse_json


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1, "b": 2, "a": 3}', "the key 'a' stands twice"),
        ('[{"x": {"y": 1, "y": 1}}]', "the key 'y' stands twice"),
        ('{"a": Infinity}', "Infinity is not a number of JSON"),
        ("[-Infinity]", "-Infinity is not a number of JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a": ' * 100_000, "nested too deeply"),
        ("1" * 10_000, "digits"),
        ("{", "property name"),
        (b"\xff\xfe\xfd", "utf-16|decode"),
        ("", "Expecting value"),
    ],
)
def test_what_is_no_json_is_a_value_error(text, message):
    with pytest.raises(ValueError, match=message):
        parse_json(text)


def test_json_is_read():
    assert math.isnan(parse_json("NaN"))
    assert parse_json('{"a": [1, 2.5, null, true, "\\ud800"], "": {}}') == {"a": [1, 2.5, None, True, "\ud800"], "": {}}
