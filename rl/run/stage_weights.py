"""The weights that a finished stage left: a run that goes on from them reads what was written, or says so."""

from __future__ import annotations

from pathlib import Path

from configs.errors import UserError
from rl.run.folder import RunFolder, StageRecord
from rollouts.tasks.contents import contents_hash


def weight_hashes(model: Path) -> dict[str, str]:
    """The hash of each file of weights in a model's folder. Of a model on the Hub `inputs.json` has the commit."""
    return {path.name: contents_hash(path) for path in sorted(model.glob("*.safetensors"))}


def check_weights(folder: RunFolder, record: StageRecord) -> None:
    """Raise UserError where the files of weights are no longer those that the stage ended with."""
    stage = folder.stage(record.name)
    found = weight_hashes(stage / "model")
    damaged = [name for name, value in record.weights.items() if found.get(name) != value]
    if damaged:
        what = "is missing" if damaged[0] not in found else "has changed since the stage ended"
        raise UserError(
            f"{stage / 'model' / damaged[0]} {what}; put it back, or delete {stage} to train this stage and those "
            "after it again"
        )
