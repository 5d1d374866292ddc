"""Needle in a haystack: whether a model finds one fact in a long text, by its depth and the length of the text.

A needle document is filler of the stage's own data with one fact in it, and ends with the beginning of that fact: the
model must go on with its value. The fact is a sentence (`The password of Oslo is falcon.`) or an image of digits.

Source: arXiv:2504.07491 §2.3, which measures this up to 131,072 tokens.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Literal, get_args

import numpy as np

from configs.prompt import IMAGE_MARK
from configs.rl import SamplingConfig
from rewards.types import Task
from rl.run.document_rendering import DocumentRenderer
from rollouts.model_family import VisionLanguageProcessor
from rollouts.sources.rollout_pipeline import Decode, Generate
from rollouts.tasks.documents import Document, Example
from rollouts.tasks.filler import plain_sentences, sentences_of
from rollouts.tasks.long_documents import (
    IMAGE_LINE,
    IMAGE_QUESTION,
    PASSWORDS,
    draw_facts,
    draw_number_image,
    fact_question,
)
from rollouts.types import Prompt, Request

Kind = Literal["text", "image"]
KINDS: tuple[Kind, ...] = get_args(Kind)
DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)  # where the fact stands: 0 is the beginning of the text, 1 its end
LENGTHS = (8, 4, 2, 1)  # parts of the context that a text is long
REPEATS = 3  # needles of each kind at each depth and length
_MISLEADING = re.compile("|".join((r"\d", re.escape(IMAGE_MARK), *PASSWORDS)))
_FEWEST_SENTENCES = 50  # of filler; plain ones are added to fewer


@dataclass(frozen=True, slots=True, kw_only=True)
class Needle:
    """A document up to the value that is hidden in it, and that value."""

    kind: Kind
    depth: float
    length: int  # tokens of the prompt and the value, at most
    value: str
    prompt: Prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """How many needles of a kind were found at a depth and a length."""

    kind: Kind
    depth: float
    length: int
    accuracy: float


def make_needles(processor: VisionLanguageProcessor, filler: Sequence[str], *, context: int, seed: int) -> list[Needle]:
    """The needles of a model with a context of `context` tokens: every kind, depth and length, several times.

    `filler` are sentences that hold none of the values. Their pairs and handwriting are those of no training document.
    """
    builder = _Builder(processor, filler)
    return [
        builder.build(kind, depth, context // part, f"{seed}/{kind}/{depth}/{part}/{number}")
        for kind in KINDS
        for part in LENGTHS
        for depth in DEPTHS
        for number in range(REPEATS)
    ]


def filler_sentences(examples: Sequence[Example], *, seed: int) -> list[str]:
    """The different sentences of documents, without those that hold an image, or a digit or a password to mistake.

    Where they are few, others are made.
    """
    texts = [example.text for example in examples if isinstance(example, Document)]
    found = dict.fromkeys(s for text in texts for s in sentences_of(text))
    usable = [sentence for sentence in found if not _MISLEADING.search(sentence)]
    plain = plain_sentences(random.Random(seed))
    return usable + [next(plain) for _ in range(_FEWEST_SENTENCES - len(usable))]


class _Builder:
    """Makes needle documents with one processor."""

    def __init__(self, processor: VisionLanguageProcessor, filler: Sequence[str]) -> None:
        self._processor = processor
        self._renderer = DocumentRenderer(processor, max_tokens=1 << 30)
        self._filler = filler
        self._cost = [self._tokens(f" {sentence}") for sentence in filler]

    def build(self, kind: Kind, depth: float, length: int, name: str) -> Needle:
        """The needle that `name` stands for, as near below `length` tokens as sentences come."""
        rng = random.Random(name)
        if kind == "image":
            value, image = draw_number_image("held_out", rng)
            line, question, images = IMAGE_LINE, IMAGE_QUESTION, (image,)
        else:
            ((city, value),) = draw_facts("held_out", 1, rng)
            question, images = fact_question(city), ()
            line = f"{question} {value}."
        bare = self._prompt(name, f"{line}\n{question}", images, value)
        places = self._fitting(length - len(bare.input_ids) - self._tokens(f" {value}"), rng)
        before = _nearest([self._cost[i] for i in places], depth)
        sentences = [self._filler[i] for i in places]
        text = " ".join([*sentences[:before], line, *sentences[before:]])
        prompt = self._prompt(name, f"{text}\n{question}", images, value)
        return Needle(kind=kind, depth=depth, length=length, value=value, prompt=prompt)

    def _fitting(self, room: int, rng: random.Random) -> list[int]:
        """Random sentences, as places in the filler, of at most `room` tokens in all."""
        chosen: list[int] = []
        for place in _endless(len(self._filler), rng):
            room -= self._cost[place]
            if room < 0:
                return chosen
            chosen.append(place)
        raise AssertionError("the filler has no end")

    def _prompt(self, name: str, text: str, images: tuple[bytes, ...], value: str) -> Prompt:
        """The document as a prompt, without the token that ends a document."""
        document = Document(id=f"needle/{name}", source="needle", text=text, images=images)
        (whole,) = self._renderer.render(document)
        task = Task(id=document.id, source="needle", question=text, answer=value, images=images)
        ids = np.concatenate([whole.prompt.input_ids, whole.token_ids[:-1]])
        return replace(whole.prompt, id=document.id, task=task, input_ids=ids)

    def _tokens(self, text: str) -> int:
        return len(self._processor.tokenizer(text, add_special_tokens=False)["input_ids"])


def _endless(count: int, rng: random.Random) -> Iterator[int]:
    """All of `range(count)` in random order, over and over."""
    while True:
        yield from rng.sample(range(count), count)


def _nearest(costs: Sequence[int], depth: float) -> int:
    """After how many sentences of these lengths the share `depth` of them has passed, to the nearest sentence."""
    passed = [0, *accumulate(costs)]
    return min(range(len(passed)), key=lambda i: abs(passed[i] - depth * passed[-1]))


def find_needles(
    needles: Sequence[Needle], generate: Generate, decode: Decode, processor: VisionLanguageProcessor
) -> list[Cell]:
    """Let a model go on with every prompt, greedily and as far as its value is long, and count the exact matches."""
    sizes = [len(processor.tokenizer(f" {own.value}", add_special_tokens=False)["input_ids"]) for own in needles]
    requests = [Request(prompt=needle.prompt, n=1, seed=0) for needle in needles]
    groups = generate(requests, SamplingConfig(temperature=0.0, max_new_tokens=max(sizes)))
    found: dict[tuple[Kind, float, int], list[bool]] = {}
    for needle, size, group in zip(needles, sizes, groups, strict=True):
        right = any(decode(completion.token_ids[:size]).strip() == needle.value for completion in group)
        found.setdefault((needle.kind, needle.depth, needle.length), []).append(right)
    return [
        Cell(kind=kind, depth=depth, length=length, accuracy=float(np.mean(right)))
        for (kind, depth, length), right in found.items()
    ]


def needle_figures(cells: Sequence[Cell]) -> dict[str, float]:
    """The mean accuracy of each kind, and of each kind at each length. Example: `{"needles/text/4096": 0.8}`."""
    by_name: dict[str, list[float]] = {}
    for cell in cells:
        for name in (f"needles/{cell.kind}", f"needles/{cell.kind}/{cell.length}"):
            by_name.setdefault(name, []).append(cell.accuracy)
    return {name: float(np.mean(values)) for name, values in by_name.items()}
