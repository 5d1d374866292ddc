"""What data and models say is harmless where it is shown."""

import time

import pytest

from configs.text import printable, shorten

HOSTILE = {
    "cursor and colours": "a\x1b[2J\x1b[31mb",
    "title": "a\x1b]0;owned\x07b",
    "a link of OSC 8": "\x1b]8;;http://evil\x1b\\click\x1b]8;;\x1b\\",
    "C1": "a\x9b31mb\x9d8;;x\x9c",
    "direction": "user\u202etxt.exe\u2066\u2069\u200f",
    "invisible": "a\u200bb\ufeffc\u00add\u2060",
    "tags": "a\U000e0041\U000e007f",
    "separators": "a\u2028b\u2029c\x85d",
    "half a surrogate": "a\ud800b",
    "line breaks": "a\r\nb\x0bc\x0cd\be",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_nothing_in_a_text_is_obeyed(text):
    shown = printable(text)
    assert len(shown) == len(text)
    assert shown.encode("utf-8")
    assert not any(ord(char) < 32 or 0x7F <= ord(char) < 0xA0 for char in shown)
    assert not set("\u202e\u2066\u2069\u200f\u200b\ufeff\u00ad\u2060\u2028\u2029\U000e0041") & set(shown)


def test_every_language_stays_as_it_is():
    for text in ("共12个　红色。", "می\u200cخواهم", "👨\u200d👩\u200d👧 ❤️", "naïve\u00a0é", "∠A = 25°", "a\U000f0001"):
        assert printable(text) == text


def test_what_is_to_be_kept_is_kept():
    assert printable("a\n\tb\r\x1b", keep="\n\t") == "a\n\tb??"
    assert printable("a\r\x1b", keep="\r") == "a\r?"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://me:pass@head:8265/x", "http://***@head:8265/x"),
        ("redis://:p%40ss@10.0.0.5:6379", "redis://***@10.0.0.5:6379"),
        ("https://h/v1?api_key=abc&n=2", "https://h/v1?api_key=***&n=2"),
        (
            "https://s3/x?X-Amz-Signature=0a1b&X-Amz-Security-Token=cd",
            "https://s3/x?X-Amz-Signature=***&X-Amz-Security-Token=***",
        ),
        ("token hf_abcdefghijklmnopqrst here", "token hf_*** here"),
        ("Authorization: Bearer abcdefghij.klm", "Authorization: Bearer ***"),
        ("mail a@b.org about https://h/a@b", "mail a@b.org about https://h/a@b"),
        ("https://h/v1?n=2&monkey_count=3", "https://h/v1?n=2&monkey_count=3"),
        ("the word hf_hub and sk-learn", "the word hf_hub and sk-learn"),
    ],
)
def test_passwords_and_tokens_are_not_shown(text, shown):
    assert printable(text) == shown


def test_a_megabyte_is_cut_and_takes_no_time():
    began = time.process_time()
    assert len(shorten("\x1b[31m" * 250_000)) <= 300
    assert len(printable("://" + "a" * 10**6)) == 10**6 + 3
    assert time.process_time() - began < 1
