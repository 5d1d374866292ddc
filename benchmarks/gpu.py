"""The learner and the embedded engine at Kimi-VL-A3B's shapes on one GPU, against the bounds of `rl/plan/roofline.py`.

    python benchmarks/gpu.py [--quick] [--runs 3] [--parts checks rollouts lora full] [--tokens 2048 8192 32768]

Random weights in bfloat16, made on the device. `lora` and `full` time one optimizer step of the learner, gradient
checkpointing on, over one completion of so many packed tokens with its prompt; `full` keeps Adafactor's factored state.
`rollouts` times whole calls of the engine: prompts of so many tokens, eight samples each. Text alone, no images. `MFU`
counts the model's own operations: forward, and backward once, with nothing for what checkpointing repeats. A row that
does not fit in memory says so. Without a GPU everything runs at tiny shapes on the CPU as a check of the script,
without floor, MFU and memory. Prints a table and ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]  # runs from a checkout, installed or not
# Rows of many sizes follow each other; without this, what one freed is in pieces too small for the next.
os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")

import numpy as np  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from gpu_checks import check, text_prompt, too_far  # noqa: E402

from configs.algorithms import LossConfig  # noqa: E402
from configs.model import LoraConfig, ModelConfig  # noqa: E402
from configs.optimizer import OptimizerConfig  # noqa: E402
from configs.rl import SamplingConfig  # noqa: E402
from kimi_vl import KimiVLConfig, KimiVLForConditionalGeneration, TinySizes  # noqa: E402
from kimi_vl.tiny import tiny_config  # noqa: E402
from rl.learner.learner import Learner  # noqa: E402
from rl.learner.learner_config import LearnerConfig  # noqa: E402
from rl.learner.lora import prepare_training  # noqa: E402
from rl.learner.parallel import SINGLE_PROCESS, SingleProcess  # noqa: E402
from rl.plan import roofline  # noqa: E402
from rl.types import Sample  # noqa: E402
from rollouts.engines.continuous_batching import BatchLimits  # noqa: E402
from rollouts.engines.driver import EngineDriver  # noqa: E402
from rollouts.engines.transformers import TransformersEngine  # noqa: E402
from rollouts.model_family import VisionLanguageModel  # noqa: E402
from rollouts.types import Request  # noqa: E402

PARTS = ("checks", "rollouts", "lora", "full")
SAMPLES = 8
SHEETS = {  # dense bfloat16 operations and bytes a second, from the vendor's data sheets
    "NVIDIA H100 80GB HBM3": (989e12, 3.35e12),
    "NVIDIA H200": (989e12, 4.8e12),
    "NVIDIA A100-SXM4-80GB": (312e12, 2.04e12),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollouts:
    """One call of the engine: `groups` prompts of `prompt` tokens, eight samples of `new` tokens each."""

    groups: int
    prompt: int
    new: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is measured: the published model on a GPU, a tiny one elsewhere."""

    device: torch.device
    config: KimiVLConfig
    tokens: tuple[int, ...]
    rollouts: tuple[Rollouts, ...]
    runs: int

    @property
    def on_gpu(self) -> bool:
        """Whether there is a GPU, and so a floor to compare with."""
        return self.device.type == "cuda"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One line of the table. Without `seconds` it did not fit; without a GPU there is no `flops_share` and so on."""

    name: str
    tokens: int
    seconds: float | None = None
    floor: float | None = None  # seconds
    mfu: float | None = None
    gigabytes: float | None = None  # peak


# The device


def peaks(device: torch.device) -> tuple[float, float, str]:
    """Operations and bytes a second that the floors are made of: the data sheet's, or measured where none is known."""
    name = torch.cuda.get_device_name(device)
    measured = _measured_peaks(device)
    flops, moved = SHEETS.get(name, measured)
    source = "data sheet" if name in SHEETS else "measured"
    print(f"peaks ({source}): {flops / 1e12:.0f} TFLOP/s, {moved / 1e12:.2f} TB/s; "
          f"measured: {measured[0] / 1e12:.0f} TFLOP/s (8192^3), {measured[1] / 1e12:.2f} TB/s (copy)")  # fmt: skip
    return flops, moved, source


def _measured_peaks(device: torch.device) -> tuple[float, float]:
    """A large matrix product and a large copy in bfloat16 on random data."""
    a, b = torch.randn(2, 8192, 8192, device=device, dtype=torch.bfloat16)
    product = statistics.median(timed(lambda: a @ b, 10, device))
    source = torch.randn(1 << 30, device=device, dtype=torch.bfloat16)
    target = torch.empty_like(source)
    copy = statistics.median(timed(lambda: target.copy_(source), 10, device))
    return 2 * 8192**3 / product, 2 * source.nbytes / copy


def timed(work: Callable[[], object], runs: int, device: torch.device) -> list[float]:
    """Seconds of each of `runs` calls after one that does not count; the device is idle before and after each."""
    seconds = []
    for _ in range(runs + 1):
        _wait(device)
        start = time.perf_counter()
        work()
        _wait(device)
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def free(device: torch.device) -> None:
    """Release unused memory and reset the peak."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak_gigabytes(device: torch.device) -> float | None:
    """Most memory of tensors since `free`, in GB; None on a CPU."""
    return torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else None


def build(plan: Plan) -> KimiVLForConditionalGeneration:
    """Make random bfloat16 weights on the device: 33 GB that never pass through the CPU."""
    with torch.device(plan.device):
        torch.manual_seed(0)
        model = KimiVLForConditionalGeneration._from_config(plan.config, dtype=torch.bfloat16)
    for name, buffer in model.named_buffers():
        if name.endswith("e_score_correction_bias"):
            buffer.data = buffer.data.float()  # as a checkpoint is loaded
    return model


# The learner


class _WithAdafactor(SingleProcess):
    """One process, with Adafactor: its second moments are a row and a column of each matrix."""

    def build_optimizer(self, model: VisionLanguageModel, config: OptimizerConfig) -> torch.optim.Optimizer:
        return torch.optim.Adafactor(model.parameters(), lr=config.learning_rate, foreach=False)


def sample(tokens: int, vocabulary: int) -> Sample:
    """One completion that takes `tokens` tokens together with its prompt, which is an eighth of them."""
    rng = np.random.default_rng(0)
    length = tokens - tokens // 8 + 1  # the last token is predicted and not read
    return Sample(
        id="sample",
        prompt=text_prompt(rng.integers(0, vocabulary, tokens // 8)),
        token_ids=rng.integers(0, vocabulary, length),
        old_logprobs=np.full(length, -np.log(vocabulary), np.float32),
        advantage=1.0,
    )


def learner_rows(plan: Plan, name: str, peak: tuple[float, float] | None) -> Iterator[Measurement]:
    """`lora` or `full`: an optimizer step at every number of tokens."""
    model = build(plan)
    model.gradient_checkpointing_enable()
    adapters = 0
    if name == "lora":
        prepare_training(model, ModelConfig(lora=LoraConfig()), base="random weights")
        adapters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    config = LearnerConfig(
        loss=LossConfig(algorithm="grpo"),
        optimizer=OptimizerConfig(learning_rate=1e-6),
        temperature=1.0,
        total_steps=1000,
        max_new_tokens=max(plan.tokens),
        micro_batch_tokens=2 * max(plan.tokens),
    )
    parallel = SINGLE_PROCESS if name == "lora" else _WithAdafactor()
    learner = Learner(model, config, barred_ids=(), parallel=parallel)
    words = plan.config.text_config.bos_token_id
    for tokens in plan.tokens:
        one = sample(tokens, words)
        prompt, answer = len(one.prompt.input_ids), len(one.token_ids)
        pairs = roofline.causal_pairs(prompt) + roofline.causal_pairs(answer - 1, before=prompt)
        work = roofline.update_work(plan.config, tokens=tokens, predicted=answer, pairs=pairs, adapters=adapters)
        seconds, memory = measure(plan, lambda one=one: learner.update([one]))
        yield row(name, tokens, seconds, memory, work, peak)
        model.zero_grad()


# The engine


def rollout_rows(plan: Plan, peak: tuple[float, float] | None) -> Iterator[Measurement]:
    """Whole calls of the embedded engine; every sample runs to the limit."""
    model = build(plan)
    for job in plan.rollouts:
        requests = _requests(job, plan.config.text_config.bos_token_id)
        limits = BatchLimits(rows=job.groups * SAMPLES)
        watched = EngineDriver(
            TransformersEngine(model, stop_ids=(), barred_ids=(), limits=limits, record_experts=True)
        )
        engine = EngineDriver(TransformersEngine(model, stop_ids=(), barred_ids=(), limits=limits))
        met = _experts_met(watched, requests)
        sampling = SamplingConfig(max_new_tokens=job.new)
        seconds, memory = measure(plan, lambda e=engine, r=requests, s=sampling: e.generate(r, s))
        steps = roofline.rollout_work(
            plan.config, groups=job.groups, samples=SAMPLES, prompt=job.prompt, new=job.new, experts=met
        )
        name = f"rollouts {job.groups} x {SAMPLES}, prompts of {job.prompt}"
        yield row(name, job.groups * SAMPLES * job.new, seconds, memory, steps, peak)


def _requests(job: Rollouts, vocabulary: int) -> list[Request]:
    rng = np.random.default_rng(0)
    prompts = [text_prompt(rng.integers(0, vocabulary, job.prompt)) for _ in range(job.groups)]
    return [Request(prompt=prompt, n=SAMPLES, seed=seed) for seed, prompt in enumerate(prompts)]


def _experts_met(engine: EngineDriver, requests: list[Request]) -> float:
    """Mean number of distinct experts of a layer that one decode step reads, from a short run."""
    groups = engine.generate(requests, SamplingConfig(max_new_tokens=8))
    routes = np.stack([completion.routed_experts for group in groups for completion in group])  # [R, T, M, k]
    steps = routes[:, 1:].transpose(1, 2, 0, 3).reshape(-1, routes.shape[0] * routes.shape[3])
    return float(np.mean([len(np.unique(step)) for step in steps]))


# The table


def measure(plan: Plan, work: Callable[[], object]) -> tuple[float | None, float | None]:
    """Median seconds and peak memory of `work`; None where it does not fit."""
    free(plan.device)
    try:
        return statistics.median(timed(work, plan.runs, plan.device)), peak_gigabytes(plan.device)
    except torch.OutOfMemoryError as error:
        print(str(error).splitlines()[0], flush=True)
    return None, None


def row(
    name: str,
    tokens: int,
    seconds: float | None,
    memory: float | None,
    work: roofline.Work | list[roofline.Work],
    peak: tuple[float, float] | None,
) -> Measurement:
    """One row. The floor of parts that run one after the other is the sum of their floors."""
    if peak is None or seconds is None:
        return Measurement(name=name, tokens=tokens, seconds=seconds)
    parts = work if isinstance(work, list) else [work]
    return Measurement(
        name=name,
        tokens=tokens,
        seconds=seconds,
        floor=sum(part.seconds(*peak) for part in parts),
        mfu=sum(part.flops for part in parts) / peak[0] / seconds,
        gigabytes=memory,
    )


def show(rows: list[Measurement]) -> None:
    """Print the table."""
    print("| | tokens | tokens/s | seconds | floor, seconds | floor / seconds | MFU | peak GB |")
    print("|---|---|---|---|---|---|---|---|")
    for r in rows:
        if r.seconds is None:
            print(f"| {r.name} | {r.tokens} | out of memory | | | | | |")
            continue
        cells = ["", "", "", ""]
        if r.floor is not None and r.mfu is not None and r.gigabytes is not None:
            cells = [f"{r.floor:.3f}", f"{r.floor / r.seconds:.2f}", f"{r.mfu:.3f}", f"{r.gigabytes:.1f}"]
        print(f"| {r.name} | {r.tokens} | {r.tokens / r.seconds:.0f} | {r.seconds:.3f} | {' | '.join(cells)} |")


def result(plan: Plan, rows: list[Measurement], gaps: dict[str, float]) -> dict[str, object]:
    """The last line."""
    ratios = {}
    for r in rows:
        if r.floor is not None and r.seconds is not None:
            ratios |= {f"MFU, {r.name}, {r.tokens}": r.mfu, f"floor/time, {r.name}, {r.tokens}": r.floor / r.seconds}
    return {
        **ratios,
        "benchmark": "gpu",
        "device": torch.cuda.get_device_name(plan.device) if plan.on_gpu else "cpu, tiny shapes",
        "runs": plan.runs,
        "median_seconds": {f"{r.name}, {r.tokens}": r.seconds for r in rows},
        "peak_gigabytes": {f"{r.name}, {r.tokens}": r.gigabytes for r in rows},
        "gaps": gaps,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }


def make_plan(args: argparse.Namespace) -> Plan:
    """The published shapes if there is a GPU."""
    runs = 1 if args.quick else args.runs
    if not torch.cuda.is_available():
        sizes = TinySizes(kv_lora_rank=32, hidden_size=64, moe_intermediate_size=32, intermediate_size=64)
        config = tiny_config(sizes, num_tokens=300)
        small = (Rollouts(groups=2, prompt=12, new=10),)
        return Plan(device=torch.device("cpu"), config=config, tokens=(64, 256), rollouts=small, runs=runs)
    jobs = (Rollouts(groups=32, prompt=512, new=128), Rollouts(groups=8, prompt=8192, new=64))
    return Plan(
        device=torch.device("cuda"),
        config=KimiVLConfig(),
        tokens=tuple(args.tokens[:1] if args.quick else args.tokens),
        rollouts=jobs[:1] if args.quick else jobs,
        runs=runs,
    )


def main() -> None:
    """Check, measure, print a table, and end with one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one run of the smallest sizes")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--tokens", nargs="+", type=int, default=[2048, 8192, 32768], help="of a learner's step, GPU")
    args = parser.parse_args()
    plan = make_plan(args)
    gaps = check(plan.device) if "checks" in args.parts else {}
    for name, gap in gaps.items():
        print(f"relative gap to the CPU in float64: {name} {gap:.1e}", flush=True)
    peak = peaks(plan.device)[:2] if plan.on_gpu else None
    rows: list[Measurement] = []
    for name in args.parts:
        if name == "checks":
            continue
        for one in rollout_rows(plan, peak) if name == "rollouts" else learner_rows(plan, name, peak):
            rows.append(one)
            print(json.dumps({"row": one.name, "tokens": one.tokens, "seconds": one.seconds}), flush=True)
        free(plan.device)
    show(rows)
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(json.dumps(result(plan, rows, gaps)))
    if wrong := too_far(gaps) if gaps else []:
        raise SystemExit("the device computes something else than the CPU: " + "; ".join(wrong))


if __name__ == "__main__":
    main()
