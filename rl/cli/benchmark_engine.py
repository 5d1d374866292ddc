"""Opens the engine that generates the completions of a benchmark evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from configs.errors import UserError
from configs.rl import SamplingConfig
from rl.cli.open_model import ModelPlace, open_model, open_processor
from rl.run.benchmarks.engine_answerer import EngineAnswerer
from rl.run.model_prompt import read_prompt
from rollouts.engines.driver import EngineDriver
from rollouts.engines.engine_spec import EngineSpec, choose_engine
from rollouts.engines.transformers import TransformersEngine
from rollouts.model_family import VisionLanguageProcessor, family_at, family_of
from rollouts.tasks.prompts import PromptRenderer
from rollouts.tasks.templates import PromptTemplates


def open_engine(
    place: ModelPlace,
    engine: str,
    engine_options: Sequence[str],
    *,
    sampling: SamplingConfig,
    seed: int,
    max_prompt_tokens: int,
) -> EngineAnswerer:
    """Open `engine`, a key of `ENGINES` or a user's `file.py:Class`, with its options (`name=value`).

    Prompts have the model's own system text and the benchmark's template. Raises UserError.
    """
    if engine == "transformers":
        driver, processor = _embedded(place)
    else:
        driver, processor = _chosen(place, engine, dict(_option(text) for text in engine_options))
    prompt = replace(read_prompt(place.path, place.run), template=None)
    return EngineAnswerer(
        driver,
        PromptRenderer(processor, max_prompt_tokens=max_prompt_tokens, templates=PromptTemplates(prompt=prompt)),
        lambda ids: processor.tokenizer.decode(ids, skip_special_tokens=True),
        sampling=sampling,
        seed=seed,
    )


def _embedded(place: ModelPlace) -> tuple[EngineDriver, VisionLanguageProcessor]:
    model, processor = open_model(place)
    stop, barred = family_of(model.config).stop_and_barred_ids(place.path, processor)
    torch.nn.Module.to(model, device="cuda" if torch.cuda.is_available() else "cpu", dtype=getattr(torch, _dtype()))
    return EngineDriver(TransformersEngine(model, stop_ids=stop, barred_ids=barred)), processor


def _chosen(place: ModelPlace, use: str, options: dict[str, Any]) -> tuple[EngineDriver, VisionLanguageProcessor]:
    engine = choose_engine(use, options, base=Path.cwd(), trains=False)
    processor = open_processor(place)
    stop, barred = family_at(place.path).stop_and_barred_ids(place.path, processor)
    spec = EngineSpec(
        model_path=place.path,
        dtype=_dtype(),
        stop_ids=tuple(stop),
        barred_ids=tuple(barred),
        threads=torch.get_num_threads(),
        engine=engine,
        options=options,
    )
    return spec.build(), processor


def _dtype() -> str:
    return "bfloat16" if torch.cuda.is_available() else "float32"


def _option(text: str) -> tuple[str, Any]:
    """Parse `name=value`; a numeric value becomes an int or a float. Raises UserError."""
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise UserError(f"--engine-option {text}: must be NAME=VALUE, such as url=http://127.0.0.1:8000/v1")
    for kind in (int, float):
        try:
            return name, kind(value)
        except ValueError:
            continue
    return name, value
