"""easy-VQA: 5,000 images of one coloured shape and 48,248 questions about them, from the package `easy-vqa`.

Train and held-out tasks have different images. Source: https://github.com/vzhou842/easy-VQA (MIT licence).
"""

from __future__ import annotations

import functools
import random
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from rewards.types import Task
from rollouts.tasks.rows import LETTERS, list_choices
from rollouts.tasks.skip_report import SkipReport
from rollouts.tasks.splits import Split, check_option, check_split

Form = Literal["open", "choice", "both"]

COLORS = ("black", "blue", "brown", "gray", "green", "red", "teal", "yellow")
SHAPES = ("circle", "rectangle", "triangle")
ANSWERS = {"color": COLORS, "shape": SHAPES, "yes-no": ("yes", "no")}  # type of a question -> all its answers
DIFFICULTY = {"color": 0.1, "shape": 0.2, "yes-no": 0.4}
MAX_CHOICES = 4
_WORD = re.compile(rf"\b({'|'.join((*COLORS, *SHAPES))})\b")
_NEGATION = re.compile(r"\b(not|no)\b")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    question: str
    answer: str
    image: int
    number: int  # in the package's file

    @property
    def kind(self) -> str:
        return next(kind for kind, answers in ANSWERS.items() if self.answer in answers)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Data:
    rows: tuple[_Row, ...]  # in a fixed shuffled order, so that any first part covers many images
    files: dict[int, Path]  # image number -> PNG file, 64x64 RGB
    facts: dict[int, dict[str, str]]  # image number -> its color and its shape, as far as its questions tell


class EasyVQA:
    """Questions of one split, as open questions (`form: open`), as multiple choice (`choice`), or each as both.

    Raises DataSetError where an option is out of range.
    """

    name = "easy_vqa"
    endless = False

    def __init__(self, split: Split = "train", *, form: Form = "open") -> None:
        check_split(self.name, split)
        check_option(self.name, "form", form, get_args(Form))
        self.split = split
        self.report = SkipReport()
        self._forms = ("open", "choice") if form == "both" else (form,)
        self._data = _load(split)

    def __len__(self) -> int:
        """Number of questions, twice that where each has both forms."""
        return len(self._data.rows) * len(self._forms)

    def task(self, index: int, seed: int) -> Task:
        """Question `index`, the same for every `seed`."""
        del seed
        at, form = divmod(index, len(self._forms))
        row, form = self._data.rows[at], self._forms[form]
        identity = f"easy_vqa/{self.split}/{row.number}/{form}"
        question, answer, choices = row.question[0].upper() + row.question[1:], row.answer, ()
        if form == "choice":
            choices = _choices(row, identity)
            question = f"{question}\n{list_choices(choices)}"
            answer = LETTERS[choices.index(row.answer)]
        return Task(
            id=identity,
            source=self.name,
            question=question,
            answer=answer,
            images=(_read(self._data.files[row.image]),),
            verifier="choice" if choices else "text",
            choices=choices,
            difficulty=DIFFICULTY[row.kind],
            solution=_solution(row, self._data.facts.get(row.image, {}), choices),
        )


def _choices(row: _Row, key: str) -> tuple[str, ...]:
    """At most four answers of the question's type with the right one among them, in an order fixed by `key`."""
    rng = random.Random(key)
    others = [answer for answer in ANSWERS[row.kind] if answer != row.answer]
    choices = [row.answer, *rng.sample(others, min(len(others), MAX_CHOICES - 1))]
    rng.shuffle(choices)
    return tuple(choices)


def _solution(row: _Row, facts: dict[str, str], choices: tuple[str, ...]) -> str | None:
    """A short chain of thought that ends before the answer; None where the data does not give it."""
    option = f" That is option {LETTERS[choices.index(row.answer)]}." if choices else ""
    if row.kind in ("color", "shape"):
        seen = f"The shape is {row.answer}." if row.kind == "color" else f"The shape is a {row.answer}."
        return f"The question asks for the {row.kind}. {seen}{option}"
    word = _WORD.search(row.question)
    if word is None:
        return None
    kind = "color" if word[0] in COLORS else "shape"
    if kind not in facts:
        return None
    named, fact = (
        word[0] if kind == "color" else f"a {word[0]}",
        facts[kind] if kind == "color" else f"a {facts[kind]}",
    )
    shown = fact if fact == named else f"{fact}, not {named}"
    there = "not there" if _NEGATION.search(row.question) else "there"
    return f"The shape is {shown}. The question asks if {named} is {there}, so {row.answer}.{option}"


def _facts(rows: list[_Row]) -> dict[int, dict[str, str]]:
    """What the questions of each image tell of its color and shape."""
    facts: dict[int, dict[str, str]] = defaultdict(dict)
    for row in rows:
        if row.kind in ("color", "shape"):
            facts[row.image][row.kind] = row.answer
        word = _WORD.search(row.question)
        negated = _NEGATION.search(row.question) is not None
        if word and (row.kind != "yes-no" or (row.answer == "yes") != negated):
            facts[row.image]["color" if word[0] in COLORS else "shape"] = word[0]
    return dict(facts)


@functools.cache
def _load(split: Split) -> _Data:
    import easy_vqa

    train = split == "train"
    columns = easy_vqa.get_train_questions() if train else easy_vqa.get_test_questions()
    files = easy_vqa.get_train_image_paths() if train else easy_vqa.get_test_image_paths()
    rows = [
        _Row(question=question, answer=answer, image=image, number=number)
        for number, (question, answer, image) in enumerate(zip(*columns, strict=True))
    ]
    facts = _facts(rows)
    random.Random(0).shuffle(rows)
    return _Data(rows=tuple(rows), files={image: Path(file) for image, file in files.items()}, facts=facts)


@functools.lru_cache(maxsize=8192)
def _read(file: Path) -> bytes:
    return file.read_bytes()
