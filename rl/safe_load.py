"""Reads what `torch.save` wrote, without running what is in it.

A pickle may name any function and call it. Here it may name plain values, tensors, numpy arrays and the classes in
the tables below: whoever can write into a run's folder can spoil its numbers, but runs no code in it.
"""

from __future__ import annotations

import importlib
import pickle
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path, PosixPath
from typing import Any, BinaryIO

import numpy as np
import torch
from torch.distributed.checkpoint import metadata as shards
from torch.distributed.checkpoint.filesystem import FileSystemReader, _StorageInfo

from configs.algorithms import KLConfig, LossConfig
from configs.correction import CorrectionConfig
from configs.critic import CriticConfig
from configs.optimizer import OptimizerConfig
from rewards.types import Score, Task, Verdict, VerdictKind
from rl.learner.learner_config import LearnerConfig
from rl.types import Sample
from rollouts.patches import Patches
from rollouts.types import Completion, Prompt, Segment

_OURS = (
    *(Task, Verdict, VerdictKind, Score),
    *(Prompt, Patches, Completion, Segment, Sample),
    *(LearnerConfig, LossConfig, KLConfig, CorrectionConfig, CriticConfig, OptimizerConfig),
)
_NUMPY = (
    *(np._core.multiarray._reconstruct, np._core.multiarray.scalar, np.ndarray, np.dtype),  # pyright: ignore
    bytes,  # of an empty array
    *(type(np.dtype(code)) for code in "?bBhHiIlLqQefd"),
)
_SHARDS = (
    *(shards.Metadata, shards.TensorStorageMetadata, shards.ChunkStorageMetadata, shards.TensorProperties),
    *(shards.MetadataIndex, shards.StorageMeta, shards._MEM_FORMAT_ENCODING, _StorageInfo),
)
_INDEX_NAMES = {
    **{f"{kind.__module__}.{kind.__qualname__}": kind for kind in _SHARDS},
    "torch.Size": torch.Size,
    "torch.serialization._get_layout": torch.serialization._get_layout,
    "pathlib.PosixPath": PosixPath,
}


def load_state(source: Path | BinaryIO, *, types: Sequence[type] = ()) -> Any:
    """What `torch.save` wrote into a file, on the CPU; it may also hold objects of `types`.

    Raises UnpicklingError for a file that names anything else, and whatever torch raises for a damaged one.
    """
    with suppress(ImportError):
        importlib.import_module("torchao.optim")  # it tells torch its classes of moments
    with torch.serialization.safe_globals([*_OURS, *_NUMPY, *types]):
        try:
            return torch.load(source, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise pickle.UnpicklingError(_what_was_found(error)) from None


def _what_was_found(error: pickle.UnpicklingError) -> str:
    """What was found, without torch's advice to load it all the same."""
    found = re.search(r"(?:GLOBAL|blocked global) ([\w.]+)", str(error))
    return f"it names {found[1]}, which is code" if found else str(error).partition(". ")[0]


class PlainReader(FileSystemReader):
    """Reads shards whose index names the index's own classes and nothing else."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> shards.Metadata:
        """The index of all shards. Raises UnpicklingError for one that names anything else."""
        with Path(self._get_metadata_path(kwargs.get("rank"))).open("rb") as file:
            found = _IndexUnpickler(file).load()
        if not isinstance(found, shards.Metadata):
            raise pickle.UnpicklingError(f"an index of shards was expected, not {type(found).__name__}")
        found.storage_meta = found.storage_meta or shards.StorageMeta()
        found.storage_meta.load_id = self.load_id
        return found


class _IndexUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """One of the index's classes, or a number type of torch."""
        full = f"{module}.{name}"
        if (kind := _INDEX_NAMES.get(full)) is not None:
            return kind
        if module == "torch" and isinstance(dtype := getattr(torch, name, None), torch.dtype):
            return dtype
        raise pickle.UnpicklingError(f"{full} must not be in an index of shards")
