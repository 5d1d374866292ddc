"""A step of RL on 1 to 1,024 cards, for Kimi-VL-A3B and for a model of Kimi K2.5's size: the table of docs/scaling.md.

    python benchmarks/scaling.py [--quick] [--write]

Nothing is measured: `rl.plan.scaling` counts, from the configs alone. `--write` puts the tables into docs/scaling.md,
`--quick` counts fewer rows. Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]  # runs from a checkout, installed or not

from configs.model import ModelConfig  # noqa: E402
from kimi_vl.configuration_kimi_vl import KimiVLConfig  # noqa: E402
from rl.plan.hardware import GPUS  # noqa: E402
from rl.plan.scaling import Split, StepWork, best_split, engine_cards, shards_needed  # noqa: E402
from rl.plan.sizes import ModelSizes, config_of, measure_sizes  # noqa: E402

A3B, K25 = "moonshotai/Kimi-VL-A3B-Instruct", "Kimi K2.5"
CARDS = tuple(2**power for power in range(11))
# config.json of Kimi K2.5; its tower is that of Kimi-VL with a time axis, which needs no parameters that matter here.
K25_TEXT = {
    "hidden_size": 7168,
    "num_hidden_layers": 61,
    "num_attention_heads": 64,
    "num_key_value_heads": 64,
    "q_lora_rank": 1536,
    "n_routed_experts": 384,
    "n_shared_experts": 1,
    "num_experts_per_tok": 8,
    "first_k_dense_replace": 1,
    "moe_intermediate_size": 2048,
    "intermediate_size": 18432,
}
PAGE = ROOT / "docs" / "scaling.md"
PLACE = re.compile(r"(<!-- scaling: ([\w.]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def sizes_of(name: str) -> ModelSizes:
    """Parameters of one of the two models, counted on the meta device."""
    settings = ModelConfig(path=A3B, dtype="bfloat16")
    config: Any = config_of(settings)
    if name == K25:
        content = config.to_dict()
        config = KimiVLConfig(**{**content, "text_config": {**content["text_config"], **K25_TEXT}})
    return measure_sizes(config, settings)


def table(name: str, gpu: str, cards: tuple[int, ...]) -> tuple[str, list[Split]]:
    """The rows of a model that fit, as Markdown."""
    sizes, work = sizes_of(name), StepWork()
    found = [split for count in cards if (split := best_split(sizes, GPUS[gpu], count, work)) is not None]
    lines = [
        "| cards | learner | GB a card | engines | operations | traffic | decoding | longest | sync | step |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for s in found:
        engines = max(1, (s.cards if s.cards == 1 else s.cards - s.learner) // s.engine)
        parts = {
            "learner's operations": s.compute,
            "learner's traffic": s.traffic,
            "decoding": s.decode,
            "longest completion": s.tail,
            "weight sync": s.sync,
        }
        cells = [
            f"{s.cards:,}",
            f"{s.learner // s.shards} x {s.shards}",
            f"{s.learner_bytes / 1e9:.0f}",
            f"{engines} x {s.engine}",
            *(f"**{value:,.0f}**" if part == s.limit else f"{value:,.0f}" for part, value in parts.items()),
            f"{s.step:,.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines), found


def render(page: str) -> str:
    """The page with today's tables; each place names its GPU and, for K2.5, the model."""
    names = {"h100": (A3B, "h100"), "h200": (A3B, "h200"), "k2.5": (K25, "h200")}
    return PLACE.sub(lambda m: f"{m[1]}{table(*names[m[2]], CARDS)[0]}\n{m[3]}", page)


def main() -> None:
    """Print the tables, or write them into the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="three rows of each table")
    parser.add_argument("--write", action="store_true", help="write the tables into docs/scaling.md")
    options = parser.parse_args()
    if options.write:
        PAGE.write_text(render(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
        return
    results: dict[str, object] = {}
    for name, gpu in ((A3B, "h100"), (A3B, "h200"), (K25, "h200")):
        text, found = table(name, gpu, (1, 8, 1024) if options.quick else CARDS)
        sizes = sizes_of(name)
        (shards, experts), engine = shards_needed(sizes, GPUS[gpu], StepWork()), engine_cards(sizes, GPUS[gpu])
        print(f"\n{name}, {sizes.parameters / 1e9:,.1f} billion parameters, {GPUS[gpu].name}")
        print(
            f"one copy of the learner needs {shards} cards, experts divided by {experts}; one engine {engine}\n{text}"
        )
        results[f"{name} on {gpu}"] = [asdict(split) for split in found]
    print(json.dumps(results))


if __name__ == "__main__":
    main()
