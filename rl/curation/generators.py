"""Generators turn tasks into sampled texts; `PoolGenerator` uses engines in Ray workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import ray

from configs.data import DataConfig
from configs.prompt import QUESTION
from configs.rl import SamplingConfig
from rewards.extraction import THINK_CLOSE, THINK_OPEN
from rewards.images import BadImage
from rewards.types import Task
from rl.cli.open_model import ModelPlace, open_processor
from rollouts.engines.engine_file import EngineFile
from rollouts.engines.engine_spec import EngineSpec, check_sizes
from rollouts.model_family import family_at
from rollouts.tasks.prompts import BadPrompt, PromptRenderer
from rollouts.types import Completion, Request, Segment
from rollouts.workers.pool import RolloutPool
from rollouts.workers.start_ray import start_ray

DIRECT = f"{QUESTION}\nGive the final answer directly, without thinking and without an explanation."
NO_WORKER = "no worker survives it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """One sample before it is judged."""

    text: str
    tokens: int
    finish_reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """The sampling parameters of a command."""

    n: int  # of each task
    sampling: SamplingConfig
    direct: str | None = None  # a template: answer at once, without thinking


class Generator(Protocol):
    """Draws samples."""

    def generate(self, tasks: Sequence[Task], seeds: Sequence[int], drawing: Drawing) -> list[list[Draft] | str]:
        """The samples of each task, or the reason why there are none. They depend on `seeds`, one for each task."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPlan:
    """A model and the settings of its engine."""

    place: ModelPlace
    data: DataConfig
    dtype: str | None  # None: that of the checkpoint
    engine: str | EngineFile
    options: Mapping[str, Any]  # of a built-in engine
    context: int  # the most tokens of a prompt and its completion
    workers: int
    failures: Path  # folder for diagnoses of workers that fail


class PoolGenerator:
    """Samples from a model in Ray workers; a worker that fails is replaced."""

    def __init__(self, plan: ModelPlan, pool: RolloutPool, renderer: PromptRenderer) -> None:
        self._pool, self._renderer = pool, renderer
        self._tokenizer = renderer.processor.tokenizer
        self._closes_thinking = isinstance(plan.engine, str)  # an engine of the user may not take prefixes

    def generate(self, tasks: Sequence[Task], seeds: Sequence[int], drawing: Drawing) -> list[list[Draft] | str]:
        """See `Generator.generate`. With `direct`, the sample begins with an empty think block."""
        start = self._empty_block() if drawing.direct is not None and self._closes_thinking else None
        sampling = drawing.sampling
        if start is not None:
            sampling = replace(sampling, max_new_tokens=sampling.max_new_tokens + len(start.token_ids))
        requests: list[Request] = []
        found: list[list[Draft] | str] = []
        for task, seed in zip(tasks, seeds, strict=True):
            try:
                prompt = self._renderer.render(replace(task, template=drawing.direct or task.template))
            except (BadPrompt, BadImage) as error:
                found.append(error.reason)
                continue
            prefixes = (start,) * drawing.n if start is not None else ()
            requests.append(Request(prompt=prompt, n=drawing.n, seed=seed, prefixes=prefixes))
            found.append([])
        groups = iter(self._pool.generate(requests, sampling) if requests else [])
        return [own if isinstance(own, str) else self._drafts(next(groups)) or NO_WORKER for own in found]

    def _drafts(self, completions: Sequence[Completion]) -> list[Draft]:
        return [
            Draft(
                text=self._tokenizer.decode(completion.token_ids, skip_special_tokens=True),
                tokens=int(completion.sampled_mask.sum()),
                finish_reason=completion.finish_reason,
            )
            for completion in completions
        ]

    def _empty_block(self) -> Completion:
        """A completion to continue: an empty think block."""
        ids = self._tokenizer.encode(THINK_OPEN + THINK_CLOSE, add_special_tokens=False)
        zeros = np.zeros(len(ids), np.float32)
        return Completion(
            token_ids=np.asarray(ids, np.int64),
            policy_logprobs=zeros,
            sampler_logprobs=zeros,
            finish_reason="abort",
            segments=(Segment(start=0, stop=len(ids), version=0, sampled=False),),
        )


@contextmanager
def open_pool(plan: ModelPlan, say: Callable[[str], None]) -> Iterator[PoolGenerator]:
    """Start the workers, and Ray unless it runs. Raises UserError if the model, the engine or Ray cannot start."""
    place = plan.place
    if isinstance(plan.engine, str):
        check_sizes(plan.engine, place.path)
    processor = open_processor(place)
    family = family_at(place.path)
    stop, barred = family.stop_and_barred_ids(place.path, processor)
    renderer = PromptRenderer.from_config(processor, plan.data)
    spec = EngineSpec(
        model_path=str(Path(place.path).resolve()) if Path(place.path).is_dir() else place.path,
        dtype=plan.dtype or _own_dtype(place.path),
        stop_ids=tuple(stop),
        barred_ids=tuple(barred),
        engine=plan.engine,
        options=plan.options,
        context=plan.context,
    )
    with ExitStack() as stack:
        if start_ray(plan.workers, say=say):
            stack.callback(ray.shutdown)
        pool = stack.enter_context(closing(RolloutPool(spec, workers=plan.workers, folder=plan.failures, say=say)))
        yield PoolGenerator(plan, pool, renderer)


def _own_dtype(path: str) -> str:
    """The dtype of a checkpoint's weights according to its config."""
    name = str(getattr(family_at(path).load_config(path), "dtype", None)).removeprefix("torch.")
    return name if name in ("float32", "bfloat16", "float16") else "float32"
