"""`thinkvl export`: writes a run's last model as a Hugging Face folder with code and a model card, and uploads it."""

from __future__ import annotations

import json
from pathlib import Path

from configs.errors import UserError
from configs.load import load_recipe
from configs.schema import RunConfig
from rl.cli.hub import Hub
from rl.cli.open_model import find_model, open_model
from rl.run.console import PlainConsole
from rl.run.export import known_licence, write_export
from rl.run.folder import RunFolder
from rl.run.last_words import chat_command


def export_command(
    name: str,
    *,
    output: Path | None,
    push: str | None,
    public: bool,
    licence: str | None,
    console: PlainConsole,
) -> Path:
    """Write the folder (by default `export/` in the run) and, with `push`, upload it; return the folder.

    Everything that the Hub can refuse is checked before the weights are loaded. Raises UserError.
    """
    place = find_model(name)
    if place.run is None:
        raise UserError(
            f"{name}: is a model, not a run: its card needs the run's recipe and figures. "
            f"To upload a folder as it is: hf upload ORG/NAME {name}"
        )
    config = load_recipe(place.run / "recipe.yaml")
    chosen = licence or _licence(config)
    target = output or place.run / "export"
    _check_target(target)
    hub = Hub(push, private=not public) if push else None
    if hub is not None:
        hub.check_access()
    with RunFolder(place.run).lock():
        model, processor = open_model(place)
        write_export(model, processor, target, run=place.run, config=config, licence=chosen, repo_id=push)
    console.print(f"model in {target}")
    if hub is not None:
        url = hub.upload(target, message=f"Upload {config.name}", say=lambda text: _say(console, text))
        _say(console, f"on the hub: {url} ({'public' if public else 'private'})")
    else:
        console.print(f"try it: {chat_command(target, place.run)}")
    return target


def _say(console: PlainConsole, text: str) -> None:
    console.print(text)


def _licence(config: RunConfig) -> str:
    known = known_licence(config)
    if known is None:
        raise UserError(
            f"model.path = {config.model.path!r}: the licence of these weights is not known here; say it with "
            "--licence, such as --licence mit, apache-2.0 or other (https://hf.co/docs/hub/repositories-licenses)"
        )
    return known


def _check_target(target: Path) -> None:
    """Raise UserError before the folder of something else is replaced."""
    if target.exists() and not target.is_dir():
        raise UserError(f"--output {target}: is a file; name a folder")
    if target.is_dir() and any(target.iterdir()) and not _is_export(target):
        raise UserError(f"--output {target}: the folder holds something that is no export; choose another")


def _is_export(folder: Path) -> bool:
    try:
        return "auto_map" in json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
