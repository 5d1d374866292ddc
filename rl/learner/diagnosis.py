"""Finds where a bad gradient comes from: inputs, the first tensor that is not finite, parameters, samples."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from configs.text import counted
from rl.learner.learner import Learner
from rl.learner.parallel import SINGLE_PROCESS
from rl.types import Sample, StepBatch

_OURS = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """The gradient norm of one parameter or of one sample."""

    name: str
    norm: float


def gradient_norm(model: nn.Module) -> float:
    """The norm of the whole gradient, as gradient clipping computes it."""
    return float(nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None]))


def not_finite_inputs(samples: Sequence[Sample]) -> list[str]:
    """A line for each number of the batch that is not finite."""
    lines = []
    for at, s in enumerate(samples):
        columns = {"advantage": np.array([s.advantage]), "old_logprobs": s.old_logprobs, **s.columns}
        for name, values in {**columns, "pixel_values": s.prompt.pixel_values}.items():
            with np.errstate(over="ignore"):
                bad = ~np.isfinite(np.asarray(values, dtype=np.float32))  # the learner's type: 1e39 is infinite in it
            if bad.any():
                first = np.asarray(values).ravel()[int(bad.ravel().argmax())]
                lines.append(
                    f"sample {at} (task {s.prompt.task.id}): {name} holds {first:g} ({bad.sum()} of {bad.size})"
                )
    return lines


def not_finite_weights(model: nn.Module) -> list[str]:
    """Names of the weights that hold a number that is not finite."""
    return [name for name, t in model.state_dict().items() if t.is_floating_point() and not t.isfinite().all()]


def parameter_shares(model: nn.Module) -> list[Share]:
    """Every parameter's gradient norm, largest first; those that are not finite before all others."""
    shares = [Share(name=n, norm=float(p.grad.norm())) for n, p in model.named_parameters() if p.grad is not None]
    return sorted(shares, key=_size, reverse=True)


def sample_shares(
    learner: Learner, batch: StepBatch, samples: Sequence[Sample], on_sample: Callable[[], None]
) -> list[Share]:
    """The gradient norm of each sample of a step alone, under the step's denominators; largest first.

    Gradients are cleared.
    """
    shares = []
    for at, sample in enumerate(samples):
        learner.optimizer.zero_grad()
        learner.accumulate(batch, [sample])
        about = (
            f"{at}  {sample.prompt.task.id}  advantage {sample.advantage:.3g}  "
            f"{counted(len(sample.token_ids), 'token')}"
        )
        shares.append(Share(name=about, norm=gradient_norm(learner.model)))
        on_sample()
    learner.optimizer.zero_grad()
    return sorted(shares, key=_size, reverse=True)


def first_not_finite(learner: Learner, batch: StepBatch) -> list[str]:
    """Run the step under anomaly detection. Returns where forward and backward first make a number that is not finite.

    The list is empty if they make none. Gradients are cleared.
    """
    found: list[str] = []
    learner.optimizer.zero_grad()
    with _watched(learner.model, found), _one_thread(learner), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            with torch.autograd.detect_anomaly():
                learner.accumulate(batch)
        except RuntimeError as error:
            name = re.match(r"Function '(\w+)' returned nan values", str(error))
            if name is None:
                raise
            found.append(f"backward: {name[1]} made nan{_made_in([str(w.message) for w in caught])}")
    learner.optimizer.zero_grad()
    return found


@contextmanager
def _one_thread(learner: Learner) -> Iterator[None]:
    """Run micro-batches one after the other: of several threads, none is the first."""
    before, learner.parallel = learner.parallel, SINGLE_PROCESS
    try:
        yield
    finally:
        learner.parallel = before


@contextmanager
def _watched(model: nn.Module, found: list[str]) -> Iterator[None]:
    """Add to `found` the first module whose output is not finite, and the first whose output's gradient is not."""
    seen: set[str] = set()

    def note(kind: str, text: str, tensor: torch.Tensor) -> None:
        if kind not in seen and not tensor.isfinite().all():
            seen.add(kind)
            bad = int((~tensor.isfinite()).sum())
            found.append(f"{kind}: {text} ({bad} of {tensor.numel()} numbers)")

    def hook(name: str) -> Callable[..., None]:
        def after(module: nn.Module, args: Any, output: Any) -> None:
            for tensor in output if isinstance(output, tuple) else (output,):
                if not isinstance(tensor, torch.Tensor) or not tensor.is_floating_point():
                    continue
                note("forward", f"the output of {name}", tensor)
                if tensor.requires_grad:
                    tensor.register_hook(lambda g: note("backward", f"the gradient of the output of {name}", g))

        return after

    hooks = [m.register_forward_hook(hook(name)) for name, m in model.named_modules() if name]
    try:
        yield
    finally:
        for handle in hooks:
            handle.remove()


def _made_in(messages: Sequence[str]) -> str:
    """The innermost line of ours that anomaly detection names, as `, from rl/algorithms/clipped_losses.py:27`."""
    for message in messages:
        places = re.findall(r'File "([^"]+)", line (\d+)', message)
        for file, line in reversed(places):
            if Path(file).is_relative_to(_OURS) and "site-packages" not in file and Path(file) != Path(__file__):
                return f", in what {Path(file).relative_to(_OURS)}:{line} computed"
    return ""


def _size(share: Share) -> float:
    return share.norm if np.isfinite(share.norm) else float("inf")
