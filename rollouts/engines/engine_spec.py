"""Which engine a worker runs, and whether it can run here; found out before anything is started."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from configs.engine import ENGINES
from rollouts.engines.driver import EngineDriver
from rollouts.engines.engine_file import EngineFile, find_engine
from rollouts.engines.engine_options import check_options
from rollouts.engines.protocol import EngineError
from rollouts.model_family import family_at

VLLM_CPU_LATENTS = {
    "kv_lora_rank": 512,
    "qk_rope_head_dim": 64,
}  # vLLM's decode kernel for CPUs knows no others
_CPU_EXPERTS = 32  # sizes of a layer with experts must be multiples of it


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSpec:
    """What an actor needs to build its engine: sent once, weights follow by `publish`."""

    model_path: str
    dtype: str
    stop_ids: tuple[int, ...]
    barred_ids: tuple[int, ...]
    threads: int = 1
    record_experts: bool = False  # completions then say which experts each token went to
    engine: str | EngineFile = "transformers"  # a key of `configs.engine.ENGINES`, or the user's own
    context: int | None = None  # vLLM: the most tokens of a prompt and its answer; None: the model's own limit
    gpu_share: float = 1.0  # vLLM: of a GPU that is this worker's
    sleeps: bool = False  # vLLM: started so that it can free its memory while the learner works
    options: Mapping[str, Any] = field(default_factory=dict)  # of a built-in engine, see `engine_options.py`

    def build(self) -> EngineDriver:
        """Start the engine with the weights of the checkpoint."""
        torch.set_num_threads(self.threads)
        if isinstance(self.engine, EngineFile):
            return EngineDriver(self.engine.load()(self, **self.engine.options))
        module, _, name = ENGINES[self.engine].partition(":")
        return EngineDriver(getattr(importlib.import_module(module), name)(self))


def choose_engine(use: str, options: Mapping[str, Any], *, base: Path, trains: bool) -> str | EngineFile:
    """The engine that `rl.engine` names: a key of `ENGINES`, or `file.py:Class` with the file looked for in `base`.

    `trains`: it must take new weights. Raises EngineError where it cannot run, does not implement the protocol, or does
    not take the options. Those of a built-in engine belong into the `EngineSpec`.
    """
    if use in ENGINES:
        check_engine(use)
        check_options(use, options)
        return use
    engine = find_engine(use, options, base=base)
    if trains and engine.fixed_weights:
        raise EngineError(
            f"rl.engine = {use!r}: the weights of this engine are fixed (`fixed_weights = True`), and a run sends new "
            "weights to its workers. Choose an engine that loads weights; to measure with this one, run "
            f"`thinkvl eval RUN_OR_MODEL --recipe FILE rl.engine={use}`"
        )
    return engine


def check_engine(name: str) -> None:
    """Raise EngineError where the engine's package is missing."""
    found = find_spec(name)
    if name == "vllm" and (found is None or found.origin is None):  # a mere folder of that name has no origin
        raise EngineError(
            "rl.engine = 'vllm', and vLLM is not installed here. `make vllm-env` makes an environment that has it "
            "(.vllm-env, about 2 GB); run .vllm-env/bin/thinkvl. Or use rl.engine: transformers"
        )


def check_sizes(name: str, model_path: str) -> None:
    """Raise EngineError where vLLM's CPU kernels do not know the model's sizes."""
    if name != "vllm" or torch.cuda.is_available():
        return
    text = family_at(model_path).load_config(model_path).text_config
    wrong = [
        f"{key} = {getattr(text, key)} (must be {size})"
        for key, size in VLLM_CPU_LATENTS.items()
        if getattr(text, key) != size
    ]
    experts = ("hidden_size", "moe_intermediate_size")
    wrong += [
        f"{key} = {getattr(text, key)} (must be a multiple of {_CPU_EXPERTS})"
        for key in experts
        if getattr(text, key) % _CPU_EXPERTS
    ]
    if wrong:
        raise EngineError(
            f"vLLM on a CPU cannot run {model_path}: {', '.join(wrong)}. Use rl.engine: transformers, "
            "another model, or a GPU"
        )
