"""`thinkvl export`: a run's last model as a Hugging Face folder with code and a model card, and to the Hub."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from rich.console import Console

from configs.load import load_recipe
from configs.schema import RunConfig
from rl.checkpoint import replace_folder
from rl.commands.models import ModelPlace, find_model, finished_stages, open_model
from rl.errors import UserError
from rl.folder import RunFolder
from rl.hub import Hub
from rl.model_card import CardFacts, model_card

_LICENCES = {  # what the weights that a run starts from allow
    "tiny": "apache-2.0",
    "moonshotai/Kimi-VL-A3B-Instruct": "mit",
    "moonshotai/Kimi-VL-A3B-Thinking": "mit",
    "moonshotai/Kimi-VL-A3B-Thinking-2506": "mit",
}


def export_command(
    name: str,
    *,
    output: Path | None,
    push: str | None,
    public: bool,
    licence: str | None,
    console: Console,
) -> Path:
    """Write the folder (by default `export/` in the run) and, with `push`, upload it; return the folder.

    Everything that the Hub can refuse is asked before the weights are touched. Raises UserError.
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
        _write(place, config, target, licence=chosen, push=push)
    console.print(f"model in {target}", markup=False, highlight=False, soft_wrap=True)
    if hub is not None:
        url = hub.upload(target, message=f"Upload {config.name}", say=lambda text: _say(console, text))
        _say(console, f"on the hub: {url} ({'public' if public else 'private'})")
    else:
        _say(console, f"try it: thinkvl chat {target} --image FILE.png --question 'What is the result?'")
    return target


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _licence(config: RunConfig) -> str:
    known = _LICENCES.get(config.model.path)
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


def _write(place: ModelPlace, config: RunConfig, target: Path, *, licence: str, push: str | None) -> None:
    """Write the whole folder beside `target`, then put it in place: what was there stays until then."""
    from kimi_vl import save_with_code

    model, processor = open_model(place)
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        save_with_code(model, processor, partial)
        facts = CardFacts(
            config=config,
            summary=_summary(place.run or target),
            licence=licence,
            name=push or config.name,
            repo_id=push,
            parameters=sum(p.numel() for p in model.parameters()),
        )
        (partial / "README.md").write_text(model_card(facts), encoding="utf-8")
        replace_folder(partial, target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _summary(run: Path) -> dict[str, Any]:
    """`summary.json`; where the run is not finished yet, the stages that are."""
    path = run / "summary.json"
    if path.is_file():
        return json.loads(path.read_text(encoding="utf-8"))
    from dataclasses import asdict

    return {"stages": [asdict(record) for record in finished_stages(run)]}
