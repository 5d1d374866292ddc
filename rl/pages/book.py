"""The rollout book: one HTML file with the rollouts of a stage, their images, tokens and verdicts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from configs.errors import UserError
from configs.text import counted, printable
from rl.pages.book_images import data_uri
from rl.pages.book_rows import BookRows
from rl.pages.page import packed, write_page
from rl.pages.token_pieces import TokenPieces
from rl.rollout_log import read_step, rollout_files

STYLES = ("base.css", "book.css")
SCRIPTS = ("book_data.js", "book_filters.js", "book_list.js", "book_tokens.js", "book_group.js", "book.js")
MOST_TOKENS = 4_000_000  # of a book; a browser on a phone ends beyond


@dataclass(frozen=True, slots=True, kw_only=True)
class BookOptions:
    """Which rollouts a book holds."""

    steps: Sequence[int] = ()  # empty: as many steps as fit, evenly spaced, the first and the last among them
    task: str | None = None  # only this task's rollouts, of every step
    limit: int = 10_000  # rollouts


@dataclass(frozen=True, slots=True, kw_only=True)
class BookSummary:
    """What went into a book."""

    rollouts: int
    groups: int
    steps: tuple[int, ...]
    steps_in_log: int
    images: int
    left_out: int  # rollouts of these steps that are beyond the limit


def write_book(
    rollouts: Path, output: Path, *, title: str, tokenizers: Sequence[Path], options: BookOptions
) -> BookSummary:
    """Write the book of the rollouts in the folder `rollouts`, atomically.

    `tokenizers` are folders of models, the best first: the tokenizer of the rollouts is in one of them. Raises
    FileNotFoundError where there are no rollouts, and UserError for damaged files and for steps or tasks that are not
    there.
    """
    files = rollout_files(rollouts)
    if not files:
        raise FileNotFoundError(f"{rollouts}: holds no rollouts (step-*.parquet)")
    sizes = {step: _size(path) for step, path in files.items()}
    chosen = _chosen_steps(sizes, options)
    rows = BookRows(TokenPieces.find(tokenizers))
    for group in _groups([files[step] for step in chosen], options):
        rows.add_group(group)
    if not rows.groups:
        known = f"the task {options.task!r}" if options.task is not None else "these steps"
        raise UserError(f"{rollouts}: holds no rollout of {known}; the list of tasks is in the book without --task")
    images = [data_uri(rollouts, name) for name in rows.images]
    summary = BookSummary(
        rollouts=len(rows.columns["group"]),
        groups=len(rows.groups),
        steps=tuple(sorted({group["step"] for group in rows.groups})),
        steps_in_log=len(files),
        images=len(images),
        left_out=0 if options.task is not None else sum(sizes[step][0] for step in chosen) - len(rows.columns["group"]),
    )
    index = {
        "groups": rows.groups,
        "rollouts": rows.columns,
        "uncoloured": rows.uncoloured,
        "note": _note(summary, options),
    }
    values = {
        "title": printable(title),
        "index": packed(index),
        "chunks": [packed(chunk) for chunk in rows.chunks],
        "images": [uri or "" for uri in images],
    }
    write_page(output, "book.html.jinja", values, styles=STYLES, scripts=SCRIPTS)
    return summary


def _note(summary: BookSummary, options: BookOptions) -> str:
    """What the book leaves out, in a sentence; empty where it is complete."""
    if options.task is not None:
        return f"Only the task {options.task}."
    if summary.left_out:
        return (
            f"{counted(summary.left_out, 'more rollout')} of these steps are left out; --limit "
            f"sets how many a book holds."
        )
    if len(summary.steps) < summary.steps_in_log:
        return (
            f"{len(summary.steps)} of the {counted(summary.steps_in_log, 'step')} in the log: {_list(summary.steps)}. "
            "Others: thinkvl book RUN --step N."
        )
    return ""


def _list(steps: Sequence[int]) -> str:
    texts = [str(step) for step in steps]
    return ", ".join(texts if len(texts) <= 12 else [*texts[:6], "...", *texts[-5:]])


def _chosen_steps(sizes: dict[int, tuple[int, int]], options: BookOptions) -> list[int]:
    """The steps of the book, in order, from `_size` of each. Raises UserError for a step that is not in the log."""
    steps = sorted(sizes)
    missing = [step for step in options.steps if step not in sizes]
    if missing:
        raise UserError(
            f"--step {missing[0]}: the log has no such step; it has {len(steps)}, from {steps[0]} to {steps[-1]}"
        )
    if options.steps:
        return sorted(set(options.steps))
    if options.task is not None:
        return steps
    count = len(steps)
    while count > 1:
        spaced = _spaced(steps, count)
        rollouts, tokens = (sum(sizes[step][at] for step in spaced) for at in (0, 1))
        if rollouts <= options.limit and tokens <= MOST_TOKENS:
            return spaced
        over = max(rollouts / options.limit, tokens / MOST_TOKENS)
        count = min(count - 1, int(count / over) + 1)
    return steps[-1:]


def _size(path: Path) -> tuple[int, int]:
    """(rollouts, about as many tokens as there are numbers in the column) of a file, from its footer alone."""
    try:
        footer = pq.read_metadata(path)
    except Exception as error:
        raise UserError(f"{path}: is damaged or no file of rollouts; delete it") from error
    tokens = 0
    for group in range(footer.num_row_groups):
        columns = (footer.row_group(group).column(at) for at in range(footer.num_columns))
        tokens += sum(c.num_values for c in columns if c.path_in_schema.startswith("token_ids"))
    return footer.num_rows, tokens


def _spaced(steps: Sequence[int], count: int) -> list[int]:
    """`count` of the steps, evenly spaced, with the first and the last."""
    last = len(steps) - 1
    return [steps[at] for at in dict.fromkeys(round(i * last / (count - 1)) for i in range(count))]


def _groups(files: Sequence[Path], options: BookOptions) -> Iterator[list[dict[str, Any]]]:
    """The rows of each prompt in each step, at most `limit` rows in all."""
    left = options.limit
    for path in files:
        rows = (row for row in read_step(path) if options.task in (None, row["task"]))
        for _, group in groupby(rows, key=lambda row: row["group"]):
            own = list(group)
            if len(own) > left and left < options.limit:
                return
            left -= len(own)
            yield own
