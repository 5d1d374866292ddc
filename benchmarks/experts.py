"""The routed experts' kernels against a loop over the experts: forward and backward of a mixture layer, in fp32.

    python benchmarks/experts.py [--quick] [--runs 7]

`grouped_mm` is the kernel of training runs (sorted tokens, one grouped product), `eager` loops over the experts, and
`batched_mm` copies the weights for each token, so it is timed at the smallest shape alone. All are transformers' own;
each pair is timed in turn, in one process, on one thread, after a check that outputs and gradients agree. Ends with one
line of JSON: `ratio/SHAPE` is the loop's seconds over those of `grouped_mm`, the median over the runs.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch
from transformers import DeepseekV3Config
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3Experts


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A mixture-of-experts layer and its number of tokens."""

    name: str
    hidden: int
    inner: int
    experts: int
    top: int
    tokens: int
    kernels: tuple[str, ...] = ("eager", "grouped_mm")


SHAPES = (
    Shape(
        name="quickstart",
        hidden=128,
        inner=96,
        experts=8,
        top=2,
        tokens=1024,
        kernels=("eager", "grouped_mm", "batched_mm"),
    ),
    Shape(name="many", hidden=256, inner=192, experts=64, top=6, tokens=2048),
    Shape(name="quarter", hidden=512, inner=352, experts=64, top=6, tokens=2048),  # a quarter of Kimi-VL-A3B's width
)


class Layer:
    """One mixture-of-experts layer with its routes; a call is a forward and a backward pass."""

    def __init__(self, shape: Shape) -> None:
        generator = torch.Generator().manual_seed(0)
        self.config: Any = DeepseekV3Config(
            hidden_size=shape.hidden,
            moe_intermediate_size=shape.inner,
            n_routed_experts=shape.experts,
            num_experts_per_tok=shape.top,
        )
        self.experts = DeepseekV3Experts(self.config)
        for parameter in self.experts.parameters():
            torch.nn.init.normal_(parameter, std=shape.hidden**-0.5, generator=generator)
        self.hidden = torch.randn(shape.tokens, shape.hidden, generator=generator, requires_grad=True)
        noise = torch.rand(shape.tokens, shape.experts, generator=generator)
        self.weights, self.routes = noise.topk(shape.top)

    def __call__(self, kernel: str) -> tuple[float, list[torch.Tensor]]:
        """Seconds, and output and gradients."""
        self.config._experts_implementation = kernel
        self.hidden.grad = None
        self.experts.zero_grad()
        began = time.perf_counter()
        output = self.experts(self.hidden, self.routes, self.weights)
        output.square().mean().backward()
        seconds = time.perf_counter() - began
        grads: list[Any] = [self.hidden.grad, *(p.grad for p in self.experts.parameters())]
        return seconds, [output.detach(), *(g.clone() for g in grads)]


def compare(shape: Shape, runs: int) -> tuple[float, dict[str, list[float]]]:
    """Largest relative difference of any tensor to the loop's, and the seconds of each kernel, taken in turn."""
    layer = Layer(shape)
    _, expected = layer("eager")
    apart = 0.0
    for kernel in shape.kernels[1:]:
        for one, other in zip(layer(kernel)[1], expected, strict=True):
            apart = max(apart, float((one - other).abs().max() / other.abs().max()))
    if apart > 1e-5:
        raise SystemExit(f"{shape.name}: kernels differ by {apart:.1e}")
    seconds: dict[str, list[float]] = {kernel: [] for kernel in shape.kernels}
    for _ in range(runs):
        for kernel in shape.kernels:
            seconds[kernel].append(layer(kernel)[0])
    return apart, seconds


def main() -> None:
    """Time every shape, print a table and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=7, help="counted passes of each kernel")
    parser.add_argument("--quick", action="store_true", help="the two smaller shapes, 3 runs")
    args = parser.parse_args()
    shapes, runs = (SHAPES[:2], 3) if args.quick else (SHAPES, args.runs)
    torch.set_num_threads(1)
    result: dict[str, Any] = {"runs": runs, "median_seconds": {}, "apart": {}}
    for shape in shapes:
        apart, seconds = compare(shape, runs)
        medians = {kernel: statistics.median(values) for kernel, values in seconds.items()}
        result["median_seconds"][shape.name], result["apart"][shape.name] = medians, apart
        for kernel in shape.kernels:
            pairs = zip(seconds["eager"], seconds[kernel], strict=True)
            ratio = statistics.median(loop / own for loop, own in pairs)
            print(
                f"{shape.name:<10}  {kernel:<10}  {medians[kernel] * 1e3:9.1f} ms  {ratio:6.2f} times the loop's speed"
            )
            if kernel == "grouped_mm":
                result[f"ratio/{shape.name}"] = ratio
    print(f"{platform.machine()}, torch {version('torch')}, transformers {version('transformers')}, one thread")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
