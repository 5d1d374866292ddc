"""Errors of a model on the quickstart's held-out sums: is the image misread, or the sum miscalculated?

    python benchmarks/errors.py runs/quickstart/rl/model

Completions are greedy. Prints the counts and, for each pair of operators, wrong and all sums. The last line is JSON.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

from configs.load import load_recipe
from configs.rl import SamplingConfig
from kimi_vl import load_model, load_processor
from kimi_vl.family import stop_and_barred_ids
from rewards.extraction import split_thinking
from rl.run.evaluate import HELD_OUT_SEED
from rollouts.engines.driver import EngineDriver
from rollouts.engines.transformers import TransformersEngine
from rollouts.tasks.mixture import held_out
from rollouts.tasks.prompts import PromptRenderer
from rollouts.types import Request


def main(path: str) -> None:
    """Generate for the held-out sums with the model at `path` and count the errors."""
    config = load_recipe("configs/recipes/quickstart.yaml")
    model, processor = load_model(path), load_processor(path)
    stop, barred = stop_and_barred_ids(path, processor)
    engine = EngineDriver(TransformersEngine(model, stop_ids=stop, barred_ids=barred))
    tasks = held_out(config.data.held_out, limit=config.evaluation.tasks, seed=HELD_OUT_SEED, base=Path.cwd())
    prompts, _ = PromptRenderer.from_config(processor, config.data).render_all(tasks)
    sampling = SamplingConfig(max_new_tokens=config.evaluation.max_new_tokens, temperature=0.0)
    answers = engine.generate([Request(prompt=p, n=1, seed=0) for p in prompts], sampling)
    counts, kinds, wrong = Counter(), Counter(), Counter()
    for prompt, (completion,) in zip(prompts, answers, strict=True):
        thinking = split_thinking(processor.tokenizer.decode(completion.token_ids, skip_special_tokens=True))
        shown = (prompt.task.solution or "").split("\n")[0]
        kind = shown[1::2]
        right = thinking.answer_text.strip() == prompt.task.answer
        read = (thinking.thought or "").split("\n")[0] == shown
        counts["right" if right else "wrong step" if read else "misread"] += 1
        kinds[kind] += 1
        wrong[kind] += not right
    for kind, count in sorted(kinds.items()):
        print(f"{kind}  wrong {wrong[kind]} of {count}")
    print(json.dumps(dict(counts)))


if __name__ == "__main__":
    main(sys.argv[1])
