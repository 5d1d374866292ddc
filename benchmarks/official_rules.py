"""Our verdicts beside the official ones, on responses that a benchmark's authors have published with their verdicts.

    python benchmarks/official_rules.py mathvision OUTPUTS.jsonl --data test.jsonl --judged correct
    python benchmarks/official_rules.py mathvista output_bard.json --judged true_false
    python benchmarks/official_rules.py mmmu_pro 'gpt-4o_standard(10 options)_cot.jsonl' --judged if_right

The files are in mathllm/MATH-V (outputs, data), lupantech/MathVista (results) and MMMU-Benchmark/MMMU
(mmmu-pro/output). A row has the benchmark's own columns and a `response`; where it has only an `id`, `--data` has the
rest. Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path

from rewards.scorer import Scorer
from rewards.types import Task
from rollouts.tasks.benchmarks.layout import Place
from rollouts.tasks.benchmarks.table import BENCHMARKS


def rows_of(path: Path) -> list[dict]:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in text.split("\n") if line.strip()]
    value = json.loads(text)
    return list(value.values()) if isinstance(value, dict) else value


def task_of(name: str, row: dict, number: int) -> Task:
    found = BENCHMARKS[name].read(row, Place(number=number))
    return Task(
        id=found.id,
        source=name,
        question=found.prompt,
        answer=found.answer,
        choices=found.choices,
        verifier=found.verifier,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benchmark", choices=sorted(BENCHMARKS))
    parser.add_argument("outputs", type=Path)
    parser.add_argument("--data", type=Path, help="rows with the benchmark's columns, joined by `id`")
    parser.add_argument("--judged", default="correct", help="the column with the official verdict")
    parser.add_argument("--show", type=int, default=0, help="print so many of each kind of difference")
    options = parser.parse_args()
    data = {row["id"]: row for row in rows_of(options.data)} if options.data else {}
    rows = [data.get(row.get("id"), {}) | row for row in rows_of(options.outputs)]
    rows = [row for row in rows if isinstance(row.get("response"), str) and options.judged in row]
    tasks = [task_of(options.benchmark, row, number) for number, row in enumerate(rows)]
    with Scorer(()) as scorer:
        verdicts = [score.verdict for score in scorer.score([row["response"] for row in rows], tasks)]
    pairs = Counter(
        (bool(row[options.judged]), verdict.score >= 1) for row, verdict in zip(rows, verdicts, strict=True)
    )
    for official, ours in ((False, True), (True, False)):
        differing = [
            (task, verdict, row)
            for task, verdict, row in zip(tasks, verdicts, rows, strict=True)
            if (bool(row[options.judged]), verdict.score >= 1) == (official, ours)
        ]
        for task, verdict, row in differing[: options.show]:
            side = "ours alone right" if ours else "official alone right"
            print(f"{side}: {task.id} {task.answer!r} {verdict.kind.value} {row['response'][-120:]!r}")
    count = len(rows)
    print(
        json.dumps(
            {
                "benchmark": options.benchmark,
                "responses": count,
                "official": round((pairs[True, True] + pairs[True, False]) / count, 4),
                "ours": round((pairs[True, True] + pairs[False, True]) / count, 4),
                "agree": round((pairs[True, True] + pairs[False, False]) / count, 4),
                "ours_alone_right": pairs[False, True],
                "official_alone_right": pairs[True, False],
                "no_answer": sum(verdict.kind.value == "no_answer" for verdict in verdicts),
            }
        )
    )


if __name__ == "__main__":
    main()
