"""The memory that `thinkvl plan` counts against the memory that training takes, on a CPU.

    python benchmarks/plan.py [--quick] [--shape NAME]

Four shapes are trained for two steps, each in a fresh process: one whose weights take most of the memory, one with
long rows, one with gradient checkpointing and adapters, one with adapters over a base in 4 bits, which needs
bitsandbytes. Measured is the growth of the resident set, from before the model is built to its peak in training. Prints
a table and ends with one line of JSON; `--shape` runs one of them in this process.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]  # runs from a checkout, installed or not

import numpy as np  # noqa: E402
import torch  # noqa: E402

from configs.model import LoraConfig, ModelConfig  # noqa: E402
from configs.optimizer import OptimizerConfig  # noqa: E402
from kimi_vl import TinySizes  # noqa: E402
from kimi_vl.tiny import build_tiny_model, tiny_config  # noqa: E402
from rewards.types import Task  # noqa: E402
from rl.learner.lora import prepare_training  # noqa: E402
from rl.learner.nf4 import quantize_base  # noqa: E402
from rl.learner.supervised_learner import SupervisedLearner, SupervisedLearnerConfig  # noqa: E402
from rl.plan.memory import Training, Workload, learner_bytes, total  # noqa: E402
from rl.plan.sizes import measure_sizes  # noqa: E402
from rl.types import PromptCompletion  # noqa: E402
from rollouts.patches import Patches  # noqa: E402
from rollouts.types import Prompt  # noqa: E402


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A model, and `rows` packed rows of one prompt with `responses` responses each."""

    hidden: int
    layers: int
    prompt: int  # tokens
    response: int  # tokens
    responses: int
    rows: int = 2
    checkpointing: bool = False
    lora: bool = False
    quantized: bool = False

    @property
    def row(self) -> int:
        """Tokens of a packed row."""
        return self.prompt + self.responses * (self.response - 1)

    @property
    def segments(self) -> list[tuple[int, int]]:
        """Queries and keys of each attention in a row."""
        own = self.response - 1
        return [(self.prompt, self.prompt), *[(own, self.prompt + own)] * self.responses]


SHAPES = {
    "weights": Shape(hidden=512, layers=6, prompt=32, response=32, responses=2),
    "long rows": Shape(hidden=128, layers=4, prompt=128, response=256, responses=8),
    "adapters and checkpointing": Shape(
        hidden=256, layers=6, prompt=128, response=384, responses=6, checkpointing=True, lora=True
    ),
    "a base in 4 bits": Shape(
        hidden=512, layers=8, prompt=128, response=384, responses=6, checkpointing=True, lora=True, quantized=True
    ),
}
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "1000000"}  # freed tensors leave the resident set, as on a GPU they are reused
QUICK = {"quick": Shape(hidden=256, layers=4, prompt=32, response=32, responses=2)}


def measure(shape: Shape) -> dict[str, float]:
    """Train in this process. Returns the bytes counted, by part, and those measured."""
    torch.set_num_threads(1)
    sizes = TinySizes(
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.hidden // 32,
        intermediate_size=3 * shape.hidden,
        moe_intermediate_size=shape.hidden * 3 // 4,
    )
    # What libraries import and keep at their first use is not the model's.
    small = replace(shape, hidden=128, layers=2, prompt=8, response=8, responses=1)
    train(small, TinySizes(num_hidden_layers=2))
    before = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]) * resource.getpagesize()
    train(shape, sizes)
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    peak = int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) * 1024
    return {"measured": float(peak - before), **count(shape, sizes)}


def train(shape: Shape, sizes: TinySizes) -> None:
    """Two optimizer steps over random tokens: from the second on, the moments exist."""
    model = build_tiny_model(tiny_config(sizes, num_tokens=1000), seed=0)
    if shape.quantized:
        quantize_base(model)
    prepare_training(model, recipe_of(shape), base="a folder")
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the peak begins here: weights were whole before
    config = SupervisedLearnerConfig(optimizer=OptimizerConfig(), total_steps=10, micro_batch_tokens=shape.row)
    learner = SupervisedLearner(model, config)
    for _ in range(2):
        learner.update(examples(shape))


def recipe_of(shape: Shape) -> ModelConfig:
    """What a recipe would say under `model`."""
    quantization = "nf4" if shape.quantized else None
    lora = LoraConfig(targets=("attention", "mlp"), quantization=quantization) if shape.lora else None
    return ModelConfig(path="a folder", lora=lora, gradient_checkpointing=shape.checkpointing)


def examples(shape: Shape) -> list[PromptCompletion]:
    """Random tokens without images."""
    rng = np.random.default_rng(0)
    found = []
    for name in map(str, range(shape.rows)):
        prompt = Prompt(
            id=name,
            task=Task(id=name, source="benchmark", question="", answer=""),
            input_ids=rng.integers(0, 256, shape.prompt),
            patches=Patches(np.zeros((0, 3, 14, 14), np.float32)),
            image_grid_hws=np.zeros((0, 2), np.int64),
        )
        answers = (rng.integers(0, 256, shape.response) for _ in range(shape.responses))
        found += [PromptCompletion(id=f"{name}/{i}", prompt=prompt, token_ids=ids) for i, ids in enumerate(answers)]
    return found


def count(shape: Shape, sizes: TinySizes) -> dict[str, float]:
    """What `thinkvl plan` says of the same run."""
    training = Training(
        sizes=measure_sizes(tiny_config(sizes, num_tokens=1000), recipe_of(shape)),
        dtype="float32",
        optimizer=OptimizerConfig(),
        checkpointing=shape.checkpointing,
        flash=False,
    )
    load = Workload(
        tokens=shape.row, predicted=shape.responses * shape.response, rows=shape.rows, segments=shape.segments
    )
    parts = learner_bytes(training, load)
    return {"counted": total(parts), **parts}


def main() -> None:
    """Measure each shape in a process of its own, print a table, end with one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one small shape")
    parser.add_argument("--shape", choices=[*SHAPES, *QUICK], help="one shape, in this process")
    args = parser.parse_args()
    if args.shape:
        print(json.dumps(measure((SHAPES | QUICK)[args.shape])))
        return
    found = {}
    for name in QUICK if args.quick else SHAPES:
        command = [sys.executable, __file__, "--shape", name]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **ALLOCATOR})
        found[name] = json.loads(done.stdout.splitlines()[-1])
    parts = ("weights", "gradients", "moments", "activations", "logits", "counted", "measured")
    print(f"| shape | {' | '.join(parts)} | counted / measured |\n|{'---|' * (len(parts) + 2)}")
    for name, row in found.items():
        cells = " | ".join(f"{row[part] / 1e6:.0f}" for part in parts)
        print(f"| {name} | {cells} | {row['counted'] / row['measured']:.2f} |")
    ratios = {f"counted/measured, {name}": row["counted"] / row["measured"] for name, row in found.items()}
    print(json.dumps({**ratios, "benchmark": "plan", "torch": torch.__version__, "machine": platform.machine()}))


if __name__ == "__main__":
    main()
