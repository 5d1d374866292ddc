"""OpenMMReasoner's data as tasks: 874k worked solutions (`sft`) and 74k questions with answers (`rl`).

The recipes in `configs/recipes/kimi_vl_a3b` use it. Download both data sets first; the archive of pictures is unpacked
into the folder of the first:

    hf download --repo-type dataset OpenMMReasoner/OpenMMReasoner-SFT-874K --local-dir data/OpenMMReasoner-SFT-874K
    hf download --repo-type dataset OpenMMReasoner/OpenMMReasoner-RL-74K --local-dir data/OpenMMReasoner-RL-74K

Layouts: EvolvingLMMs-Lab/OpenMMReasoner, data_pipeline/distill_response.py (messages with `<think>` and `<answer>`) and
data_pipeline/src/openmmdata/preprocess/embed.py (verl's prompt, images and reward_model). arXiv:2511.16334.
"""

import re
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from datasets import load_dataset

WORKED = re.compile(r"<think>(.*?)</think>.*<answer>(.*?)</answer>", re.DOTALL)
HELD_OUT = 20  # one row in so many is held out


def sft(
    split: str, folder: str = "data/OpenMMReasoner-SFT-874K", files: str = "**/*.parquet", count: int | None = None
) -> Iterator[dict[str, Any]]:
    """Questions with a worked solution and an answer, at most `count`; pictures are relative to `folder`."""
    rows = (_worked(row, Path(folder)) for row in _rows(folder, files, split))
    yield from islice((row for row in rows if row is not None), count)


def rl(
    split: str, folder: str = "data/OpenMMReasoner-RL-74K", files: str = "**/*.parquet", count: int | None = None
) -> Iterator[dict[str, Any]]:
    """Questions with an answer that a rule checks, at most `count`."""
    for row in islice(_rows(folder, files, split), count):
        questions = [message["content"] for message in row["prompt"] if message["role"] == "user"]
        images = [image["bytes"] if isinstance(image, Mapping) else image for image in row.get("images") or ()]
        yield {"question": questions[-1], "answer": row["reward_model"]["ground_truth"], "images": images or None}


def _rows(folder: str, files: str, split: str) -> Iterator[Any]:
    """The rows of a split in the files' order, one after the other."""
    if next(Path(folder).glob(files), None) is None:
        raise FileNotFoundError(f"{folder} has no {files}; download it first, as {Path(__file__).name} says at its top")
    data = load_dataset("parquet", data_files=str(Path(folder).resolve() / files), split="train", streaming=True)
    return (row for number, row in enumerate(data) if (number % HELD_OUT == 0) == (split == "held_out"))


def _worked(row: Mapping[str, Any], folder: Path) -> dict[str, Any] | None:
    """A row of the first data set; None where the reply has no thinking or no answer."""
    question, images, reply = "", [], ""
    for message in row["messages"]:
        for part in message["content"]:
            if message["role"] == "assistant":
                reply += part.get("text") or ""
            elif message["role"] == "user" and part["type"] == "image_url":
                images.append(str((folder / part["image_url"]["url"].removeprefix("file://")).resolve()))
            elif message["role"] == "user":
                question += (part.get("text") or "").replace("<image>", "")
    found = WORKED.search(reply)
    if found is None or not found[2].strip():
        return None
    return {
        "question": question.strip(),
        "answer": found[2].strip(),
        "solution": found[1].strip(),
        "images": images or None,
    }
