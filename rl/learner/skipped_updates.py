"""Optimizer steps that are skipped: which gradients are refused, and what is kept of them for `thinkvl replay`."""

from __future__ import annotations

import json
import math
import shutil
import statistics
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from configs.errors import UserError
from configs.files import atomic_write
from configs.json_io import read_json
from configs.text import one_line
from rl.checkpoint import sync_folder
from rl.learner.learner_config import LearnerConfig
from rl.safe_load import load_state
from rl.types import Sample

NOT_FINITE, SPIKE = "not finite", "a spike"
_MOST_SKIPPED = 5  # updates, one after the other
_WINDOW = 64  # accepted norms that the median is of
_FEWEST = 16  # of them before any norm is a spike
_KEPT = 3  # steps; each holds the weights


class SpikeGuard:
    """Refuses gradients that are not finite, or whose norm is above `threshold` times the median of those accepted.

    A single bad batch is dropped. A policy that makes nothing else is broken, so the fifth refusal in a row raises
    UserError. A `threshold` of 0 accepts every finite gradient.
    """

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self._accepted: deque[float] = deque(maxlen=_WINDOW)
        self._in_a_row, self._last = 0, ""

    @property
    def limit(self) -> float:
        """The largest norm that is accepted now."""
        if not self.threshold or len(self._accepted) < _FEWEST:
            return math.inf
        usual = statistics.median(self._accepted)
        return self.threshold * usual if usual else math.inf

    def refuse(self, norm: float) -> str | None:
        """Why a gradient of this norm is not applied; None if it is, and then it counts for the median."""
        reason = NOT_FINITE if not math.isfinite(norm) else SPIKE if norm > self.limit else None
        if reason is None:
            self._accepted.append(norm)
        self._in_a_row, self._last = (0, "") if reason is None else (self._in_a_row + 1, reason)
        return reason

    def stop_after_many(self, section: str) -> None:
        """Raise UserError where too many were refused one after the other. `section` is that of the optimizer."""
        if self._in_a_row >= _MOST_SKIPPED:
            raise UserError(
                f"the gradient was {self._last} in {self._in_a_row} optimizer steps in a row (the limit of its norm is "
                f"{self.limit:.3g}). The weights are those before them, and the newest checkpoint is intact. "
                f"`thinkvl replay RUN STEP` says where it comes from in RL. Lower {section}.learning_rate or grad_clip "
                "in a new output_dir, from the last good model (model.path)"
            )

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` restores."""
        return {"accepted": list(self._accepted), "in_a_row": self._in_a_row}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict()`."""
        self._accepted = deque(state["accepted"], maxlen=_WINDOW)
        self._in_a_row = state["in_a_row"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SkippedUpdate:
    """One optimizer step that was not made, with all that it depends on; figures as the run saw them."""

    step: int  # of the run, from 1
    update: int  # among the step's optimizer steps, from 1
    reason: str
    loss: float
    norm: float
    limit: float
    samples: tuple[Sample, ...]
    config: LearnerConfig
    barred_ids: tuple[int, ...]
    model_config: dict[str, Any]  # as in the model's config.json
    weights: dict[str, torch.Tensor]  # before the step, which did not change them
    critic: dict[str, Any] | None
    random: dict[str, Any]  # of every generator, before the step
    threads: int  # PyTorch's
    micro_batch_threads: int


OnSkip = Callable[[SkippedUpdate], None]


class SkippedUpdates:
    """The newest skipped steps of a run: `step-NNNNNN/` with `update-K.pt`, `why.json` and the recipe."""

    def __init__(self, folder: Path, *, recipe: str = "") -> None:
        self.folder, self._recipe = folder, recipe

    def keep(self, skipped: SkippedUpdate) -> None:
        """Write it, and delete all but the newest steps. A full disk raises OSError."""
        target = self.folder / f"step-{skipped.step:06d}"
        with atomic_write(target / f"update-{skipped.update}.pt") as file:
            samples = tuple(replace(sample, prompt=sample.prompt.with_patches()) for sample in skipped.samples)
            kept = replace(skipped, samples=samples)
            torch.save({name: getattr(kept, name) for name in SkippedUpdate.__slots__}, file)
        figures = {name: str(getattr(skipped, name)) for name in ("update", "reason", "loss", "norm", "limit")}
        why = target / "why.json"
        known = read_json(why, list[dict[str, str]]) if why.exists() else []
        known = [*(k for k in known if k.get("update") != figures["update"]), figures]
        why.write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")
        (target / "recipe.yaml").write_text(self._recipe, encoding="utf-8")
        sync_folder(target)
        for old in self._steps()[:-_KEPT]:
            shutil.rmtree(old)

    def forget_after(self, step: int) -> None:
        """Delete what a resumed run will decide again."""
        for folder in self._steps():
            if int(folder.name.removeprefix("step-")) > step:
                shutil.rmtree(folder)

    def steps(self) -> list[int]:
        """The steps that are there."""
        return [int(folder.name.removeprefix("step-")) for folder in self._steps()]

    def load(self, step: int) -> list[SkippedUpdate]:
        """What was skipped in a step, in order; on the CPU. Raises UserError for a file that cannot be read."""
        files = sorted((self.folder / f"step-{step:06d}").glob("update-*.pt"), key=lambda p: int(p.stem[7:]))
        return [_load(file) for file in files]

    def _steps(self) -> list[Path]:
        return sorted(p for p in self.folder.glob("step-*") if p.name.removeprefix("step-").isdigit())


def _load(path: Path) -> SkippedUpdate:
    try:
        return SkippedUpdate(**load_state(path))
    except Exception as error:  # a cut or damaged file fails in many ways
        raise UserError(f"{path} cannot be read ({type(error).__name__}: {one_line(error)})") from error
