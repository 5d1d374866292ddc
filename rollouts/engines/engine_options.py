"""What `rl.engine_options` may hold for a built-in engine, checked before anything is started or paid for.

The keys of the embedded engine are those of `BatchLimits`. The keys of vLLM are the fields of its `EngineArgs`, read
from its source: importing vLLM takes half a minute and changes settings of the whole process.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from configs.text import nearest_or_allowed, one_line
from rollouts.engines.continuous_batching import BatchLimits
from rollouts.engines.protocol import EngineError

SAMPLER = "sampler"  # a key of our own beside vLLM's
SAMPLERS = ("exact", "native")

_OURS = "ThinkVL sets it"
# Fields of vLLM's `EngineArgs` that a recipe may not set, and why.
REFUSED: Mapping[str, str] = {
    **dict.fromkeys(("model", "model_weights", "hf_config_path", "revision"), "`model.path` says which model"),
    **dict.fromkeys(("tokenizer", "tokenizer_mode", "tokenizer_revision"), f"{_OURS}: prompts come as tokens"),
    "dtype": "set `rl.engine_dtype`",
    "max_model_len": "it follows from `data.max_prompt_tokens` and `max_new_tokens` of `sampling` and `evaluation`",
    "seed": f"{_OURS}: what a sample draws follows from the run's `seed`",
    "trust_remote_code": "no code of a model folder is run: the processor is our own",
    "logprobs_mode": f"{_OURS}: it brings back the log-probs that the learner needs; see `sampler`",
    "max_logprobs": f"{_OURS}: it brings back the log-probs that the learner needs; see `sampler`",
    "logits_processors": f"{_OURS}: one draws the tokens, or bars those that must never be sampled",
    "additional_config": f"{_OURS}: it carries the barred tokens",
    "async_scheduling": f"{_OURS}: on with `sampler: native`, off with `exact`",
    "worker_extension_cls": f"{_OURS}: it receives new weights",
    "weight_transfer_config": f"{_OURS}: it receives new weights",
    "enable_sleep_mode": "set `rl.colocate`",
    "enable_return_routed_experts": "set `rl.router_replay`",
    "mm_processor_cache_gb": f"{_OURS}: images come processed",
    "generation_config": "set `rl.sampling`",
    "override_generation_config": "set `rl.sampling`",
    **dict.fromkeys(
        ("speculative_config", "spec_method", "spec_model", "spec_tokens"),
        "a draft model would need weight syncs of its own, which do not exist",
    ),
    **dict.fromkeys(("quantization", "quantization_config"), "weight syncs send `rl.engine_dtype`, and nothing else"),
    "enable_lora": "weight syncs send adapters merged into the weights",
    **dict.fromkeys(("data_parallel_size", "data_parallel_size_local"), "set `rl.workers`: each has a vLLM of its own"),
}
_PLAIN = {"int": int, "float": (int, float), "bool": bool, "str": str, "None": type(None)}


def check_options(engine: str, options: Mapping[str, Any]) -> None:
    """Raise EngineError with every option that the built-in `engine` does not take."""
    find = _vllm_problems if engine == "vllm" else _batch_problems
    if problems := list(find(options)):
        raise EngineError("; ".join(f"rl.engine_options.{problem}" for problem in problems))


def _batch_problems(options: Mapping[str, Any]) -> Iterator[str]:
    allowed = [field.name for field in fields(BatchLimits)]
    for name, value in options.items():
        if name not in allowed:
            yield f"{name}: unknown with engine transformers{nearest_or_allowed(name, allowed)}"
        elif type(value) is not int or value < 1:
            yield f"{name} = {value!r}: must be a whole number, 1 or more"


def _vllm_problems(options: Mapping[str, Any]) -> Iterator[str]:
    types = vllm_arguments()
    for name, value in options.items():
        if name == SAMPLER:
            if value not in SAMPLERS:
                yield f"{name} = {value!r}: must be {' or '.join(SAMPLERS)}"
        elif name in REFUSED:
            yield f"{name}: not for a recipe: {REFUSED[name]}"
        elif name not in types:
            yield f"{name}: unknown to vLLM's EngineArgs{nearest_or_allowed(name, [*types, SAMPLER])}"
        elif not _fits(value, types[name]):
            yield f"{name} = {value!r}: must be {types[name].replace(' | ', ' or ')}, says vLLM's EngineArgs"


def vllm_arguments() -> dict[str, str]:
    """The fields of the installed vLLM's `EngineArgs`, each with its annotation as text."""
    found = find_spec("vllm")
    if found is None or found.origin is None:
        raise EngineError("vLLM is not installed here")
    source = Path(found.origin).parent / "engine" / "arg_utils.py"
    try:
        tree = ast.parse(source.read_text(encoding="utf-8"))
    except (OSError, SyntaxError) as error:
        raise EngineError(f"cannot read the options of this vLLM: {one_line(error)}. Install vLLM again") from error
    (body,) = [node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "EngineArgs"]
    named = [(line.target, line.annotation) for line in body if isinstance(line, ast.AnnAssign)]
    return {target.id: ast.unparse(annotation) for target, annotation in named if isinstance(target, ast.Name)}


def _fits(value: Any, annotation: str) -> bool:
    """Whether a value has an annotation's type; True where that is more than a choice of plain types."""
    parts = annotation.split(" | ")
    if any(part not in _PLAIN for part in parts):
        return True
    return any(isinstance(value, _PLAIN[part]) and (part == "bool" or type(value) is not bool) for part in parts)
