"""Long documents with facts hidden in them, and the same facts at the end: training for long contexts.

A document is filler with sentences such as `The password of Oslo is falcon.` at random places, in some documents also
an image of two handwritten digits. It ends with all of that once more, in another order: to predict passwords and
digits there, a model must find them again over any distance. `rl.run.needle` measures it with the same sentences.
"""

from __future__ import annotations

import functools
import hashlib
import random
from collections.abc import Iterator, Sequence
from typing import get_args

from configs.prompt import IMAGE_MARK
from rollouts.tasks.dataset import DataSetError
from rollouts.tasks.documents import Document
from rollouts.tasks.filler import Filler, open_filler
from rollouts.tasks.handwriting import draw_row, scans_of
from rollouts.tasks.skip_report import SkipReport
from rollouts.tasks.splits import Split, check_option, check_split, in_share

HELD_OUT_SHARE = 0.1  # of the pairs of a name and its password
NAMES = (
    *("Oslo", "Lima", "Cairo", "Delhi", "Paris", "Tokyo", "Quito", "Accra", "Berlin", "Madrid", "Dublin", "Havana"),
    *("Kiev", "Rome", "Bern", "Riga", "Doha", "Baku", "Minsk", "Seoul", "Hanoi", "Tunis", "Dakar", "Lagos"),
)
PASSWORDS = (
    *("anchor", "button", "candle", "dragon", "engine", "falcon", "guitar", "hammer", "island", "jacket", "kettle"),
    *("lemon", "mirror", "needle", "orange", "pepper", "quartz", "rocket", "saddle", "ticket", "umbrella", "violin"),
    *("walnut", "yellow", "zebra", "almond", "basket", "copper", "desert", "eagle", "forest", "glacier", "helmet"),
)
IMAGE_LINE = f"The image: {IMAGE_MARK}."
IMAGE_QUESTION = "The number in the image is"
MOST_FACTS = 20
_IMAGE_DIGITS = 2
_SHORTEST = 200  # characters of a document


def fact_question(name: str) -> str:
    """A fact up to its password."""
    return f"The password of {name} is"


def draw_facts(split: Split, count: int, rng: random.Random) -> list[tuple[str, str]]:
    """`count` names with a password each. The pairs of `train` and `held_out` are disjoint."""
    passwords = _passwords(split)
    return [(name, rng.choice(passwords[name])) for name in rng.sample(list(passwords), count)]


@functools.cache
def _passwords(split: Split) -> dict[str, list[str]]:
    """The passwords that each name may have; a name without any is left out."""
    held_out = split == "held_out"
    found = {n: [p for p in PASSWORDS if in_share(f"{n} {p}", HELD_OUT_SHARE) == held_out] for n in NAMES}
    return {name: passwords for name, passwords in found.items() if passwords}


def draw_number_image(split: Split, rng: random.Random) -> tuple[str, bytes]:
    """A number and its PNG image, from the handwriting of the split."""
    scans = scans_of("uci", split)
    chosen = rng.sample(range(len(scans.digits)), _IMAGE_DIGITS)
    return "".join(str(scans.digits[i]) for i in chosen), draw_row([scans.pixels[i] for i in chosen], rng)


class LongDocuments:
    """An endless sequence of documents whose end repeats what stands somewhere in them.

    `length` is the shortest and the longest document in characters, without its image; `facts` the number of facts, 1
    to 20; `image_share` the share of the documents with an image; `filler` the text around them: `sentences`, made
    here, or `wikipedia_leads`, which needs the extra `data`. Raises DataSetError where an option is out of range.
    """

    name = "long_documents"
    endless = True

    def __init__(
        self,
        split: Split = "train",
        *,
        length: Sequence[int] = (600, 2400),
        facts: int = 4,
        image_share: float = 0.25,
        filler: Filler = "sentences",
    ) -> None:
        check_split(self.name, split)
        check_option(self.name, "filler", filler, get_args(Filler))
        whole = [value for value in length if isinstance(value, int)] if isinstance(length, list | tuple) else []
        if len(whole) != 2 or not _SHORTEST <= whole[0] <= whole[1]:
            raise DataSetError(
                f"{self.name}: length = {length!r}: must be the shortest and the longest document in characters, "
                f"{_SHORTEST} or more"
            )
        if not isinstance(facts, int) or not 1 <= facts <= MOST_FACTS:
            raise DataSetError(f"{self.name}: facts = {facts!r}: must be a whole number from 1 to {MOST_FACTS}")
        if not isinstance(image_share, int | float) or not 0 <= image_share <= 1:
            raise DataSetError(f"{self.name}: image_share = {image_share!r}: must be a number between 0 and 1")
        self.report = SkipReport()
        self._split: Split = split
        self._shortest, self._longest = whole
        self._facts, self._image_share = facts, image_share
        self._filler = open_filler(filler, split)
        options = (whole, facts, image_share, filler)
        self._key = f"{self.name}/{split}/{hashlib.sha256(repr(options).encode()).hexdigest()[:6]}"

    def __len__(self) -> int:
        """How many indices there are: as good as endless."""
        return 2**31

    def task(self, index: int, seed: int) -> Document:
        """Make document `index` of the sequence that `seed` starts; always the same one, wherever it is made."""
        identity = f"{self._key}/{seed}/{index}"
        rng = random.Random(identity)
        length = rng.randint(self._shortest, self._longest)
        facts = draw_facts(self._split, self._facts, rng)
        hidden = [f"{fact_question(name)} {password}." for name, password in facts]
        again, images = list(hidden), []
        if rng.random() < self._image_share:
            number, image = draw_number_image(self._split, rng)
            hidden.append(IMAGE_LINE)
            again.append(f"{IMAGE_QUESTION} {number}.")
            images.append(image)
        rng.shuffle(again)
        left = length - sum(len(line) + 1 for line in (*hidden, *again))
        body = _fitting(self._filler(rng), left)
        for line in hidden:
            body.insert(rng.randint(0, len(body)), line)
        text = " ".join(body) + "\n" + " ".join(again)
        return Document(id=identity, source=self.name, text=text, images=tuple(images))


def _fitting(filler: Iterator[str], characters: int) -> list[str]:
    """Sentences of `characters` characters in all, or fewer by less than a sentence."""
    sentences: list[str] = []
    for sentence in filler:
        characters -= len(sentence) + 1
        if characters < 0:
            return sentences
        sentences.append(sentence)
    raise AssertionError("filler is endless")
