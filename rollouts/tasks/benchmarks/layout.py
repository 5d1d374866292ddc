"""What an adapter makes of a row, and what all adapters share: options, image marks, the checked task."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from configs.prompt import IMAGE_MARK
from rewards.types import Task
from rollouts.tasks.bad_row import BadRow
from rollouts.tasks.image_cells import read_image
from rollouts.tasks.rows import LETTERS, optional_text

Row = Mapping[str, Any]
_MARK = re.compile(r"<image (\d{1,2})>")  # MMMU's place of image_1, image_2, ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a row comes from."""

    number: int  # of the row, from 0, over all files and subsets of the benchmark
    folder: Path | None = None  # where relative paths of images start; None for the hub
    subset: str = ""  # of the hub data set, or the folder or the key that holds the row
    frames: int = 32  # of a video, at most


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A row as its adapter reads it: the official prompt, and the verifier with the official tolerance."""

    id: str
    prompt: str  # the text of the prompt, with `<image>` at the place of each image
    question: str  # the question alone, for exports
    answer: str
    images: Sequence[Any] = ()  # cells: bytes, paths, data URIs, `{"bytes": ..., "path": ...}`
    choices: tuple[str, ...] = ()
    verifier: str = "choice"
    groups: Mapping[str, str] = field(default_factory=dict)  # such as `{"task": "geometry"}`: each gets its accuracy
    columns: Mapping[str, str] = field(default_factory=dict)  # that VLMEvalKit's evaluation of this benchmark reads


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A question of a benchmark as a task."""

    task: Task
    number: int  # of its row
    question: Question


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """A public benchmark: where its data is, how a row is read, how answers are judged."""

    title: str
    hub: str  # the official name of the data set
    split: str
    read: Callable[[Row, Place], Question]
    metric: str
    rule: str  # the official answer rule, in a line
    subsets: tuple[str, ...] = ()  # of the hub data set; empty: its only one
    vlmevalkit: str | None = None  # the name under which VLMEvalKit scores it
    lmms_eval: str | None = None  # the task of lmms-eval that scores it


def to_item(question: Question, name: str, place: Place) -> Item:
    """The checked task of a question. Raises BadRow if the row gives no prompt or no reference."""
    prompt = _required("question", question.prompt)
    images = tuple(read_image(cell, place.folder) for cell in question.images)
    if (marks := prompt.count(IMAGE_MARK)) and marks != len(images):
        raise BadRow(f"question has more or fewer {IMAGE_MARK} than images", f"{marks} for {len(images)}")
    answer = _required("answer", question.answer)
    if question.verifier == "choice" and question.choices and not _names_option(answer, question.choices):
        raise BadRow("answer is none of the options", answer[:80])
    task = Task(
        id=f"{name}/{_required('id', question.id)}",
        source=name,
        question=prompt,
        answer=answer,
        images=images,
        choices=question.choices,
        verifier=question.verifier,
    )
    return Item(task=task, number=place.number, question=question)


def text_of(row: Row, column: str) -> str:
    """A cell as text, empty where there is none. Raises BadRow for another type."""
    return optional_text({column: row.get(column)}, column) or ""


def first_text(row: Row, *columns: str) -> str:
    """The text of the first of these columns that the row has one in."""
    return next((text for column in columns if (text := text_of(row, column))), "")


def details_of(row: Row) -> Mapping[str, Any]:
    """The column `metadata`; empty where it holds no object."""
    value = row.get("metadata")
    return value if isinstance(value, Mapping) else {}


def options_of(value: Any) -> tuple[str, ...]:
    """The options of a cell: a list, or a list written as Python, as the hub's MMMU has it. Raises BadRow."""
    if isinstance(value, str):
        try:
            value = ast.literal_eval(value) if value.strip() else []
        except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
            raise BadRow("options are no list", value[:80]) from error
    if value is None:
        return ()
    if not isinstance(value, list | tuple) or len(value) > len(LETTERS):
        raise BadRow(f"options are no list of at most {len(LETTERS)}", repr(value)[:80])
    return tuple(str(option).strip() for option in value)


def lettered(options: Sequence[str], style: str = "{letter}. {option}") -> str:
    """The options as lines in a benchmark's style, such as `(A) circle`."""
    return "\n".join(style.format(letter=letter, option=option) for letter, option in zip(LETTERS, options))  # noqa: B905 - there are letters for all


def at_marks(text: str, row: Row) -> tuple[str, list[Any]]:
    """`text` with `<image>` at each `<image N>`, and the cells `image_N` in that order.

    Without a mark the images come in front, in the order of their numbers.
    """
    numbers = [int(number) for number in _MARK.findall(text)]
    if numbers:
        return _MARK.sub(IMAGE_MARK, text), [row.get(f"image_{number}") for number in numbers]
    cells = [row.get(f"image_{number}") for number in range(1, 8)]
    return text, [cell for cell in cells if cell is not None]


def option_columns(options: Sequence[str]) -> dict[str, str]:
    """The columns A, B, C, ... of VLMEvalKit's multiple-choice data sets."""
    return dict(zip(LETTERS, options))  # noqa: B905 - there are letters for all


def _required(what: str, text: str) -> str:
    found = optional_text({what: text}, what)
    if found is None:
        raise BadRow(f"{what} is empty")
    return found


def _names_option(answer: str, choices: Sequence[str]) -> bool:
    return answer in LETTERS[: len(choices)] or answer in choices
