"""One row of a data set file to one task, or to the reason why it cannot become one."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from configs.prompt import IMAGE_MARK
from rewards.images import BadImage
from rewards.types import Task
from rewards.verifiers.accepted_answers import MOST
from rollouts.tasks.bad_row import BadRow
from rollouts.tasks.image_cells import read_images
from rollouts.tasks.video import frames_prompt, sample_frames

FIELDS = ("images", "video", "question", "answer", "verifier", "choices", "difficulty", "solution", "tags", "id")
REQUIRED = ("question", "answer")
FRAMES = 8  # of a video, where its source does not say how many
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
IMAGE_PLACEHOLDER = "<|media_pad|>"  # as text it would stand for an image that does not exist
_CONTROL = re.compile(r"<\|\w+\|>")  # the tokenizer would read it as a control token, such as the end of a turn
_THOUGHT = re.compile(r"(?:<think>|◁think▷)(.*?)(?:</think>|◁/think▷)", re.DOTALL)
_MARKS = re.compile(r"</?think>|◁/?think▷|</?answer>")
_ANSWER = re.compile(r"<answer>(.*)</answer>", re.DOTALL)
_LEVEL = re.compile(r"level ([1-5])", re.IGNORECASE)  # MATH's five levels
_SURROGATE = re.compile(r"[\ud800-\udfff]")  # half a character, which JSON can spell and no tokenizer takes


def list_choices(choices: Sequence[str]) -> str:
    """The options as lines for the end of a question: `A. circle`, `B. square`, ..."""
    return "\n".join(f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=False))


def parse_row(
    row: Mapping[str, Any],
    *,
    task_id: str,
    source: str,
    columns: Mapping[str, str],
    folder: Path | None,
    verifier: str,
    frames: int = FRAMES,
    vanished_ok: bool = False,
) -> Task:
    """Turn a row into a task; a video becomes at most `frames` images with their times, in front of the question.

    `columns` maps our fields to the row's keys, `verifier` is for rows that name none, and `folder` is where relative
    paths of images and videos start. Raises BadRow or BadImage; but what cannot be read becomes `b""` if `vanished_ok`.
    """
    cell = {field: row.get(column) for field, column in columns.items()}
    question, answer = required_text(cell, "question"), _answer(cell)
    if wrapped := _ANSWER.search(answer):  # R1-V's layout
        answer = required_text({"answer": wrapped[1]}, "answer")
    images = read_images(cell.get("images"), folder, vanished_ok)
    if (video := optional_text(cell, "video")) is not None:
        if images or IMAGE_MARK in question:
            raise BadRow("row has a video, and images too")
        times, images = _frames(video, folder, frames, vanished_ok)
        question = times + question
    if (marks := question.count(IMAGE_MARK)) and marks != len(images):
        raise BadRow(f"question has more or fewer {IMAGE_MARK} than images", f"{marks} for {len(images)}")
    choices = _choices(cell.get("choices"))
    if choices:
        bare = _without_labels(choices)
        answer, choices = _letter(bare[choices.index(answer)] if answer in choices else answer, bare), bare
        if not _lists_options(question, len(choices)):
            question = f"{question}\n{list_choices(choices)}"
    return Task(
        id=task_id,
        source=source,
        question=question,
        answer=answer,
        images=images,
        verifier=optional_text(cell, "verifier") or ("choice" if choices else verifier),
        choices=choices,
        difficulty=_difficulty(cell.get("difficulty")),
        solution=_solution(cell),
        tags=_tags(cell.get("tags")),
    )


def required_text(cell: Mapping[str, Any], field: str) -> str:
    """The text of a required field. Raises BadRow where it is empty, or as `optional_text` does."""
    text = optional_text(cell, field)
    if text is None:
        raise BadRow(f"{field} is empty")
    return text


def _answer(cell: Mapping[str, Any]) -> str:
    """The reference; a list of accepted answers becomes the JSON text that verifiers read. Raises BadRow."""
    value = cell.get("answer")
    if not isinstance(value, list | tuple):
        return required_text(cell, "answer")
    if not value:
        raise BadRow("answer is empty")
    answers = [required_text({"an accepted answer": item}, "an accepted answer") for item in value]
    if len(answers) > MOST:
        raise BadRow(f"answer has more than {MOST} accepted answers", str(len(answers)))
    return answers[0] if len(answers) == 1 else json.dumps(answers, ensure_ascii=False)


def optional_text(cell: Mapping[str, Any], field: str) -> str | None:
    """The text of a field or None where it is empty; a number is written out. Raises BadRow for other types."""
    value = cell.get(field)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise BadRow(f"{field} is neither text nor a number", repr(value)[:80])
    whole = isinstance(value, float) and value.is_integer() and abs(value) < 2**53
    text = str(int(value) if whole else value).strip()  # whole numbers are floats in a column with nulls
    if IMAGE_PLACEHOLDER in text:
        raise BadRow(f"{field} holds the image placeholder", text[:80])
    if control := _CONTROL.search(text):
        raise BadRow(f"{field} holds a control token", control[0])
    if not text.isascii() and _SURROGATE.search(text):
        raise BadRow(f"{field} is not valid Unicode", ascii(text)[:80])
    return text or None


def _choices(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        raise BadRow("choices is not a list", repr(value)[:80])
    choices = tuple(required_text({"an option": option}, "an option") for option in value)
    if choices and not 2 <= len(choices) <= len(LETTERS):
        raise BadRow(f"choices has not 2 to {len(LETTERS)} options", str(len(choices)))
    return choices


def _without_labels(choices: Sequence[str]) -> tuple[str, ...]:
    """The options without letters of their own, where all have the right ones: `A. cat`, `(A) cat`, `A: cat`."""
    labels = [rf"\(?{letter}[.):]\s*(\S.*)" for letter in LETTERS[: len(choices)]]
    bare = [re.fullmatch(label, choice, re.DOTALL) for label, choice in zip(labels, choices, strict=True)]
    found = tuple(match[1] for match in bare if match)
    return found if len(found) == len(choices) else tuple(choices)


def _letter(answer: str, choices: Sequence[str]) -> str:
    """The letter of the right option, from its letter or its text."""
    letters = LETTERS[: len(choices)]
    found = {letter for letter, choice in zip(letters, choices, strict=True) if choice == answer}
    if len(answer) == 1 and answer in letters:
        found.add(answer)
    if len(found) > 1:
        raise BadRow("answer fits more than one option", answer)
    if not found:
        raise BadRow("answer is none of the options", answer[:80])
    return found.pop()


def _lists_options(question: str, count: int) -> bool:
    """True where the question itself labels every option, as `A.`, `A)`, `A:` or `(A)`."""
    return all(re.search(rf"(?<!\w)\(?{letter}[.):]", question) for letter in LETTERS[:count])


def _tags(value: Any) -> tuple[str, ...]:
    """The different tags of a text or a list of texts, in order; empty ones are none. Raises BadRow for others."""
    found = [optional_text({"a tag": tag}, "a tag") for tag in (value if isinstance(value, list | tuple) else [value])]
    return tuple(dict.fromkeys(tag for tag in found if tag is not None))


def _solution(cell: Mapping[str, Any]) -> str | None:
    """The solution without the think marks around it, and without the answer behind them."""
    solution = optional_text(cell, "solution")
    if solution is None:
        return None
    if thought := _THOUGHT.match(solution):
        solution = thought[1].strip()
    if mark := _MARKS.search(solution):
        raise BadRow("solution holds think or answer marks", mark[0])
    return solution or None


def _difficulty(value: Any) -> float | None:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, str) and (level := _LEVEL.fullmatch(value.strip())):
        return (int(level[1]) - 1) / 4
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise BadRow("difficulty is not a number in [0, 1]", repr(value)[:80])
    return float(value)


def _frames(name: str, folder: Path | None, count: int, vanished_ok: bool) -> tuple[str, tuple[bytes, ...]]:
    """The lines with the time of each frame, and the frames."""
    if re.match(r"[a-z]+://", name):
        raise BadRow("video is a URL: download it first", name[:80])
    try:
        frames = sample_frames((folder or Path()) / name, count)
    except BadImage:
        if not vanished_ok:
            raise
        return "", (b"",)
    return frames_prompt(frames), tuple(frame.image for frame in frames)
