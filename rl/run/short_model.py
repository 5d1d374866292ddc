"""Finds the short model that a `long2short` stage with the method `average` averages with."""

from __future__ import annotations

from pathlib import Path

from configs.errors import UserError
from configs.long2short import LongToShortConfig
from configs.schema import RunConfig
from rl.run.folder import RunFolder


def short_model_path(config: RunConfig, stage: LongToShortConfig, folder: RunFolder, *, base: Path) -> Path:
    """The folder of `short_model`: an earlier stage's model, or a model's folder relative to `base`.

    Raises UserError for any other name.
    """
    assert stage.short_model is not None, "the schema requires it"
    earlier: list[str] = []
    for other in config.stages:
        if other.name == stage.name:
            break
        earlier.append(other.name)
    if stage.short_model in earlier:
        return folder.stage(stage.short_model) / "model"
    path = base / Path(stage.short_model).expanduser()
    if not (path / "config.json").is_file():
        raise UserError(
            f"{stage.name}.short_model = {stage.short_model!r}: neither an earlier stage of this run "
            f"({', '.join(earlier) or 'there is none'}) nor the folder of a model (it holds no config.json)"
        )
    return path


def check_short_models(config: RunConfig, folder: RunFolder, *, base: Path) -> None:
    """Raise UserError if a stage names a short model that will not exist."""
    for stage in config.stages:
        if isinstance(stage, LongToShortConfig) and stage.method == "average":
            short_model_path(config, stage, folder, base=base)
