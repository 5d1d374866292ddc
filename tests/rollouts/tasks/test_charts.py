"""Charts of real tables: values as written, exact answers, solutions that hold, tables held out."""

import csv
import gzip
import importlib.util
import io
import json
import random
import re

import pytest
from package_helpers import fake_package, needs
from PIL import Image
from source_checks import check_source

from configs.errors import UserError
from configs.prompt import IMAGE_MARK
from rewards.types import Task
from rollouts.tasks import chart_questions
from rollouts.tasks.chart_drawing import draw_chart
from rollouts.tasks.chart_tables import TABLES, load_series
from rollouts.tasks.charts import Charts
from rollouts.tasks.documents import Document

POINTS = (("1990", 40), ("1991", 45), ("1992", 38))


def table_rows(table):
    """Ten rows with the columns of a table; every value is its own, and one cell is empty."""
    rows = []
    for at in range(10):
        label = f"20{at:02}-01-{at + 1:02}" if table.cut != (0, None) else str(1900 + at)
        row = {table.label: label, **({table.group: "North"} if table.group else {})}
        rows.append(row | dict.fromkeys(table.columns, (20 + 3 * at) * table.divisor))
    rows[3] |= dict.fromkeys(table.columns, "")
    return rows


def file_of(table):
    rows = table_rows(table)
    if ".json" in table.file:
        if table.name == "medals":
            nested = [{table.label: row[table.label], "medals": {c: row[c] for c in table.columns}} for row in rows]
            return json.dumps({"count": len(rows), "data": nested})
        return json.dumps(rows)
    text = io.StringIO()
    text.write("# a remark\n\n" if table.group == "country" else "")
    writer = csv.DictWriter(text, fieldnames=list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return gzip.compress(text.getvalue().encode()) if table.file.endswith(".gz") else text.getvalue()


@pytest.fixture
def packages(tmp_path, monkeypatch):
    for module, package in (("bokeh_sampledata", "bokeh"), ("vega_datasets", "vega")):
        files = {f"_data/{table.file}": file_of(table) for table in TABLES if table.package == package}
        fake_package(tmp_path, module, files)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


class TestTables:
    def test_every_table_is_read_and_empty_cells_are_no_points(self, packages):
        for split in ("train", "held_out"):
            series = load_series("charts", split)
            assert {one.table for one in series} == {table.name for table in TABLES if table.split == split}
            for one in series:
                assert [value for _, value in one.points] == [20 + 3 * at for at in range(10) if at != 3]

    def test_labels_are_cut_and_series_are_named(self, packages):
        series = {one.title: one for split in ("train", "held_out") for one in load_series("charts", split)}
        assert series["North: TWh"].points[0][0] == "2000"
        assert series["Highest, deg F"].points[1][0] == "01-02"
        assert series["North: Life, years"].points[0] == ("1900", 20)

    def test_tables_are_in_one_split_each(self):
        assert len({table.name for table in TABLES}) == len(TABLES) == len({table.file for table in TABLES})
        assert sum(table.split == "held_out" for table in TABLES) == 3


class TestQuestions:
    @pytest.mark.parametrize(
        ("kind", "answers", "end"),
        [
            ("value", {"40", "45", "38"}, r"199\d: \d\d"),
            ("highest", {"1991"}, "The highest value is 45, at 1991."),
            ("lowest", {"1992"}, "The lowest value is 38, at 1992."),
            ("difference", {"5", "7", "2"}, r".*=\d"),
            ("total", {"123"}, "85\\+38=.*=123"),
        ],
    )
    def test_each_is_exact_and_its_solution_ends_in_it(self, kind, answers, end):
        for seed in range(20):
            question = chart_questions.QUESTIONS[kind](POINTS, random.Random(seed))
            assert question.answer in answers
            assert question.answer not in question.others
            assert re.fullmatch(end, question.solution.splitlines()[-1])

    @pytest.mark.parametrize("kind", ["highest", "lowest", "difference"])
    def test_equal_values_give_no_question_about_their_order(self, kind):
        equal = (("a", 4), ("b", 4), ("c", 4))
        assert chart_questions.QUESTIONS[kind](equal, random.Random(0)) is None


class TestDrawing:
    @pytest.mark.parametrize("chart", ["bar", "line"])
    @pytest.mark.parametrize("side", [112, 168])
    def test_an_image_of_the_size_asked_for(self, chart, side):
        image = Image.open(io.BytesIO(draw_chart("A title", POINTS, chart, side, random.Random(0))))
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", (side, side))

    def test_bars_are_as_high_as_their_values(self):
        points = (("a", 100), ("b", 50), ("c", 25))
        image = Image.open(io.BytesIO(draw_chart("", points, "bar", 200, random.Random(0))))
        colors = [[image.getpixel((column, row)) for row in range(200)] for column in (36, 101, 166)]
        bar = colors[0][100]
        heights = [column.count(bar) for column in colors]
        assert heights[1] / heights[0] == pytest.approx(0.5, abs=0.05)
        assert heights[2] / heights[0] == pytest.approx(0.25, abs=0.05)


class TestSource:
    @pytest.mark.parametrize("form", ["question", "choice", "caption"])
    @pytest.mark.parametrize("split", ["train", "held_out"])
    def test_it_keeps_what_every_source_promises(self, packages, form, split):
        tasks = check_source(lambda: Charts(split, form=form, points=[3, 5]))
        held_out = {table.name for table in TABLES if table.split == "held_out"}
        asked = [task for task in tasks if isinstance(task, Task)]
        assert all((task.tags[0] in held_out) == (split == "held_out") for task in asked)

    def test_a_caption_is_the_chart_and_then_its_points_and_title(self, packages):
        document = Charts("held_out", form="caption", points=[3]).task(0, 0)
        assert isinstance(document, Document)
        *points, title = document.text.removeprefix(IMAGE_MARK).splitlines()
        assert len(document.images) == 1
        (series,) = (one for one in load_series("charts", "held_out") if one.title == title)
        assert [tuple(point.split(": ")) for point in points] == [
            (label, str(value)) for label, value in series.points if f"{label}: {value}" in points
        ]

    def test_only_the_kinds_asked_for_come(self, packages):
        assert {Charts(kinds=["lowest"]).task(i, 0).tags[1] for i in range(30)} == {"lowest"}

    @pytest.mark.parametrize(
        ("options", "named"),
        [
            ({"form": "both"}, "form = 'both': must be one of question, choice, caption"),
            ({"kinds": ["median"]}, "kinds = 'median': must be one of value, highest"),
            ({"kinds": []}, "must be some of value"),
            ({"points": [2]}, "points = \\[2\\]: must be a list of numbers from 3 to 6"),
            ({"size": 64}, "size = 64: must be a number of pixels from 112 to 448"),
            ({"split": "test"}, "must be train or held_out"),
        ],
    )
    def test_options_out_of_range_are_named(self, packages, options, named):
        with pytest.raises(UserError, match=named):
            Charts(**options)

    def test_the_missing_package_is_named(self, monkeypatch):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        with pytest.raises(UserError, match=r"needs the package bokeh-sampledata: pip install 'thinkvl\[data\]'"):
            Charts()


@needs("bokeh_sampledata", "vega_datasets")
@pytest.mark.parametrize("form", ["question", "choice", "caption"])
def test_the_real_packages(form):
    for split in ("train", "held_out"):
        tasks = check_source(lambda split=split: Charts(split, form=form), count=200)
        tables = {table.name for table in TABLES if table.split == split}
        assert form == "caption" or {task.tags[0] for task in tasks if isinstance(task, Task)} == tables
