"""Writes tasks as a Parquet file that `data.train` reads, with their images and the origin of each row."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from configs.errors import UserError
from configs.files import atomic_write, open_regular
from configs.text import one_line
from rewards.types import Task
from rl.curation.sample_log import differences
from rollouts.thinking_patterns import PATTERNS

_ROWS = 64  # of a row group: they lie in memory together
_METADATA = b"thinkvl"
_PACKAGES = ("thinkvl", "torch", "transformers")
_PROVENANCE = pa.struct(
    [
        ("task", pa.string()),  # the task's id in the data that was read
        ("model", pa.string()),
        ("seed", pa.int64()),
        ("temperature", pa.float64()),
        ("verifier", pa.string()),
        ("samples", pa.int32()),  # that have a verdict
        ("correct", pa.int32()),
        ("versions", pa.string()),  # JSON: package -> version
        ("date", pa.string()),  # UTC
    ]
)
_TASK = [
    ("id", pa.string()),
    ("images", pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))),
    ("question", pa.string()),
    ("answer", pa.string()),
    ("verifier", pa.string()),
    ("choices", pa.list_(pa.string())),
    ("difficulty", pa.float64()),  # 1 - pass rate
    ("solution", pa.string()),
    ("tags", pa.list_(pa.string())),
    ("source", pa.string()),
]
PROMPTS = pa.schema([*_TASK, ("provenance", _PROVENANCE)])
WORKED = pa.schema(
    [
        *_TASK,
        ("response", pa.string()),  # what the sample says after its thinking
        ("tokens", pa.int32()),  # of the sample
        ("patterns", pa.struct([(name, pa.int32()) for name in PATTERNS])),
        ("provenance", _PROVENANCE),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The origin that all rows of a set share."""

    model: str
    seed: int
    temperature: float
    versions: str
    date: str

    @classmethod
    def now(cls, model: str, *, seed: int, temperature: float) -> Origin:
        """An origin with the present time and package versions."""
        versions = {name: version(name) for name in _PACKAGES} | {"python": platform.python_version()}
        date = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(model=model, seed=seed, temperature=temperature, versions=json.dumps(versions), date=date)

    def row(self, task: Task, *, row_id: str, samples: int, correct: int) -> dict[str, Any]:
        """The columns of a task: difficulty is 1 - pass rate, and `tags` are those of `tags_of`."""
        return {
            "id": row_id,
            "images": [{"bytes": image, "path": None} for image in task.images],
            "question": task.question,
            "answer": task.answer,
            "verifier": task.verifier,
            "choices": list(task.choices),
            "difficulty": 1 - correct / samples,
            "solution": task.solution,
            "tags": list(tags_of(task)),
            "source": task.source,
            "provenance": {
                "task": task.id,
                "model": self.model,
                "seed": self.seed,
                "temperature": self.temperature,
                "verifier": task.verifier,
                "samples": samples,
                "correct": correct,
                "versions": self.versions,
                "date": self.date,
            },
        }


def tags_of(task: Task) -> tuple[str, ...]:
    """A task's tags, or its source if it has none."""
    return task.tags or (task.source,)


def write_set(path: Path, rows: Iterable[dict[str, Any]], schema: pa.Schema, *, settings: Mapping[str, Any]) -> None:
    """Write rows to `path` atomically, with the settings in the file's metadata. Raises OSError."""
    kept = schema.with_metadata({_METADATA: json.dumps(settings).encode()})
    with atomic_write(path) as file, pq.ParquetWriter(file, kept, compression="zstd") as writer:
        left = iter(rows)
        while batch := list(islice(left, _ROWS)):
            writer.write_table(pa.Table.from_pylist(batch, schema=kept))


def already_made(path: Path, settings: Mapping[str, Any]) -> bool:
    """Whether `path` is a set with these settings. Raises UserError for any other file, so that none is overwritten."""
    if path.suffix != ".parquet":
        raise UserError(f"{path}: the output's name must end in .parquet")
    if not path.exists():
        return False
    try:
        with open_regular(path) as file:
            metadata: Mapping[bytes, bytes] = pq.read_schema(file).metadata or {}
        there = json.loads(metadata[_METADATA])
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise UserError(
            f"{path}: exists, and is no set that this command made ({one_line(error)}); choose another output"
        ) from error
    if there != json.loads(json.dumps(settings)):
        raise UserError(
            f"{path}: exists, and was made otherwise:\n{differences(there, settings)}\n"
            "choose another output, or delete it; samples that fit are used again"
        )
    return True
