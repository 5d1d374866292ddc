"""What the embedded engine's steps take, what they would take at least, and the share of the last samples.

    python benchmarks/decoding.py [--quick]

The work is that of engines.py, on one thread. CPU seconds of each step are measured and its least work is counted:
operations (products of the active weights, attention over prompt and own tokens) and bytes (weights that the step
meets, and latents, a group's prompt once). The floor of a step is the longer of operations at the rate of a large
product and bytes at the rate of a large sum, both measured beside it. The tail is the time after 90 % of the samples
have ended. Prints a table by rows and ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]  # runs from a checkout, installed or not

import engines  # noqa: E402
import torch  # noqa: E402

from configs.rl import SamplingConfig  # noqa: E402
from kimi_vl.family import load_config  # noqa: E402
from rl.plan.roofline import attention_flops, products  # noqa: E402
from rollouts.engines.transformers import TransformersEngine  # noqa: E402
from rollouts.types import Request  # noqa: E402

BANDS = ((1, 4), (5, 16), (17, 48), (49, 10**6))


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of the engine: what it took, and how much there was to do."""

    seconds: float  # of the CPU
    rows: int
    read: int  # cached tokens, a group's prompt once
    pairs: int  # of a row and a cached token that it sees
    ended: int  # samples so far


def round_of_steps(engine: TransformersEngine, requests: list[Request], limit: int) -> list[Step]:
    """Generate for all requests, step by step."""
    sampling = SamplingConfig(max_new_tokens=limit)
    for index, request in enumerate(requests):
        engine.add(index, request, sampling)
    (batch,) = engine._batches.values()
    steps, total = [], sum(request.n for request in requests)
    while batch.busy:
        began = time.thread_time()
        engine.step()
        spent = time.thread_time() - began
        live = batch._live
        own = sum(sample.length for sample in live)
        prompts = sum(group.length for group in {sample.group for sample in live})
        pairs = own + sum(sample.group.length for sample in live)
        ended = total - len(live) - len(batch._queue)
        steps.append(Step(seconds=spent, rows=len(live), read=own + prompts, pairs=pairs, ended=ended))
    return steps


def rates() -> tuple[float, float]:
    """Operations a second of a large product, and bytes a second of a large sum."""
    x, y, big = torch.randn(512, 512), torch.randn(512, 512), torch.randn(1 << 24)
    return 2 * 512**3 / _best(lambda: x @ y), 4 * big.numel() / _best(big.sum)


def _best(work: Callable[[], object]) -> float:
    spent = []
    for _ in range(10):
        began = time.thread_time()
        work()
        spent.append(time.thread_time() - began)
    return min(spent)


def floor_of(config: object, step: Step, operations: float, bandwidth: float) -> float:
    """Seconds that the step takes at least."""
    p, text = products(config), config.text_config  # type: ignore[attr-defined]
    flops = 2 * (p.active + p.head) * step.rows + attention_flops(config, step.pairs)
    met = p.experts * (1 - (1 - p.chosen / p.experts) ** step.rows)
    cached = text.kv_lora_rank + text.qk_rope_head_dim
    moved = p.held(met) + p.head * (step.rows > 0) + text.num_hidden_layers * cached * step.read
    return max(flops / operations, 4 * moved / bandwidth)


def main() -> None:
    """Measure, print a table, and end with one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="less work, one round: does it run?")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    size = {"groups": 4, "rows": 16, "limit": 48} if args.quick else {"groups": 16, "rows": 64, "limit": 256}
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        engines.make_work(folder, **size)
        work = json.loads((folder / "work.json").read_text(encoding="utf-8"))
        config = load_config(folder / "model")
        engine = engines.embedded_engine(folder / "model", work).engine
        tails, floors, steps, speeds = [], [], [], []
        for seed in range(1 if args.quick else args.rounds):
            operations, bandwidth = rates()
            found = round_of_steps(engine, engines._requests(folder, work, seed, size["groups"]), size["limit"])
            total, samples = sum(step.seconds for step in found), size["groups"] * engines.SAMPLES
            tails.append(sum(step.seconds for step in found if step.ended >= 0.9 * samples) / total)
            floors.append(sum(floor_of(config, step, operations, bandwidth) for step in found) / total)
            speeds.append((operations, bandwidth))
            steps += found
    print("rows        steps    ms a step (median)")
    for low, high in BANDS:
        spent = [1e3 * step.seconds for step in steps if low <= step.rows <= high]
        if spent:
            print(f"{low:3} to {min(high, size['rows']):3}  {len(spent):6}    {statistics.median(spent):8.1f}")
    result = {
        "tail": statistics.median(tails),
        "floor": statistics.median(floors),
        "GFLOP/s": statistics.median(rate for rate, _ in speeds) / 1e9,
        "GB/s": statistics.median(rate for _, rate in speeds) / 1e9,
        "rounds": len(tails),
    }
    print(json.dumps({name: round(value, 3) for name, value in result.items()}))


if __name__ == "__main__":
    main()
