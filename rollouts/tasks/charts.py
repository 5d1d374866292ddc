"""Charts drawn from real tables, with questions whose answers are exact, or with the values that stand in them."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from typing import Literal, get_args

from configs.prompt import IMAGE_MARK
from rewards.types import Task
from rollouts.tasks.chart_drawing import Chart, draw_chart
from rollouts.tasks.chart_questions import QUESTIONS, ChartQuestion, reading
from rollouts.tasks.chart_tables import TABLES, Series, load_series, table_file
from rollouts.tasks.dataset import DataSetError
from rollouts.tasks.documents import Document
from rollouts.tasks.packages import files_contents
from rollouts.tasks.rows import LETTERS, list_choices
from rollouts.tasks.skip_report import SkipReport
from rollouts.tasks.splits import Split, check_option, check_split

SMALLEST, WIDEST = 112, 448  # pixels a side
MOST_POINTS = 6
CHOICES = 4

Form = Literal["question", "choice", "caption"]


class Charts:
    """An endless sequence of charts of 3 to 6 points from real tables; the tables of the splits are different ones.

    `form` asks openly or as multiple choice, or makes captions (documents: the chart, its points, its title). `kinds`
    are the questions: value, highest, lowest, difference, total. `points` are the allowed numbers of points in a chart,
    `size` its side in pixels. Raises DataSetError for a package that is missing or an option out of range.
    """

    name = "charts"
    endless = True

    def __init__(
        self,
        split: Split = "train",
        *,
        form: Form = "question",
        kinds: Sequence[str] = tuple(QUESTIONS),
        points: Sequence[int] = (3, 4),
        size: int = 168,
    ) -> None:
        check_split(self.name, split)
        check_option(self.name, "form", form, get_args(Form))
        for kind in kinds:
            check_option(self.name, "kinds", kind, tuple(QUESTIONS))
        if not kinds:
            raise DataSetError(f"charts: kinds = {kinds!r}: must be some of {', '.join(QUESTIONS)}")
        if not points or not all(isinstance(count, int) and 3 <= count <= MOST_POINTS for count in points):
            raise DataSetError(f"charts: points = {points!r}: must be a list of numbers from 3 to {MOST_POINTS}")
        if not isinstance(size, int) or not SMALLEST <= size <= WIDEST:
            raise DataSetError(f"charts: size = {size!r}: must be a number of pixels from {SMALLEST} to {WIDEST}")
        self.split, self.form, self.size = split, form, size
        self.report = SkipReport()
        self._kinds, self._points = tuple(kinds), tuple(points)
        self._tables: dict[str, list[Series]] = {}
        for series in load_series(self.name, split):
            self._tables.setdefault(series.table, []).append(series)
        self.contents = files_contents(table_file(self.name, table) for table in TABLES if table.split == split)
        options = repr((self._kinds, self._points, size, form))
        self._key = f"charts/{split}/{hashlib.sha256(options.encode()).hexdigest()[:6]}"

    def __len__(self) -> int:
        """How many indices there are: as good as endless."""
        return 2**31

    def task(self, index: int, seed: int) -> Task | Document:
        """Make chart `index` of the sequence that `seed` starts; always the same one, wherever it is made."""
        identity = f"{self._key}/{seed}/{index}"
        rng = random.Random(identity)
        question = None
        while question is None:  # where values are equal that must differ, another chart is drawn
            series = rng.choice(self._tables[rng.choice(sorted(self._tables))])
            points, kind = self._choose_points(series, rng), rng.choice(self._kinds)
            question = QUESTIONS[kind](points, rng)
        chart: Chart = rng.choice(get_args(Chart))
        image = draw_chart(series.title, points, chart, self.size, rng)
        if self.form == "caption":
            text = f"{IMAGE_MARK}{reading(points)}\n{series.title}"
            return Document(id=identity, source=self.name, text=text, images=(image,))
        return self._task(identity, question, image, (series.table, kind), rng)

    def _choose_points(self, series: Series, rng: random.Random) -> list[tuple[str, int]]:
        """Some points of a series, in the order of its table."""
        count = rng.choice(self._points)
        return [series.points[at] for at in sorted(rng.sample(range(len(series.points)), count))]

    def _task(
        self, identity: str, question: ChartQuestion, image: bytes, tags: tuple[str, ...], rng: random.Random
    ) -> Task:
        text, answer, solution, choices = question.text, question.answer, question.solution, ()
        if self.form == "choice":
            wrong = rng.sample(question.others, min(CHOICES - 1, len(question.others)))
            options = [answer, *wrong]
            rng.shuffle(options)
            choices = tuple(options)
            answer = LETTERS[choices.index(answer)]
            text = f"{text}\n{list_choices(choices)}"
            solution = f"{solution}\nThat is option {answer}."
        return Task(
            id=identity,
            source=self.name,
            question=text,
            answer=answer,
            images=(image,),
            verifier="choice" if choices else question.verifier,
            choices=choices,
            difficulty=question.difficulty,
            solution=solution,
            tags=tags,
        )
