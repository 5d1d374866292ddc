"""Our verifiers beside math-verify and TRL's accuracy reward: right and wrong by category, and verifications a second.

    python benchmarks/verifiers.py                 # the written rows of benchmarks/cases
    python benchmarks/verifiers.py --cases DIR     # DIR/math_cases.jsonl and DIR/mcq_cases.jsonl
    python benchmarks/verifiers.py --quick         # fewer rows and rounds, under a minute

A row of `math_cases.jsonl` has `gold`, `answer`, `form` ("bare": put into a box; "response": whole), `expect` and
`category`; one of `mcq_cases.jsonl` has `choices` {letter: text}, `response`, `expect_letter` and `category`. Rows
marked `contested` do not count. Throughput is on the rows whose category starts with "natural" (without such rows, on
those that have "extraction" in it), in rounds that take turns with math-verify in this process. The caches of our
verifier are cleared before each round. Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import median

from rewards.math.formula import parse_formula
from rewards.math.literal import parse_literal
from rewards.math.units import split_unit
from rewards.sandbox.pool import Worker, WorkerPool
from rewards.types import Task, VerdictKind
from rewards.verifiers.choice import ChoiceVerifier
from rewards.verifiers.math import MathVerifier

CASES = Path(__file__).resolve().parent / "cases"
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
Judge = Callable[[str, str], bool]


def load(folder: Path, name: str, every: int) -> list[dict]:
    """The rows of a file that are not contested, every `every`-th of them."""
    with (folder / name).open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return [row for row in rows if not row.get("contested")][::every]


def response_of(row: dict) -> str:
    """The whole response of a row."""
    return f"The final answer is $\\boxed{{{row['answer']}}}$." if row["form"] == "bare" else row["answer"]


def ours(worker: Worker) -> Judge:
    """Our verifier with its worker process for algebra."""
    verify = MathVerifier(worker)

    def judge(response: str, gold: str) -> bool:
        task = Task(id="", source="", question="", answer=gold)
        return verify(response, gold, task=task).kind is VerdictKind.CORRECT

    return judge


def math_verify() -> Judge:
    """math-verify with its defaults, the reference in dollar signs unless it is a response itself."""
    from math_verify import parse, verify

    def judge(response: str, gold: str) -> bool:
        wrapped = gold if "$" in gold or "\\boxed" in gold else f"${gold}$"
        return bool(verify(parse(wrapped), parse(response)))

    return judge


def trl() -> Judge:
    """TRL's accuracy reward as its trainers call it."""
    from trl.rewards import accuracy_reward

    def judge(response: str, gold: str) -> bool:
        wrapped = gold if "$" in gold or "\\boxed" in gold else f"${gold}$"
        return accuracy_reward([[{"role": "assistant", "content": response}]], [wrapped])[0] == 1.0

    return judge


def by_category(rows: list[dict], judge: Judge) -> tuple[dict[str, list[int]], list[float]]:
    """For each category and "all": rows, right, false positives, false negatives; and the seconds of each row."""
    table: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    seconds = []
    for row in rows:
        start = time.perf_counter()
        try:
            got = judge(response_of(row), row["gold"])
        except Exception:
            got = False  # what a trainer that catches the exception would score
        seconds.append(time.perf_counter() - start)
        for key in (row["category"], "all"):
            count = table[key]
            count[0] += 1
            count[1] += got == row["expect"]
            count[2] += got and not row["expect"]
            count[3] += row["expect"] and not got
    return table, seconds


def choice_table(rows: list[dict], worker: Worker) -> dict[str, list[int]]:
    """For each category and "all": rows, right, a wrong letter named, the right letter missed."""
    choose = ChoiceVerifier(worker)
    table: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for row in rows:
        found = choose.commitment(row["response"], tuple(row["choices"].values())).index
        letter = None if found is None else list(row["choices"])[found]
        for key in (row["category"], "all"):
            count = table[key]
            count[0] += 1
            count[1] += letter == row["expect_letter"]
            count[2] += letter is not None and letter != row["expect_letter"]
            count[3] += row["expect_letter"] is not None and letter is None
    return table


def rates(rows: list[dict], judges: dict[str, Judge], rounds: int) -> dict[str, list[float]]:
    """Verifications a second of each judge, in rounds that take turns."""
    found: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        for name, judge in judges.items():
            for cache in (parse_literal, parse_formula, split_unit):
                cache.cache_clear()
            start = time.perf_counter()
            for row in rows:
                with contextlib.suppress(Exception):
                    judge(response_of(row), row["gold"])
            found[name].append(len(rows) / (time.perf_counter() - start))
    return found


def show(tables: dict[str, dict[str, list[int]]]) -> None:
    """One line a category: accuracy in percent, false positives / false negatives."""
    first = next(iter(tables.values()))
    print(f"\n{'category':28}{'n':>6}" + "".join(f"{name:>22}" for name in tables))
    for category in sorted(first, key=lambda key: (key == "all", key)):
        cells = []
        for table in tables.values():
            n, right, positive, negative = table[category]
            cells.append(f"{100 * right / n:8.1f} ({positive:3}/{negative:3})")
        print(f"{category:28}{first[category][0]:6}" + "".join(f"{cell:>22}" for cell in cells))


def main() -> None:
    """Print the tables and the line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=Path, default=CASES, help="folder with math_cases.jsonl and mcq_cases.jsonl")
    parser.add_argument("--rounds", type=int, default=7, help="rounds of the throughput measurement")
    parser.add_argument("--quick", action="store_true", help="every sixth row, three rounds")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    every, rounds = (6, 3) if options.quick else (1, options.rounds)
    rows = load(options.cases, "math_cases.jsonl", every)
    with contextlib.closing(WorkerPool()) as worker:
        judges = {"thinkvl": ours(worker), "math-verify": math_verify(), "trl": trl()}
        for judge in judges.values():
            judge(
                "\\boxed{\\begin{pmatrix}1\\end{pmatrix}\\begin{pmatrix}2\\end{pmatrix}}",
                "\\begin{pmatrix}2\\end{pmatrix}",
            )
        results = {name: by_category(rows, judge) for name, judge in judges.items()}
        show({name: table for name, (table, _) in results.items()})
        choices = choice_table(load(options.cases, "mcq_cases.jsonl", every), worker)
        show({"thinkvl (choice)": choices})
        natural = [row for row in rows if row["category"].startswith("natural")]
        natural = natural or [row for row in rows if "extraction" in row["category"]]
        speed = rates(natural, {name: judges[name] for name in ("thinkvl", "math-verify")}, rounds)
    summary = {"rows": len(rows), "natural_rows": len(natural), "rounds": rounds, "choice": choices["all"]}
    for name, (table, seconds) in results.items():
        ordered = sorted(seconds)
        summary[name] = {
            "accuracy": round(table["all"][1] / len(rows), 4), "false_positives": table["all"][2],
            "false_negatives": table["all"][3], "p50_ms": round(1e3 * median(ordered), 3),
            "p99_ms": round(1e3 * ordered[int(0.99 * len(ordered))], 2), "max_s": round(ordered[-1], 3),
        }  # fmt: skip
    summary["natural_per_second"] = {name: round(median(found)) for name, found in speed.items()}
    ratios = [a / b for a, b in zip(speed["thinkvl"], speed["math-verify"], strict=True)]
    summary["thinkvl_over_math_verify"] = round(median(ratios), 2)
    print(json.dumps(summary))


if __name__ == "__main__":
    sys.exit(main())
