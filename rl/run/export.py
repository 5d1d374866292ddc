"""The Hugging Face folder of a run: weights under the hub's names, code, processor, tokenizer and a model card."""

from __future__ import annotations

import re
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from configs.errors import UserError
from configs.json_io import read_json
from configs.load import load_recipe
from configs.schema import RunConfig
from rl.checkpoint import sync_folder
from rl.run.benchmarks.results import read_results
from rl.run.folder import RunFolder, StageRecord
from rl.run.model_card import RECIPE, CardFacts, model_card, public_recipe
from rl.run.model_prompt import write_prompt
from rollouts import model_family
from rollouts.model_family import VisionLanguageModel, VisionLanguageProcessor, family_of

_EXPORTED = re.compile(r"model(-\d+-of-\d+)?\.safetensors(\.index\.json)?|prompt\.json|\.git.*")


def known_licence(config: RunConfig, *, _depth: int = 8) -> str | None:
    """The licence of the weights that a run started from; None if it is unknown.

    Weights of an earlier run (`runs/X/STAGE/model`, `runs/X/export`) have the licence of those that it started from.
    """
    path = config.model.path
    if path == "tiny":
        return "apache-2.0"
    folder = Path(path).expanduser().absolute()
    for run in folder.parents[:2]:
        if _depth > 0 and folder.is_dir() and (run / "recipe.yaml").is_file():
            return known_licence(load_recipe(run / "recipe.yaml"), _depth=_depth - 1)
    return model_family.known_licence(path)


def write_export(
    model: VisionLanguageModel,
    processor: VisionLanguageProcessor,
    target: Path,
    *,
    run: Path,
    config: RunConfig,
    licence: str,
    repo_id: str | None = None,
) -> None:
    """Write the folder beside `target`, then rename it to `target`; an earlier export stays until then.

    The temporary folder has a new name, so that no file of somebody else is overwritten.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    partial = aside / "new"
    try:
        family = family_of(model.config)
        family.save_with_code(model, processor, partial)
        summary = _summary(run)
        last = [row["name"] for row in summary.get("stages", ())][-1:]
        facts = CardFacts(
            config=config,
            family=family,
            summary=summary,
            licence=licence,
            name=repo_id or config.name,
            repo_id=repo_id,
            parameters=sum(p.numel() for p in model.parameters()),
            benchmarks=[r for r in read_results(run / "benchmarks") if [r["settings"]["stage"]] == last],
        )
        write_prompt(partial, config)
        (partial / "README.md").write_text(model_card(facts), encoding="utf-8")
        (partial / RECIPE).write_text(public_recipe(config), encoding="utf-8")
        _check_only_exports(target, partial)
        _swap(partial, target, aside / "old")
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _swap(partial: Path, target: Path, old: Path) -> None:
    """Put a finished folder in place of `target`, which becomes `old`."""
    if target.exists():
        target.rename(old)
    try:
        partial.rename(target)
    except BaseException:
        if old.exists():
            old.rename(target)
        raise
    sync_folder(target.parent)


def _check_only_exports(target: Path, new: Path) -> None:
    """Raise UserError if `target` holds anything that the new export would not replace."""
    if not target.is_dir():
        return
    known = {path.name for path in new.iterdir()}
    foreign = sorted(p.name for p in target.iterdir() if p.name not in known and not _EXPORTED.fullmatch(p.name))
    if foreign:
        raise UserError(
            f"{target}: holds {', '.join(foreign[:3])}{' and more' if len(foreign) > 3 else ''} beside an earlier "
            "export, which would be deleted; move that elsewhere, or choose another folder with --output"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stages:
    """The part of `summary.json` that a model card needs."""

    stages: list[StageRecord]


def _summary(run: Path) -> dict[str, Any]:
    """`summary.json`, or the finished stages if the run has none yet."""
    path = run / "summary.json"
    if path.is_file():
        return read_json(path, dict[str, Any]) | asdict(read_json(path, _Stages))
    return {"stages": [asdict(record) for record in RunFolder(run).records()]}
