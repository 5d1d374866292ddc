"""Finds and loads the model that a user names: a run, a folder or a hub id."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from configs.errors import UserError
from configs.text import nearest_names
from rl.run.folder import RunFolder

if TYPE_CHECKING:
    from rollouts.model_family import VisionLanguageModel, VisionLanguageProcessor

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPlace:
    """The place of a model.

    Example: `ModelPlace(name="runs/a", path="runs/a/rl/model", run=Path("runs/a"), stage="rl")`.
    """

    name: str  # as the user wrote it
    path: str  # a folder or a hub id
    run: Path | None = None  # the run that made it
    stage: str | None = None  # the stage that it comes from


def find_model(name: str) -> ModelPlace:
    """Find the model `name`: the last finished stage of a run, a model's folder, or a hub id. Nothing is loaded.

    Raises UserError that says what was found instead.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        if (path / "recipe.yaml").is_file():
            return _model_of_run(name, path)
        if (path / "config.json").is_file():
            return ModelPlace(name=name, path=str(path))
        raise UserError(f"{name}: holds neither a run (recipe.yaml) nor a model (config.json){_inside(path)}")
    if path.exists():
        raise UserError(f"{name}: is a file; name the model's or the run's folder, or a hub id (ORG/NAME)")
    local_parent = name.count("/") and path.parent.is_dir()
    if _HUB_ID.fullmatch(name) and not local_parent:
        return ModelPlace(name=name, path=name)
    raise UserError(
        f"{name}: no such folder{_near(path)}; name a run's folder, a model's folder, or a hub id (ORG/NAME)"
    )


def check_base_model(path: str) -> None:
    """Raise UserError if `model.path` of a recipe is neither `tiny`, a model's folder nor a hub id; loads nothing."""
    if path == "tiny":
        return
    try:
        place = find_model(path)
    except UserError as error:
        raise UserError(f"model.path = {error}; or `tiny`") from error
    if place.run is not None:
        raise UserError(f"model.path = {path}: is a run's folder; to train its model further, name {place.path}")


def open_model(place: ModelPlace, *, dtype: str = "auto") -> tuple[VisionLanguageModel, VisionLanguageProcessor]:
    """Load the model (in `dtype`, or that of its checkpoint, on the CPU) and its processor.

    Raises UserError if the model is missing, damaged, or of an unknown family.
    """
    from transformers.utils import logging

    from rl.run.loading import load_model

    logging.disable_progress_bar()
    processor = open_processor(place)
    return load_model(place.path, name=place.name, dtype=dtype), processor


def open_processor(place: ModelPlace) -> VisionLanguageProcessor:
    """Load the processor alone. Raises UserError if it is missing, damaged, or of an unknown family."""
    from rl.run.loading import load_processor

    return load_processor(place.path, name=place.name)


def _model_of_run(name: str, run: Path) -> ModelPlace:
    done = RunFolder(run).records()
    for record in reversed(done):
        model = RunFolder(run).stage(record.name) / "model"
        if (model / "config.json").is_file():
            return ModelPlace(name=name, path=str(model), run=run, stage=record.name)
    if (run / "export" / "config.json").is_file():
        return ModelPlace(name=name, path=str(run / "export"), run=run, stage=done[-1].name if done else None)
    raise UserError(
        f"{name}: no stage of this run is finished, so there is no model yet; "
        f"continue it with: thinkvl run {run / 'recipe.yaml'}"
    )


def _inside(path: Path) -> str:
    """The end of an error about a folder without a model: the models one level down, or else its contents."""
    names = sorted(p.name for p in path.iterdir())
    models = [n for n in names if (path / n / "config.json").is_file() or (path / n / "recipe.yaml").is_file()]
    if models:
        return "; did you mean " + " or ".join(str(path / n) for n in models[:3]) + "?"
    return f"; it holds {', '.join(names[:6])}{', ...' if len(names) > 6 else ''}" if names else "; it is empty"


def _near(path: Path) -> str:
    if not path.parent.is_dir():
        return ""
    near = nearest_names(path.name, [p.name for p in path.parent.iterdir() if p.is_dir()])
    return f" (did you mean {path.parent / near[0]}?)" if near else ""
