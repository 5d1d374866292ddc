"""Tokens a second of the rollout engines on one thread, and of the pool with one and with two workers.

    python benchmarks/engines.py [--quick] [--columns embedded generate vllm native pool1 pool2]
        [--python NAME=INTERPRETER]

A Kimi-VL of about 7M parameters with random weights samples 8 completions of each image prompt at temperature 1. About
one token in 60 ends a completion, so lengths are long-tailed (geometric, cut at the limit). `generate` is
`model.generate` in static batches of the same number of rows, each sample with its own copy of prompt and image, as TRL
calls it. `native` is vLLM with its own sampler, `vllm` with ours. The pools get 16 times as many prompts, so that the
wait for the last long completions weighs little. Every column is a process of its own, which may run in another
environment (`--python`); they take turns, round by round, and never run at once. Prints a table and ends with one line
of JSON: ratios of medians.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]

SAMPLES, WORDS, GRID = 8, 30, (8, 8)  # samples a prompt, text tokens, patches down and across
POOLED = 16  # times the prompts, for the pools
RATIOS = {
    "embedded/generate": ("embedded", "generate"),
    "embedded/vllm": ("embedded", "vllm"),
    "native/vllm": ("native", "vllm"),
    "2 workers/1": ("pool2", "pool1"),
}
Work = dict[str, object]
Answer = Callable[[int, int], int]  # seed, number of prompts -> tokens generated


def make_work(folder: Path, *, groups: int, rows: int, limit: int) -> None:
    """Write all that a column needs: the checkpoint, the prompts and the settings."""
    from kimi_vl import TinySizes, create_tiny_checkpoint, load_model, load_processor
    from kimi_vl.family import stop_and_barred_ids

    sizes = TinySizes(
        hidden_size=256, num_hidden_layers=4, moe_intermediate_size=128, intermediate_size=1024, num_merges=1536,
        kv_lora_rank=512, qk_nope_head_dim=64, qk_rope_head_dim=64, v_head_dim=64,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    corpus = ["".join(rng.choice(list("abcdefghijklmnop"), 6)) for _ in range(20_000)]
    create_tiny_checkpoint(folder / "model", corpus=corpus, sizes=sizes)
    model = load_model(folder / "model")
    config = model.config
    stop, barred = stop_and_barred_ids(folder / "model", load_processor(folder / "model"))
    words = config.text_config.bos_token_id
    stop += rng.choice(words, words // 60, replace=False).tolist()
    placeholders = [config.media_placeholder_token_id] * (GRID[0] * GRID[1] // 4)
    ids = [rng.integers(0, words, WORDS).tolist() for _ in range(groups)]
    pixels = rng.uniform(-1, 1, (groups, GRID[0] * GRID[1], 3, 14, 14)).astype(np.float32)
    np.savez(folder / "images.npz", pixels=pixels)
    work: Work = {
        "prompts": [row[:10] + placeholders + row[10:] for row in ids],
        "stop": sorted(map(int, stop)),
        "barred": list(map(int, barred)),
        "rows": rows,
        "limit": limit,
        "parameters": sum(p.numel() for p in model.parameters()),
    }
    (folder / "work.json").write_text(json.dumps(work), encoding="utf-8")


# Columns: each takes the folder and returns a function that generates for all prompts once.


def _requests(folder: Path, work: dict, seed: int, count: int) -> list:
    from rewards.types import Task
    from rollouts.patches import Patches
    from rollouts.types import Prompt, Request

    pixels = np.load(folder / "images.npz")["pixels"]
    prompts = [
        Prompt(
            id=str(i),
            task=Task(id=str(i), source="made", question="?", answer="1"),
            input_ids=np.array(work["prompts"][i % len(pixels)]),
            patches=Patches(pixels[i % len(pixels)]),
            image_grid_hws=np.array([GRID]),
        )
        for i in range(count)
    ]
    return [Request(prompt=p, n=SAMPLES, seed=seed * 1000 + i) for i, p in enumerate(prompts)]


def embedded(folder: Path, work: dict) -> Answer:
    """The embedded engine."""
    from configs.rl import SamplingConfig

    engine = embedded_engine(folder / "model", work)
    sampling = SamplingConfig(max_new_tokens=work["limit"])
    return lambda seed, count: _count(engine.generate(_requests(folder, work, seed, count), sampling))


def embedded_engine(model: Path, work: dict) -> Any:
    """The embedded engine on one thread, with the columns' rows."""
    import torch

    from kimi_vl import load_model
    from rollouts.engines.continuous_batching import BatchLimits
    from rollouts.engines.driver import EngineDriver
    from rollouts.engines.transformers import TransformersEngine

    torch.set_num_threads(1)
    return EngineDriver(
        TransformersEngine(
            load_model(model),
            stop_ids=work["stop"],
            barred_ids=work["barred"],
            limits=BatchLimits(rows=work["rows"]),
        )
    )


def generate(folder: Path, work: dict) -> Answer:
    """`model.generate`, left-padded static batches."""
    import torch

    from kimi_vl import load_model

    model = load_model(folder / "model")
    pixels = np.load(folder / "images.npz")["pixels"]

    def answer(seed: int, count: int) -> int:
        torch.manual_seed(seed)
        repeated = np.repeat(np.arange(count), SAMPLES)
        total = 0
        for start in range(0, len(repeated), work["rows"]):
            part = repeated[start : start + work["rows"]]
            ids = torch.tensor([work["prompts"][i] for i in part])
            output = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                pixel_values=torch.from_numpy(np.concatenate([pixels[i] for i in part])),
                image_grid_hws=torch.tensor([GRID] * len(part)),
                do_sample=True,
                top_k=0,
                max_new_tokens=work["limit"],
                eos_token_id=work["stop"],
                pad_token_id=work["barred"][-1],
                suppress_tokens=work["barred"],
            )
            total += int((output[:, ids.shape[1] :] != work["barred"][-1]).sum())
        return total

    return answer


def pool(folder: Path, work: dict, *, workers: int) -> Answer:
    """Ray actors, each with the embedded engine of the first column."""
    from configs.rl import SamplingConfig
    from rollouts.engines.engine_spec import EngineSpec
    from rollouts.workers.pool import RolloutPool
    from rollouts.workers.start_ray import start_ray

    @dataclass(frozen=True, kw_only=True)
    class ColumnSpec(EngineSpec):
        """Builds the engine with the rows that all columns have."""

        work: Work

        def build(self) -> Any:
            return embedded_engine(Path(self.model_path), self.work)

    start_ray(workers)
    spec = ColumnSpec(model_path=str(folder / "model"), dtype="float32", stop_ids=(), barred_ids=(), work=work)
    actors = RolloutPool(spec, workers=workers)
    sampling = SamplingConfig(max_new_tokens=work["limit"])
    return lambda seed, count: _count(actors.generate(_requests(folder, work, seed, POOLED * count), sampling))


def vllm(folder: Path, work: dict, *, sampler: str = "exact") -> Answer:
    """vLLM, eager on a CPU; `--python vllm=.vllm-env/bin/python`. `sampler`: see docs/engines.md."""
    from configs.rl import SamplingConfig
    from rollouts.engines.driver import EngineDriver
    from rollouts.engines.vllm import VllmEngine, VllmSettings

    engine = EngineDriver(
        VllmEngine(
            str(folder / "model"),
            dtype="float32",
            stop_ids=work["stop"],
            barred_ids=work["barred"],
            settings=VllmSettings(options={"max_num_seqs": work["rows"], "sampler": sampler}),
        )
    )
    sampling = SamplingConfig(max_new_tokens=work["limit"])
    return lambda seed, count: _count(engine.generate(_requests(folder, work, seed, count), sampling))


COLUMNS: dict[str, Callable[[Path, dict], Answer]] = {
    "embedded": embedded,
    "generate": generate,
    "vllm": vllm,
    "native": lambda folder, work: vllm(folder, work, sampler="native"),
    "pool1": lambda folder, work: pool(folder, work, workers=1),
    "pool2": lambda folder, work: pool(folder, work, workers=2),
}


def _count(groups: list) -> int:
    return sum(len(completion.token_ids) for group in groups for completion in group)


def serve(name: str, folder: Path) -> None:
    """A column's process: reads a seed from each line, writes tokens and seconds on one line."""
    work = json.loads((folder / "work.json").read_text(encoding="utf-8"))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # a library may print lines of its own
    answer = COLUMNS[name](folder, work)
    answer(0, 2)  # warm-up
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        start, cpu = time.perf_counter(), time.process_time()
        tokens = answer(int(line), len(work["prompts"]))
        spent = {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu}
        print(json.dumps({"tokens": tokens, **spent}), file=answers, flush=True)


class Column:
    """A column's process, seen from the parent."""

    def __init__(self, name: str, folder: Path, interpreter: str) -> None:
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        self.process = subprocess.Popen(
            [interpreter, __file__, "--serve", name, "--folder", str(folder)],
            env={**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.read()

    def read(self) -> str:
        """The next line of the process."""
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"a column ended with exit code {self.process.wait()}; its messages are above")
        return line

    def run(self, seed: int) -> dict[str, float]:
        """One round."""
        self.process.stdin.write(f"{seed}\n")
        self.process.stdin.flush()
        return json.loads(self.read())

    def close(self) -> None:
        """End the process."""
        self.process.stdin.close()
        self.process.wait()


def measure(folder: Path, names: list[str], interpreters: dict[str, str], rounds: int) -> dict[str, list[dict]]:
    """`rounds` results of each column, in turns."""
    results: dict[str, list[dict]] = {name: [] for name in names}
    columns = {name: Column(name, folder, interpreters.get(name, sys.executable)) for name in names}
    try:
        for seed in range(rounds):
            for name, column in columns.items():
                results[name].append(column.run(seed + 1))
                last = results[name][-1]
                print(f"round {seed + 1} {name}: {last['tokens'] / last['seconds']:.0f} tokens/s", flush=True)
    finally:
        for column in columns.values():
            column.close()
    return results


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"


def main() -> None:
    """Measure, print a table, and end with one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--columns", nargs="+", default=[c for c in COLUMNS if c not in ("vllm", "native")], choices=list(COLUMNS)
    )
    parser.add_argument("--python", nargs="*", default=[], metavar="COLUMN=INTERPRETER")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--groups", type=int, default=16, help="prompts in a round")
    parser.add_argument("--rows", type=int, default=64, help="samples that run together")
    parser.add_argument("--limit", type=int, default=256, help="tokens of an answer at most")
    parser.add_argument("--quick", action="store_true", help="less work, one round: does it run?")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        return serve(args.serve, args.folder)
    size = {"groups": args.groups, "rows": args.rows, "limit": args.limit}
    if args.quick:
        size = {"groups": 4, "rows": 16, "limit": 48}
    with tempfile.TemporaryDirectory() as folder:
        make_work(Path(folder), **size)
        parameters = json.loads((Path(folder) / "work.json").read_text())["parameters"]
        interpreters = dict(item.split("=", 1) for item in args.python)
        results = measure(Path(folder), args.columns, interpreters, 1 if args.quick else args.rounds)
    medians = {n: statistics.median(r["tokens"] / r["seconds"] for r in rs) for n, rs in results.items()}
    cpu = {n: statistics.median(r["tokens"] / r["cpu_seconds"] for r in rs) for n, rs in results.items()}
    print(f"\n{parameters / 1e6:.1f}M parameters, {size}, {SAMPLES} samples a prompt")
    print("| column | tokens/s (median) | all rounds | tokens a CPU second |\n|---|---|---|---|")
    for name, rs in results.items():
        rounds = ", ".join(f"{r['tokens'] / r['seconds']:.0f}" for r in rs)
        # A pool's work is done in other processes, so its own CPU time says nothing.
        spent = "" if name.startswith("pool") else f"{cpu[name]:.0f}"
        print(f"| {name} | {medians[name]:.0f} | {rounds} | {spent} |")
    versions = {name: _version(name) for name in ("torch", "transformers", "ray")}
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}")
    ratios = {name: medians[a] / medians[b] for name, (a, b) in RATIOS.items() if a in medians and b in medians}
    ratios |= {
        f"embedded/{other}, CPU time": cpu["embedded"] / cpu[other]
        for other in ("generate", "vllm")
        if {"embedded", other} <= cpu.keys()
    }
    runs = len(next(iter(results.values())))
    print(json.dumps({**ratios, "runs": runs, "median_tokens_per_second": medians}))
    return None


if __name__ == "__main__":
    main()
