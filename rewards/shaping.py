"""Rewards that do not look at the reference: format, length, overlong, repetition, language. Pure functions of lists.

`TERMS` is the table of those that a recipe can name in `rl.rewards`. What needs lengths in tokens has keys of its own:
`rl.length_reward` and `rl.overlong_buffer`.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rewards.extraction import split_thinking

_COMMAND = re.compile(r"\\[A-Za-z]+|<[^<>\s]{1,40}>|◁/?think▷")
_LETTERS = re.compile(r"[^\W\d_]+")
_SHORTEST_WORD = 3  # letters of an alphabet; shorter ones are variables and units in any language
_SCRIPTS = ("LATIN", "CYRILLIC", "CJK", "HIRAGANA", "KATAKANA", "HANGUL", "ARABIC", "HEBREW", "DEVANAGARI", "THAI")
_TOGETHER = {  # a script -> those in whose company it is at home
    "CJK": {"HIRAGANA", "KATAKANA", "HANGUL"},
    "HIRAGANA": {"KATAKANA"},
    "KATAKANA": {"HIRAGANA"},
}
_ONE_BY_ONE = frozenset({"CJK", "HIRAGANA", "KATAKANA", "THAI"})  # written without spaces: a character is a unit
_LONGEST = 200_000  # characters that are looked at


def format_reward(text: str) -> float:
    """1.0 where `text` is a closed, non-empty think block followed by a non-empty answer, else 0.0.

    A response that answers without thinking gets 0: the wanted format is the thinking one.
    """
    thinking = split_thinking(text)
    thought = (thinking.thought or "").strip()
    return float(thinking.closed and bool(thought) and bool(thinking.answer_text.strip()))


def length_rewards(lengths: Sequence[int], corrects: Sequence[bool]) -> list[float]:
    """Length reward of the responses to one prompt (Kimi k1.5, arXiv:2501.12599, §2.3.3), each in [-0.5, 0.5].

    With `lambda_i = 0.5 - (len_i - min_len) / (max_len - min_len)` a correct response gets `lambda_i` and a wrong one
    `min(0, lambda_i)`; all get 0 where every length is the same. `lengths` is in tokens.

    Raises ValueError where the two lists differ in length.
    """
    if len(lengths) != len(corrects):
        raise ValueError(f"{len(lengths)} lengths for {len(corrects)} verdicts: give one of each for every response")
    if not lengths or max(lengths) == min(lengths):
        return [0.0] * len(lengths)
    shortest, spread = min(lengths), max(lengths) - min(lengths)
    scaled = [0.5 - (length - shortest) / spread for length in lengths]
    return [value if correct else min(0.0, value) for value, correct in zip(scaled, corrects, strict=True)]


def overlong_penalty(length: int, *, limit: int, buffer: int) -> float:
    """Soft punishment of long answers (DAPO, arXiv:2503.14476, §3.4, eq. 13), in [-1, 0].

    0 up to `limit - buffer` tokens, then linearly down to -1 at `limit`. A `buffer` of 0 punishes nothing.
    """
    excess = length - (limit - buffer)
    return -min(1.0, excess / buffer) if buffer > 0 and excess > 0 else 0.0


def repetition_penalties(texts: Sequence[str], *, n: int = 4) -> list[float]:
    """Minus the share of n-grams that repeat an earlier one, in (-1, 0].

    Kimi k1.5 (§2.6.2) penalises repetition without a formula; this is the n-gram form of arXiv:2502.03373, over words
    (and single characters of Chinese or Japanese). A text of fewer than 2 n-grams gets 0. Raises ValueError for n < 1.
    """
    if n < 1:
        raise ValueError(f"n = {n}: must be 1 or more")
    penalties = []
    for text in texts:
        units = _units(text)
        grams = list(zip(*(units[at:] for at in range(n)), strict=False))
        penalties.append(len(set(grams)) / len(grams) - 1.0 if len(grams) > 1 else 0.0)
    return penalties


def language_penalties(texts: Sequence[str], questions: Sequence[str]) -> list[float]:
    """Minus the share of words in a script that the question does not use, in [-1, 0].

    DeepSeek-R1's language consistency (arXiv:2501.12948, §2.3.2) with scripts for languages. Words of one or two
    letters, LaTeX commands and tags do not count; a question without words gives 0 to all. Raises ValueError where the
    lists differ in length.
    """
    if len(texts) != len(questions):
        raise ValueError(f"{len(texts)} texts for {len(questions)} questions: give the question of each")
    penalties = []
    for text, question in zip(texts, questions, strict=True):
        of_question, used = _scripts(question), _scripts(text)
        allowed = set(of_question) | {s for s, friends in _TOGETHER.items() if friends & of_question.keys()}
        foreign = sum(count for script, count in used.items() if script not in allowed)
        penalties.append(-foreign / used.total() if allowed and used else 0.0)
    return penalties


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What terms see: responses, and the questions that they answer."""

    texts: Sequence[str]
    questions: Sequence[str]


Term = Callable[[Batch], list[float]]


def _format() -> Term:
    return lambda batch: [format_reward(text) for text in batch.texts]


def _repetition(*, n: int = 4) -> Term:
    repetition_penalties((), n=n)
    return lambda batch: repetition_penalties(batch.texts, n=n)


def _language() -> Term:
    return lambda batch: language_penalties(batch.texts, batch.questions)


TERMS: Mapping[str, Callable[..., Term]] = {
    "format": _format,
    "repetition": _repetition,
    "language": _language,
}
"""Name to a function that makes the term; its keyword-only parameters are the options: `repetition(n=6)`."""


def _units(text: str) -> list[str]:
    """Words and signs, and the single characters of scripts without spaces; case does not count."""
    units: list[str] = []
    for word in re.findall(r"\w+|[^\w\s]", text[-_LONGEST:].casefold()):
        units += [word] if word.isascii() or _script(word[0]) not in _ONE_BY_ONE else list(word)
    return units


def _scripts(text: str) -> Counter[str]:
    """How many words (or characters, where there are no spaces) of each script there are."""
    counts: Counter[str] = Counter()
    for word in _LETTERS.findall(_COMMAND.sub(" ", text[-_LONGEST:])):
        for script, size in Counter(_script(char) for char in word).items():
            if script in _ONE_BY_ONE:
                counts[script] += size
            elif script is not None and size >= _SHORTEST_WORD:
                counts[script] += 1
    return counts


def _script(char: str) -> str | None:
    """The script of a letter; None for Greek and for what is used in formulas of every language."""
    if char.isascii():
        return "LATIN" if char.isalpha() else None
    name = unicodedata.name(char, "").partition(" ")[0]
    return name if name in _SCRIPTS else None
