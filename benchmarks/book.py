"""The rollout book with 10,000 rollouts: seconds to write and to open it, and how smoothly its list scrolls.

Invented rollouts of 200 tokens, eight of each question, an image for each question. A headless Chromium opens the file
from a cold start of the page, scrolls through the list for some seconds, and shows questions one after the other.
Without playwright or a browser nothing is measured, and the script says so.

    python benchmarks/book.py [--quick]
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import os
import platform
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from rl.pages.book import BookOptions, write_book
from rl.rollout_log import SCHEMA, RolloutLog

SAMPLES, TOKENS, STEPS = 8, 200, 10
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
CHANGED = "(old) => document.querySelector('.facts-line:last-child').textContent !== old"
SCROLL = """(seconds) => new Promise((done) => {
  const list = document.getElementById("list");
  const began = performance.now();
  const frames = [];
  let last = began;
  const frame = (now) => {
    frames.push(now - last);
    last = now;
    const share = (now - began) / (1000 * seconds);
    list.scrollTop = share * list.scrollHeight;
    if (share < 1) requestAnimationFrame(frame); else done(frames.slice(1));
  };
  requestAnimationFrame(frame);
})"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="400 rollouts, one opening")
    args = parser.parse_args()
    browser = _browser()
    if browser is None:
        print("skipped: playwright or Chromium is missing; pip install 'thinkvl[browser]' and apt install chromium")
        return
    rollouts, openings, seconds = (400, 1, 1) if args.quick else (10_000, 5, 5)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tokenizer = make_tokenizer()
        tokenizer.save(str(folder / "tokenizer.json"))
        write_log(folder, tokenizer, rollouts)
        began = time.perf_counter()
        page = folder / "book.html"
        write_book(folder, page, title="benchmark", tokenizers=[folder], options=BookOptions())
        figures = {
            "rollouts": rollouts,
            "tokens": rollouts * TOKENS,
            "megabytes": round(page.stat().st_size / 2**20, 1),
        }
        figures["seconds_to_write"] = round(time.perf_counter() - began, 2)
        figures |= measure(page, browser, openings, seconds)
    for key, value in figures.items():
        print(f"  {key:<28} {value}")
    print(json.dumps({"machine": platform.processor() or platform.machine(), **figures}))


def _browser() -> str | None:
    """The path of a Chromium; None where it or playwright is missing."""
    if importlib.util.find_spec("playwright") is None:
        return None
    return os.environ.get("THINKVL_CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)


def make_tokenizer() -> Tokenizer:
    """A tokenizer whose tokens are single bytes."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: at for at, letter in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def write_log(folder: Path, tokenizer: Tokenizer, rollouts: int) -> None:
    """Write steps of invented rollouts, as `RolloutLog` does."""
    rng = np.random.default_rng(0)
    log = RolloutLog(folder)
    questions = rollouts // SAMPLES // STEPS
    for step in range(1, STEPS + 1):
        rows = [row for group in range(questions) for row in _group(rng, log, tokenizer, step, group)]
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), log.path(step), compression="zstd")


def _group(rng: np.random.Generator, log: RolloutLog, tokenizer: Tokenizer, step: int, group: int) -> list[dict]:
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 255, (24, 24, 3), dtype=np.uint8)).resize((96, 96)).save(buffer, "PNG")
    image = log._keep(buffer.getvalue())
    rewards = rng.integers(0, 2, SAMPLES).astype(float)
    rows = []
    for sample, reward in enumerate(rewards):
        words = " ".join(str(number) for number in rng.integers(0, 999, TOKENS))[: TOKENS - 20]
        text = f"<think>{words}</think>{rng.integers(0, 99):>5}"[:TOKENS]
        ids = tokenizer.encode(text).ids
        numbers = {"policy_logprobs": (-rng.exponential(0.4, len(ids))).tolist(), "token_ids": ids}
        rows.append(
            {
                **{"step": step, "group": group, "sample": sample, "task": f"task/{group}", "source": f"s{group % 4}"},
                **{"question": f"How much is {group} and {sample}?", "images": [image], "answer": "7", "choices": []},
                **{"verifier": "math", "text": text, "finish_reason": "stop", "rule": "line/exact-rational", **numbers},
                **{"segments": [{"start": 0, "stop": len(ids), "version": step}], "detail": "", "extracted": text[-5:]},
                **{"verdict": "correct" if reward else "wrong", "reward": reward, "advantage": reward - 0.5},
                **{"parts": [("verifier", reward)], "failures": [], "trainable": [True] * len(ids)},
            }
        )
    return rows


def measure(path: Path, browser: str, openings: int, seconds: float) -> dict[str, object]:
    """Seconds to open, frames while scrolling, and milliseconds to show a question."""
    from playwright.sync_api import sync_playwright

    opened, shown, frames = [], [], []
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        for _ in range(openings):
            context = chromium.new_context(viewport={"width": 1280, "height": 800})
            page = context.new_page()
            began = time.perf_counter()
            page.goto(path.as_uri())
            page.wait_for_selector("html[data-ready='yes']")
            opened.append(time.perf_counter() - began)
            frames += page.evaluate(SCROLL, seconds)
            for _ in range(10):
                began = time.perf_counter()
                before = page.locator(".facts-line").last.text_content()
                page.keyboard.press("j")
                page.wait_for_function(
                    "(old) => document.querySelector('.facts-line:last-child').textContent !== old", arg=before
                )
                shown.append(1000 * (time.perf_counter() - began))
            context.close()
        chromium.close()
    late = sum(frame > 34 for frame in frames) / len(frames)
    return {
        "seconds_to_open": round(statistics.median(opened), 2),
        "seconds_to_open_slowest": round(max(opened), 2),
        "frame_ms_median": round(statistics.median(frames), 1),
        "frame_ms_99th_percent": round(float(np.percentile(frames, 99)), 1),
        "frames_later_than_34_ms": f"{late:.1%}",
        "question_ms_median": round(statistics.median(shown), 1),
    }


if __name__ == "__main__":
    main()
