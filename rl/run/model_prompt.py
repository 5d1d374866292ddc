"""The prompt a model was trained with: `prompt.json` beside an exported model, the recipe in a run's folder."""

from __future__ import annotations

import json
from pathlib import Path

from configs.errors import UserError
from configs.files import read_bytes, write_text
from configs.json_io import parse_json
from configs.load import load_recipe
from configs.prompt import PromptConfig
from configs.schema import RunConfig
from configs.text import one_line
from rollouts.tasks.templates import prompt_of_typed_questions

PROMPT_FILE = "prompt.json"


def write_prompt(folder: Path, config: RunConfig) -> None:
    """Write the prompt of the run's model, unless it is the question alone."""
    prompt = prompt_of_typed_questions(config.data_of(config.stages[-1]))
    if prompt != PromptConfig():
        values = {"system": prompt.system, "template": prompt.template}
        write_text(folder / PROMPT_FILE, json.dumps(values, indent=2, ensure_ascii=False) + "\n")


def read_prompt(path: str, run: Path | None) -> PromptConfig:
    """The prompt of the model in `path`, a folder or a hub id; of a model in a run, from the run's recipe.

    Raises UserError for a file without a prompt.
    """
    if run is not None:
        config = load_recipe(run / "recipe.yaml")
        return prompt_of_typed_questions(config.data_of(config.stages[-1]))
    file = _file(path)
    if file is None:
        return PromptConfig()
    try:
        values = parse_json(read_bytes(file))
        if not all(value is None or isinstance(value, str) for value in values.values()):
            raise ValueError("`system` and `template` must be texts or null")
        return PromptConfig(**values)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: {PROMPT_FILE} holds no prompt: {one_line(error)}") from error


def _file(path: str) -> Path | None:
    """The model's `prompt.json`, downloaded if the model is on the Hub; None if there is none."""
    if Path(path).is_dir():
        file = Path(path) / PROMPT_FILE
        return file if file.is_file() else None
    from transformers.utils.hub import cached_file

    found = cached_file(
        path,
        PROMPT_FILE,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
        _raise_exceptions_for_gated_repo=False,
    )
    return Path(found) if found else None
