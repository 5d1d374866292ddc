"""Loads models and processors for commands and stages: a damaged or missing file becomes an error that names it."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError

from configs.errors import UserError
from configs.text import one_line
from rollouts.model_family import VisionLanguageModel, VisionLanguageProcessor, family_at

# what transformers raises for a damaged file
_BROKEN = (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError)


def load_model(path: str, *, name: str, dtype: torch.dtype | str) -> VisionLanguageModel:
    """The model in a folder or on the hub, on the CPU; `name` begins the error.

    Raises UserError if the model is missing, damaged, or of an unknown family.
    """
    try:
        return family_at(path).load_model(path, dtype=dtype)
    except UserError:
        raise
    except _BROKEN as error:
        raise UserError(_cannot_open(name, path, error)) from error
    except (SafetensorError, RuntimeError) as error:  # a cut file; tensors of another shape
        raise UserError(
            f"{name}: the weights in {path} are damaged or cut short ({one_line(error)}); export or download them again"
        ) from error


def load_processor(path: str, *, name: str) -> VisionLanguageProcessor:
    """The processor alone. Raises UserError if it is missing, damaged, or of an unknown family."""
    try:
        return family_at(path).load_processor(path)
    except UserError:
        raise
    except Exception as error:
        if not isinstance(error, _BROKEN) and type(error) is not Exception:  # tokenizers' own: no narrower type
            raise
        raise UserError(_cannot_open(name, path, error)) from error


def _cannot_open(name: str, path: str, error: Exception) -> str:
    if Path(path).is_dir():
        return f"{name}: the model in {path} cannot be opened: {one_line(error)}; export or download it again"
    return (
        f"{name}: no such folder, and the hub does not give a model of that name: {one_line(error)}; check the "
        "spelling and the network. A private model needs a token: set HF_TOKEN or run `hf auth login`"
    )
