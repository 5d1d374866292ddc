"""Sentences without end, to make documents long: plain ones from a small grammar, or those of Wikipedia's leads."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from typing import Literal

from rollouts.tasks.splits import Split
from rollouts.tasks.wikipedia_leads import WikipediaLeads

Filler = Literal["sentences", "wikipedia_leads"]

_PEOPLE = ("the baker", "a sailor", "my sister", "the old teacher", "a young farmer", "the doctor", "our neighbour")
_ACTS = ("carried", "found", "painted", "sold", "repaired", "counted", "washed", "forgot")
_THINGS = ("a wooden chair", "the red lamp", "some fresh bread", "an empty box", "two silver spoons", "the small boat")
_PLACES = ("near the river", "behind the church", "in the garden", "at the market", "on the hill", "under the bridge")
_TIMES = ("in the morning", "after the rain", "before dinner", "on a quiet day", "late at night", "in early spring")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


def plain_sentences(rng: random.Random) -> Iterator[str]:
    """Sentences such as `In the morning the baker sold the red lamp at the market.`; none holds a digit."""
    while True:
        person, act, thing, place, time = (rng.choice(words) for words in (_PEOPLE, _ACTS, _THINGS, _PLACES, _TIMES))
        order = rng.choice((f"{time} {person} {act} {thing} {place}", f"{person} {act} {thing} {place} {time}"))
        yield f"{order[0].upper()}{order[1:]}."


def sentences_of(text: str) -> list[str]:
    """The sentences of a text, line breaks taken for spaces."""
    return [sentence for sentence in _SENTENCE_END.split(" ".join(text.split())) if sentence]


def open_filler(filler: Filler, split: Split) -> Callable[[random.Random], Iterator[str]]:
    """A function that starts an endless stream of sentences at a random place.

    Raises DataSetError where the package of `wikipedia_leads` is missing.
    """
    if filler == "sentences":
        return plain_sentences
    leads = WikipediaLeads(split)

    def stream(rng: random.Random) -> Iterator[str]:
        at = rng.randrange(len(leads))
        while True:
            yield from sentences_of(leads.task(at, 0).text)
            at = (at + 1) % len(leads)

    return stream
