"""The Hugging Face folder of a run: weights under the hub's names, code, processor, tokenizer and a model card."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from configs.schema import RunConfig
from kimi_vl import KimiVLForConditionalGeneration, KimiVLProcessor
from kimi_vl.export import save_with_code
from rl.checkpoint import replace_folder
from rl.run.folder import RunFolder
from rl.run.model_card import CardFacts, model_card

_LICENCES = {  # what the weights that a run starts from allow
    "tiny": "apache-2.0",
    "moonshotai/Kimi-VL-A3B-Instruct": "mit",
    "moonshotai/Kimi-VL-A3B-Thinking": "mit",
    "moonshotai/Kimi-VL-A3B-Thinking-2506": "mit",
}


def known_licence(config: RunConfig) -> str | None:
    """The licence of the weights that a run started from; None where it is not known here."""
    return _LICENCES.get(config.model.path)


def write_export(
    model: KimiVLForConditionalGeneration,
    processor: KimiVLProcessor,
    target: Path,
    *,
    run: Path,
    config: RunConfig,
    licence: str,
    repo_id: str | None = None,
) -> None:
    """Write the whole folder beside `target`, then put it in place: what was there stays until then."""
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        save_with_code(model, processor, partial)
        facts = CardFacts(
            config=config,
            summary=_summary(run),
            licence=licence,
            name=repo_id or config.name,
            repo_id=repo_id,
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
    return {"stages": [asdict(record) for record in RunFolder(run).records()]}
