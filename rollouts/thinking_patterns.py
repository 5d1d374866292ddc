"""Counts patterns of thinking, in data sets and rollouts: planning, evaluation, reflection, exploration (k1.5 §2.2).

`PATTERNS` is the word list of each, in English and Chinese. A chain is counted by how often their words occur.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

PATTERNS: Mapping[str, tuple[str, ...]] = {
    "planning": (
        *("first,", "first i", "let me start", "let's start", "step by step", "the plan", "my approach", "i need to"),
        *("we need to", "to solve this", "break this down", "break it down", "next, i"),
        *("首先", "第一步", "第二步", "接下来", "思路", "步骤", "需要先", "我们先", "分步"),
    ),
    "evaluation": (
        *("let me check", "let's check", "let me verify", "let's verify", "double-check", "double check", "to verify"),
        *("check:", "checking", "plug it back", "substitute back", "sanity check", "is this right", "does this match"),
        *("检查", "验证", "验算", "代入检验", "核对", "是否正确", "确认一下"),
    ),
    "reflection": (
        *("wait", "hmm", "actually,", "i made a mistake", "that's wrong", "that is wrong", "that's not right"),
        *("on second thought", "let me reconsider", "let me rethink", "i misread", "correction:", "oops"),
        *("等等", "不对", "其实", "我错了", "弄错", "重新考虑", "重新想", "回过头", "反思"),
    ),
    "exploration": (
        *("alternatively", "another way", "another approach", "a different approach", "what if", "let me try"),
        *("let's try", "suppose", "or maybe", "one possibility", "other possibility", "instead, i"),
        *("或者", "另一种", "换一种", "换个思路", "试试", "假设", "如果换", "还有一种可能"),
    ),
}


def _any_of(words: tuple[str, ...]) -> re.Pattern[str]:
    """A pattern for any of the words or phrases; alphabetic ones match whole words only."""
    whole = (rf"(?<!\w){re.escape(w)}" + r"(?!\w)" * w[-1].isalpha() if w.isascii() else re.escape(w) for w in words)
    return re.compile("|".join(whole))


_WORDS = {name: _any_of(words) for name, words in PATTERNS.items()}


def count_patterns(thinking: str) -> dict[str, int]:
    """How often the words of each pattern occur in a chain of thought."""
    text = _normalized(thinking)
    return {name: len(words.findall(text)) for name, words in _WORDS.items()}


def shows_patterns(thinking: str) -> dict[str, bool]:
    """Whether words of each pattern occur in a chain of thought: `count_patterns` above 0, many times faster."""
    text = _normalized(thinking)
    return {name: any(_occurs(word, text) for word in words) for name, words in PATTERNS.items()}


def _normalized(thinking: str) -> str:
    return thinking.casefold().replace("’", "'")


def _occurs(word: str, text: str) -> bool:
    """Whether `_any_of((word,))` matches anywhere. Most words do not occur at all, which `find` says at once."""
    at = text.find(word)
    while at >= 0:
        end = at + len(word)
        joined = word[-1].isalpha() and _is_letter(text[end : end + 1])
        if not word.isascii() or not (joined or (at > 0 and _is_letter(text[at - 1]))):
            return True
        at = text.find(word, at + 1)
    return False


def _is_letter(character: str) -> bool:
    """Regular expressions' `\\w`."""
    return character.isalnum() or character == "_"
