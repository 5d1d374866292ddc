"""The floor of the learner's update on one thread: its operations at the rate of matrix products, and its bytes.

    python benchmarks/learner_floor.py [--quick] [--runs 5]

The step is that of `benchmarks/learner.py`. Operations are counted from the config (`rl/plan/roofline.py`), attention
over the pairs that see each other; the rate is the median of products of this step's own shapes, measured in turn with
the update. Bytes are those of AdamW (four tensors read, three written) and of what autograd keeps, written and read
once, at the rate of a copy. Nothing else is in the floor: no softmax, norm, activation, gather or Python. The padded
step is what a trainer computes that repeats each prompt and its image for every completion and pads both to the longest
of the step, as TRL does. Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from learner import GROUP, build, make_samples, our_update

from rl.plan import activations, roofline
from rl.plan.roofline import TRAINED
from rl.throughput import count
from rl.types import Sample


def step_operations(config: Any, samples: Sequence[Sample]) -> dict[str, float]:
    """Operations of an update, by part; each prompt and image once."""
    counts, parts = count(samples), roofline.products(config)
    sizes = {"tokens": counts.tokens, "predicted": counts.predicted}
    matrices = roofline.text_flops(config, TRAINED, **sizes, pairs=0)
    return {
        "text": matrices,
        "head_again": 2.0 * parts.head * counts.predicted,  # the backward pass makes the logits again
        "attention": roofline.text_flops(config, TRAINED, **sizes, pairs=counts.pairs) - matrices,
        "images": roofline.image_flops(config, TRAINED, counts.patches),
    }


def padded_operations(config: Any, samples: Sequence[Sample]) -> float:
    """Operations of the same update with every row padded, images repeated, and attention over every causal pair."""
    prompt, answer = (max(map(len, rows)) for rows in ([s.prompt.input_ids for s in samples], samples))
    rows, length = len(samples), prompt + answer
    patches = [int(s.prompt.image_grid_hws.prod()) for s in samples]
    return roofline.text_flops(
        config,
        TRAINED,
        tokens=rows * length,
        predicted=rows * answer,
        pairs=rows * roofline.causal_pairs(length),
    ) + roofline.image_flops(config, TRAINED, patches)


def kept_bytes(config: Any, samples: Sequence[Sample]) -> float:
    """What autograd keeps of the text model, written once and read once."""
    fused = activations.takes_fused_kernel(config.text_config)
    return 2 * activations.text_bytes(config.text_config, count(samples).tokens, 4, flash=fused, checkpointing=False)


def timed(call: Callable[[], object]) -> float:
    """CPU seconds of this thread: other work on the machine does not count."""
    began = time.process_time()
    call()
    return time.process_time() - began


def product_rate(config: Any, tokens: int) -> float:
    """Operations a second of the product of all tokens with the dense layer's matrix, and of its two gradients."""
    inputs = torch.randn(tokens, config.text_config.hidden_size)
    weight = torch.randn(config.text_config.intermediate_size, config.text_config.hidden_size)
    output = inputs @ weight.T
    seconds = timed(lambda: (inputs @ weight.T, output @ weight, output.T @ inputs))
    return 3 * 2.0 * inputs.numel() * len(weight) / seconds


def copy_rate() -> float:
    """Bytes a second that a copy of 256 MB reads and writes."""
    source, target = torch.ones(1 << 26), torch.ones(1 << 26)
    return 2 * 4 * source.numel() / timed(lambda: target.copy_(source))


def main() -> None:
    """Measure rates and the update in turn, print the floor and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="counted updates")
    parser.add_argument("--groups", type=int, default=8, help=f"prompts of the step, {GROUP} answers each")
    parser.add_argument("--quick", action="store_true", help="2 prompts, 2 runs")
    args = parser.parse_args()
    groups, runs = (2, 2) if args.quick else (args.groups, args.runs)
    torch.set_num_threads(1)
    model = build()
    config, parameters = model.config, sum(p.numel() for p in model.parameters())
    samples = make_samples(np.random.default_rng(0), model, groups)
    update = our_update(model, samples)
    update()
    rows = [(timed(update), product_rate(config, 4096), copy_rate()) for _ in range(runs)]
    seconds, products, copies = (statistics.median(column) for column in zip(*rows, strict=True))
    operations = step_operations(config, samples)
    moved = kept_bytes(config, samples) + 7 * 4 * parameters
    computing, moving = sum(operations.values()) / products, moved / copies
    padded = padded_operations(config, samples)
    for name, found in operations.items():
        print(f"{name:<12} {found / 1e9:8.1f} GFLOP  {found / products:6.3f} s")
    print(f"bytes        {moved / 1e9:8.2f} GB     {moving:6.3f} s")
    print(f"floor {computing + moving:.3f} s at {products / 1e9:.0f} GFLOP/s and {copies / 1e9:.1f} GB/s")
    print(f"the update takes {seconds:.3f} CPU seconds, {seconds / (computing + moving):.2f} times its floor")
    print(f"padded {padded / 1e9:.1f} GFLOP, {padded / sum(operations.values()):.2f} times the operations")
    print(f"{platform.machine()}, torch {version('torch')}, transformers {version('transformers')}, one thread")
    result = {"gflop": {name: found / 1e9 for name, found in operations.items()}, "padded_gflop": padded / 1e9}
    result |= {"gigabytes": moved / 1e9, "floor_seconds": computing + moving, "seconds": seconds, "runs": runs}
    print(json.dumps(result | {"products_gflops": products / 1e9, "copy_gigabytes": copies / 1e9}))


if __name__ == "__main__":
    main()
