"""Real tables for charts, from the packages `bokeh-sampledata` and `vega-datasets`; their code is not run."""

from __future__ import annotations

import csv
import functools
import gzip
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rollouts.tasks.packages import package_file, package_folder
from rollouts.tasks.splits import Split

LARGEST = 9_999  # of the values, so that they fit above a bar
FEWEST = 6  # rows of a series

_PACKAGES = {
    "bokeh": ("bokeh_sampledata", "bokeh-sampledata", "_data"),
    "vega": ("vega_datasets", "vega-datasets", "_data"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One file: which column labels a row, which hold values, and what the values are divided by."""

    name: str
    package: Literal["bokeh", "vega"]
    file: str
    label: str
    cut: tuple[int, int | None] = (0, None)  # the part of the label that is shown, such as the year of a date
    columns: Mapping[str, str]  # column -> title of its charts
    divisor: float = 1
    group: str = ""  # a column that divides the rows into series of their own
    split: Split = "train"


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One chart's worth of data: (label, value) in the order of the table."""

    table: str
    title: str
    points: tuple[tuple[str, int], ...]


_DEGREES = ("Architecture", "Biology", "Business", "Computer Science", "Education", "Engineering", "Psychology")

TABLES = (
    Table(
        name="degrees",
        package="bokeh",
        file="percent-bachelors-degrees-women-usa.csv",
        label="Year",
        columns={subject: f"Women, % ({subject})" for subject in _DEGREES},
    ),
    Table(
        name="marriages",
        package="bokeh",
        file="us_marriages_divorces.csv",
        label="Year",
        columns={"Marriages": "Marriages (1,000)", "Divorces": "Divorces (1,000)"},
        divisor=1000,
    ),
    Table(
        name="life_expectancy",
        package="bokeh",
        file="gapminder.csv.gz",
        label="year",
        columns={"life_expectancy": "Life, years"},
        group="country",
    ),
    Table(
        name="medals",
        package="bokeh",
        file="olympics2014.json",
        label="abbr",
        columns={"total": "Medals", "gold": "Gold medals"},
    ),
    Table(
        name="electricity",
        package="vega",
        file="iowa-electricity.csv",
        label="year",
        cut=(0, 4),
        columns={"net_generation": "TWh"},
        divisor=1000,
        group="source",
    ),
    Table(
        name="employment",
        package="vega",
        file="us-employment.csv",
        label="month",
        cut=(0, 7),
        columns={"construction": "Construction jobs", "manufacturing": "Manufacturing jobs"},
        divisor=100,
    ),
    Table(
        name="driving", package="vega", file="driving.json", label="year", columns={"miles": "Miles (100)"}, divisor=100
    ),
    Table(
        name="wheat",
        package="vega",
        file="wheat.json",
        label="year",
        columns={"wheat": "Price of wheat"},
        split="held_out",
    ),
    Table(
        name="crimea",
        package="vega",
        file="crimea.json",
        label="date",
        cut=(0, 7),
        columns={"disease": "Deaths by disease", "wounds": "Deaths by wounds"},
        split="held_out",
    ),
    Table(
        name="temperature",
        package="bokeh",
        file="lincoln_weather.csv",
        label="DATE",
        cut=(5, 10),
        columns={"TMAX": "Highest, deg F"},
        split="held_out",
    ),
)


def table_file(source: str, table: Table) -> Path:
    """Where a table lies. Raises DataSetError that says what to install."""
    module, distribution, folder = _PACKAGES[table.package]
    return package_file(source, package_folder(source, module, distribution), f"{folder}/{table.file}")


def load_series(source: str, split: Split) -> tuple[Series, ...]:
    """Every series of the tables of a split. Raises DataSetError."""
    tables = [table for table in TABLES if table.split == split]
    return tuple(one for table in tables for one in _series(table.name, table_file(source, table)))


@functools.cache
def _series(name: str, file: Path) -> tuple[Series, ...]:
    (table,) = (table for table in TABLES if table.name == name)
    found: dict[str, dict[str, int]] = {}
    for row in _rows(file):
        for column, title in table.columns.items():
            value = _whole(row.get(column), table.divisor)
            if value is not None:
                group = f"{row[table.group]}: {title}" if table.group else title
                found.setdefault(group, {}).setdefault(str(row[table.label])[slice(*table.cut)], value)
    series = [Series(table=name, title=title, points=tuple(points.items())) for title, points in found.items()]
    return tuple(one for one in series if len(one.points) >= FEWEST)


def _whole(value: Any, divisor: float) -> int | None:
    """A value as it stands in the chart: a whole number from 1; None for others."""
    try:
        number = round(float(value) / divisor)
    except (TypeError, ValueError):
        return None
    return number if 1 <= number <= LARGEST else None


def _rows(file: Path) -> list[dict[str, Any]]:
    """The rows of a CSV or JSON file; what is nested in a row becomes part of it."""
    data = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    text = data.decode("utf-8-sig")
    if ".json" not in file.name:
        kept = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
        return list(csv.DictReader(io.StringIO("\n".join(kept))))
    rows = json.loads(text)
    rows = rows["data"] if isinstance(rows, dict) else rows
    return [row | next((value for value in row.values() if isinstance(value, dict)), {}) for row in rows]
