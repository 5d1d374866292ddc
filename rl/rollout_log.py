"""Every rollout of a run in Parquet: one file a step, and each image once, so that rewards can be tried again later."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from configs.errors import UserError
from configs.files import MAX_IMAGE_BYTES, atomic_write, open_regular, read_bytes
from configs.text import one_line
from rewards.types import Task
from rl.types import Sample
from rollouts.types import Group, ScoredRollout

_FLOATS = pa.list_(pa.float32())
_UNKNOWN = 2**16 - 1
# `ids` are [tokens, layers, experts] in row-major order, layers those with a mixture; 65535 means not recorded.
_ROUTES = pa.struct([("layers", pa.int32()), ("experts", pa.int32()), ("ids", pa.list_(pa.uint16()))])
SCHEMA = pa.schema(
    [
        ("step", pa.int32()),  # counted from 1, as in metrics.jsonl
        ("group", pa.int32()),  # place of the prompt in the step
        ("sample", pa.int32()),  # place in the group
        ("task", pa.string()),
        ("source", pa.string()),
        ("question", pa.string()),
        ("images", pa.list_(pa.string())),  # names of files in `images/`
        ("answer", pa.string()),  # the reference answer
        ("verifier", pa.string()),
        ("choices", pa.list_(pa.string())),
        ("difficulty", pa.float64()),
        ("prompt_tokens", pa.int32()),
        ("text", pa.string()),
        ("token_ids", pa.list_(pa.int32())),
        ("policy_logprobs", _FLOATS),
        ("sampler_logprobs", _FLOATS),  # null where they equal the policy's; `read_step` fills them in
        ("finish_reason", pa.string()),
        ("segments", pa.list_(pa.struct([("start", pa.int32()), ("stop", pa.int32()), ("version", pa.int64())]))),
        ("sampled", pa.list_(pa.bool_())),  # false for tokens that were inserted
        ("routed_experts", _ROUTES),  # null where the engine did not record them
        ("verdict", pa.string()),
        ("rule", pa.string()),
        ("extracted", pa.string()),
        ("detail", pa.string()),
        ("reward", pa.float64()),  # the scorer's; null where a verifier failed
        ("parts", pa.map_(pa.string(), pa.float64())),
        ("failures", pa.map_(pa.string(), pa.string())),  # term -> kind of its failure
        ("shaped_reward", pa.float64()),  # with the length reward and the like: what the learner sees
        ("advantage", pa.float64()),  # null where the rollout is not trained on
        ("trainable", pa.list_(pa.bool_())),  # false for tokens that are masked from the loss; null as above
        ("learner_logprobs", _FLOATS),  # the ratio's denominator where the learner computed it; null where it did not
        ("token_advantages", _FLOATS),  # of algorithms that give each token its own; null elsewhere
    ]
)


_REPEATED = [field.name for field in SCHEMA if field.type == pa.string() and field.name != "text"]


class RolloutLog:
    """Writes `step-NNNNNN.parquet` in `folder`, under a temporary name and renamed; images by hash in `images/`.

    A step that is written again replaces its file, so a resumed run leaves no rollout twice. A full disk raises
    OSError and leaves no part of a file. `begin` writes in a thread, beside the learner; no checkpoint of a step may
    begin before `wait` has returned.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="rollout-log")
        self._writing: Future[None] | None = None

    def begin(
        self,
        step: int,
        scored: Sequence[Sequence[ScoredRollout]],
        groups: Sequence[Group],
        samples: Sequence[Sample],
    ) -> None:
        """`write` in the thread, once what was begun before is on disk."""
        self.wait()
        self._writing = self._thread.submit(self.write, step, scored, groups, samples)

    def wait(self) -> None:
        """Return when what was begun is on disk; raise what `write` raised."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def write(
        self,
        step: int,
        scored: Sequence[Sequence[ScoredRollout]],
        groups: Sequence[Group],
        samples: Sequence[Sample],
    ) -> None:
        """Write all rollouts of `step`: as scored, as shaped in `groups`, with the advantages of `samples`."""
        shaped = {m.rollout.id: m.score.reward for g in groups for m in g.rollouts}
        trained = {s.id: s for s in samples}
        rows = [
            {
                "step": step,
                "group": place,
                "sample": i,
                **_row(rollout),
                "images": [self._keep(image) for image in rollout.rollout.prompt.task.images],
                "shaped_reward": shaped.get(rollout.rollout.id),
                **_trained(trained.get(rollout.rollout.id)),
            }
            for place, group in enumerate(scored)
            for i, rollout in enumerate(group)
        ]
        path = self.path(step)
        path.parent.mkdir(parents=True, exist_ok=True)
        table = pa.Table.from_pylist(rows, schema=SCHEMA)
        with atomic_write(path) as file:
            # A dictionary of token ids or log-probs saves nothing, and takes ten times as long as the rest.
            pq.write_table(table, file, compression="zstd", use_dictionary=_REPEATED)  # pyright: ignore[reportArgumentType]

    def forget_after(self, step: int) -> None:
        """Delete the files of later steps: a run that goes on after `step` writes them again."""
        for number, path in rollout_files(self.folder).items():
            if number > step:
                path.unlink()

    def path(self, step: int) -> Path:
        """Where the rollouts of `step` are, once they are written."""
        return self.folder / f"step-{step:06d}.parquet"

    def _keep(self, image: bytes) -> str:
        """Store an image if it is new; its name."""
        name = hashlib.sha256(image).hexdigest()
        path = self.folder / "images" / name[:2] / name
        if not path.exists():
            with atomic_write(path) as file:
                file.write(image)
        return name


_REQUIRED = ("step", "group", "sample", "task", "source", "question", "answer", "verifier", "text", "images", "choices")


def rollout_files(folder: Path) -> dict[int, Path]:
    """The file of each step, by step and in order; empty where there are none."""
    numbers = {path.stem.removeprefix("step-"): path for path in folder.glob("step-*.parquet")}
    return dict(sorted((int(number), path) for number, path in numbers.items() if number.isdecimal()))


def read_step(path: Path) -> list[dict[str, Any]]:
    """The rows of one step as dictionaries. Raises UserError for a file that holds anything else."""
    try:
        with open_regular(path) as file:
            # Arrow's threads may abort a process that ends soon after they have read.
            rows = pq.read_table(file, schema=SCHEMA, use_threads=False).to_pylist()
        if any(row[name] is None for row in rows for name in _REQUIRED):
            raise ValueError(f"one of {', '.join(_REQUIRED)} is missing in a row")
        for row in rows:
            if row["sampler_logprobs"] is None:
                row["sampler_logprobs"] = row["policy_logprobs"]
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise UserError(f"{path}: is damaged or no file of rollouts ({one_line(error)}); delete it") from error
    return rows


def read_rollouts(folder: Path) -> Iterator[dict[str, Any]]:
    """The rows of every step in order, as dictionaries.

    Raises FileNotFoundError where there are none, and UserError for a file that holds anything else.
    """
    paths = rollout_files(folder).values()
    if not paths:
        raise FileNotFoundError(f"{folder}: holds no rollouts (step-*.parquet)")
    for path in paths:
        yield from read_step(path)


def task_of(row: dict[str, Any], folder: Path) -> Task:
    """The task of a row as the verifier saw it; its images are read from `folder`."""
    return Task(
        id=row["task"],
        source=row["source"],
        question=row["question"],
        answer=row["answer"],
        images=tuple(read_bytes(folder / "images" / name[:2] / name, limit=MAX_IMAGE_BYTES) for name in row["images"]),
        verifier=row["verifier"],
        choices=tuple(row["choices"]),
        difficulty=row["difficulty"],
    )


def _row(scored: ScoredRollout) -> dict[str, Any]:
    rollout, score = scored.rollout, scored.score
    task, completion, verdict = rollout.prompt.task, rollout.completion, score.verdict
    equal = np.array_equal(completion.policy_logprobs, completion.sampler_logprobs)
    return {
        "task": task.id,
        "source": task.source,
        "question": task.question,
        "answer": task.answer,
        "verifier": task.verifier,
        "choices": list(task.choices),
        "difficulty": task.difficulty,
        "prompt_tokens": len(rollout.prompt.input_ids),
        "text": _storable(rollout.text),
        "token_ids": completion.token_ids.astype(np.int32),
        "policy_logprobs": completion.policy_logprobs,
        "sampler_logprobs": None if equal else completion.sampler_logprobs,
        "finish_reason": completion.finish_reason,
        "segments": [{"start": s.start, "stop": s.stop, "version": s.version} for s in completion.segments],
        "sampled": completion.sampled_mask,
        "routed_experts": _routes(completion.routed_experts),
        "verdict": verdict.kind.value,
        "rule": verdict.rule,
        "extracted": None if verdict.extracted is None else _storable(verdict.extracted),
        "detail": _storable(verdict.detail),
        "reward": score.reward,
        "parts": list(score.parts.items()),
        "failures": [(name, failed.kind.value) for name, failed in score.failures.items()],
    }


def _trained(sample: Sample | None) -> dict[str, Any]:
    if sample is None:
        return {}
    computed = "engine_logprobs" in sample.columns  # else the old log-probs are the engine's own
    return {
        "advantage": sample.advantage,
        "trainable": sample.trainable,
        "learner_logprobs": sample.old_logprobs if computed else None,
        "token_advantages": sample.columns.get("token_advantages"),
    }


def _routes(routes: np.ndarray | None) -> dict[str, Any] | None:
    if routes is None:
        return None
    ids = routes.astype(np.uint16)
    ids[routes == np.iinfo(routes.dtype).max] = _UNKNOWN
    return {"layers": routes.shape[1], "experts": routes.shape[2], "ids": ids.ravel()}


def _storable(text: str) -> str:
    """Parquet's text is UTF-8, and a lone surrogate is not."""
    return text.encode("utf-8", "replace").decode("utf-8")
