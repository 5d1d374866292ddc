"""Prompts with images of 1 to 3 megapixels: rendered in the driver, and in Ray tasks.

    python benchmarks/rendering.py [--quick] [--prompts 48] [--rounds 3]

Half of the images are JPEG, half PNG. Both ways take turns on the same tasks, and give the same bits. Counts the wall
seconds, and the processor seconds of the driver, to the end of the prompts; the processes of Ray have started. The
driver's also where it then pickles the prompts for one worker, as it does when it hands them out. Prints one line of
JSON.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import ray
from PIL import Image

from configs.data import DataConfig
from rewards.types import Task
from rollouts.model_family import FAMILIES, TINY_FAMILY
from rollouts.tasks.prompts import PromptRenderer
from rollouts.types import Prompt
from rollouts.workers.render_tasks import RenderTasks
from rollouts.workers.start_ray import start_ray

SIZES = ((1000, 1000), (1600, 1250), (2048, 1536))
Seconds = dict[str, float]


def photo(rng: np.random.Generator, width: int, height: int, kind: str) -> bytes:
    """Smooth colours with some noise: a file of about a photo's size."""
    colours = rng.integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(colours).resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
    file = io.BytesIO()
    noise = rng.integers(-6, 7, smooth.shape, dtype=np.int16)
    Image.fromarray((smooth + noise).clip(0, 255).astype(np.uint8)).save(file, kind)
    return file.getvalue()


def measured(render: Callable[[], list[Prompt]]) -> tuple[list[Prompt], Seconds]:
    """The prompts, and seconds."""
    wall, own = time.perf_counter(), time.process_time()
    prompts = render()
    rendered = {"wall": time.perf_counter() - wall, "driver": time.process_time() - own}
    ray.put(prompts)
    return prompts, rendered | {"driver_and_sending": time.process_time() - own}


def main() -> None:
    """Measure both ways, and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="six prompts, once")
    args = parser.parse_args()
    prompt_count, rounds = (6, 1) if args.quick else (args.prompts, args.rounds)
    start_ray(1)
    with tempfile.TemporaryDirectory() as folder:
        family = FAMILIES[TINY_FAMILY]
        path = family.create_tiny_checkpoint(Path(folder) / "tiny", corpus=["What is it? 7 + 4 = 11"])
        renderer = PromptRenderer.from_config(family.load_processor(path), DataConfig(max_prompt_tokens=4096))
    rng = np.random.default_rng(0)
    tasks = []
    for i in range(prompt_count):
        image = photo(rng, *SIZES[i % 3], "PNG" if i % 2 else "JPEG")
        tasks.append(Task(id=str(i), source="photos", question="What is it?", answer="1", images=(image,)))
    ways = RenderTasks(renderer)
    sides = {
        "driver": lambda: renderer.render_all(tasks)[0],
        "tasks": lambda: renderer.render_all(tasks, ways.render(tasks))[0],
    }
    began = time.perf_counter()
    ways.render(tasks[:4])
    start = time.perf_counter() - began
    bits: set[str] = set()
    rows: dict[str, list[Seconds]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, render in sides.items():
            prompts, seconds = measured(render)
            rows[name].append(seconds)
            bits.add(hashlib.sha256(b"".join(p.pixel_values.tobytes() for p in prompts)).hexdigest())
    assert len(bits) == 1, "both ways give the same patches"
    figures = {
        name: {key: round(statistics.median(row[key] for row in own), 3) for key in own[0]}
        for name, own in rows.items()
    }
    print(json.dumps({"benchmark": "rendering", "cores": os.cpu_count(), "prompts": len(tasks), **figures,
                      "seconds_to_start": round(start, 1)}))  # fmt: skip
    ray.shutdown()


if __name__ == "__main__":
    main()
