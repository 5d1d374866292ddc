"""Exports predictions as files that VLMEvalKit and lmms-eval can score.

VLMEvalKit: `MODEL_DATASET.tsv` with the columns index, question, answer, prediction and those that the data set's
evaluation reads (open-compass/VLMEvalKit, vlmeval/inference.py, `infer_data_job`, and vlmeval/smp/file.py: its name,
and tab-separated values with every cell in quotes; set PRED_FORMAT=tsv). Multiple-choice evaluation joins `index` with
the data set's own TSV, so the index is taken from that file where it is given.

lmms-eval: `samples_TASK.jsonl` in the layout of EvolvingLMMs-Lab/lmms-eval, lmms_eval/loggers/evaluation_tracker.py
(`save_results_samples`), and `TASK.json`, which the model `from_log` (lmms_eval/models/simple/from_log.py) reads:
`lmms_eval --model from_log --model_args logs=FOLDER --tasks TASK` scores it. `doc_id` is the row's number.
"""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from configs.errors import UserError
from configs.files import write_text
from configs.text import one_line
from rewards.extraction import split_thinking
from rl.run.benchmarks.predictions import Prediction
from rollouts.tasks.benchmarks.loading import Chosen
from rollouts.tasks.rows import LETTERS


def export(
    folder: Path, chosen: Chosen, predictions: Sequence[Prediction], *, model: str, reference: Path | None = None
) -> list[Path]:
    """Write the benchmark's files and return their paths. `reference` is VLMEvalKit's own TSV. Raises UserError."""
    written = []
    name = re.sub(r"[^\w.-]", "_", Path(model).name) or "model"
    if chosen.benchmark.vlmevalkit:
        path = folder / "vlmevalkit" / f"{name}_{chosen.benchmark.vlmevalkit}.tsv"
        write_text(path, vlmevalkit_table(predictions, reference))
        written.append(path)
    if task := chosen.benchmark.lmms_eval:
        for path, text in (
            (folder / "lmms_eval" / f"samples_{task}.jsonl", lmms_samples(predictions)),
            (folder / "lmms_eval" / f"{task}.json", lmms_log(predictions, task, model=model)),
        ):
            write_text(path, text)
            written.append(path)
    return written


def vlmevalkit_table(predictions: Sequence[Prediction], reference: Path | None = None) -> str:
    """The table as tab-separated values; questions that were left out have an empty prediction."""
    indices = _indices(reference) if reference is not None else None
    extra = list(dict.fromkeys(column for p in predictions for column in p.columns))
    names = ["index", "question", *(name for name in extra if name != "answer"), "answer", "prediction"]
    lines = io.StringIO()
    writer = csv.DictWriter(lines, names, delimiter="\t", quoting=csv.QUOTE_ALL, lineterminator="\n", restval="")
    writer.writeheader()
    for prediction in predictions:
        row = {"question": prediction.question, "answer": prediction.answer, **prediction.columns}
        index: str | int | None = prediction.number
        if indices is not None and (index := indices.get(_key(row))) is None:
            raise UserError(
                f"--vlmevalkit-data {reference}: has no row with the question {prediction.question[:80]!r} and the "
                f"answer {row['answer'][:80]!r}; give the TSV of this data set and split"
            )
        writer.writerow({**row, "index": index, "prediction": _said(prediction)})
    return lines.getvalue()


def lmms_samples(predictions: Sequence[Prediction]) -> str:
    """One JSON line for each question, as `--log_samples` writes them."""
    rows = (
        {
            "doc_id": p.number,
            "input": p.question,
            "target": p.answer,
            "resps": [p.prediction],
            "filtered_resps": [_said(p)],
            "accuracy": p.score,
        }
        for p in predictions
    )
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def lmms_log(predictions: Sequence[Prediction], task: str, *, model: str) -> str:
    """The input of `--model from_log`: row number -> response."""
    value = {
        "args": {"model": "thinkvl", "model_args": f"pretrained={model}", "limit": None},
        "model_configs": {"task": task},
        "logs": [{"doc_id": p.number, "resps": [[_said(p)]]} for p in predictions],
    }
    return json.dumps(value, ensure_ascii=False, indent=1) + "\n"


def _said(prediction: Prediction) -> str:
    """The response without its thinking, which both kits expect to be removed."""
    return split_thinking(prediction.prediction).answer_text.strip()


def _indices(reference: Path) -> dict[tuple[str, ...], str]:
    """The index of each row of VLMEvalKit's TSV by question, answer and options. Raises UserError."""
    try:
        return dict(_read_indices(reference))
    except (OSError, ValueError, csv.Error, KeyError) as error:
        raise UserError(f"--vlmevalkit-data {reference}: cannot be read ({one_line(error)})") from error


def _read_indices(reference: Path) -> Iterator[tuple[tuple[str, ...], str]]:
    csv.field_size_limit(sys.maxsize)  # a cell holds a whole image
    with reference.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            yield _key(row), row["index"]


def _key(row: Mapping[str, str]) -> tuple[str, ...]:
    options = [row.get(letter) or "" for letter in LETTERS[:12]]
    return tuple(" ".join(cell.split()) for cell in (row["question"], row["answer"], *options))
