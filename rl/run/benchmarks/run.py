"""Runs one benchmark from its rows to its figures; existing predictions are reused."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rewards.scorer import Scorer
from rl.run.benchmarks.answerers import Answer, Answerer, Refusal
from rl.run.benchmarks.predictions import Prediction, PredictionFile
from rl.run.benchmarks.results import figures
from rl.run.folder import write_json
from rollouts.sources.scoring import thinks
from rollouts.tasks.benchmarks.layout import Item
from rollouts.tasks.benchmarks.loading import BenchmarkTasks


def run_benchmark(
    tasks: BenchmarkTasks,
    answerer: Answerer,
    scorer: Scorer,
    *,
    folder: Path,
    settings: Mapping[str, Any],
    seed: int,
    on_answer: Callable[[int, int], object] = lambda done, correct: None,
) -> tuple[dict[str, Any], list[Prediction]]:
    """Generate the missing responses, write `NAME.jsonl` and `NAME.json` in `folder`; return figures and predictions.

    `on_answer` is called with how many rows are done, and how many of them are right. Raises UserError where the
    folder holds predictions that were made with other settings.
    """
    name = tasks.chosen.name
    with PredictionFile(folder / f"{name}.jsonl", settings) as file:
        wanted: dict[str, None] = {}  # the ids of this evaluation, in the order of the data
        for item, answer in answerer.answers(_left(tasks, file, wanted)):
            file.add(_prediction(item, answer, scorer))
            own = [file.found[key] for key in wanted if key in file.found]
            on_answer(len(own), sum(p.score >= 1 for p in own))
        predictions = [file.found[key] for key in wanted]
    result = figures(tasks.chosen.benchmark, predictions, seed=seed)
    write_json(folder / f"{name}.json", {"benchmark": name, **result, "settings": dict(settings)})
    return result, predictions


def _left(tasks: BenchmarkTasks, file: PredictionFile, wanted: dict[str, None]) -> Iterator[Item]:
    """The questions without a response; adds every id to `wanted`, and rows that are no questions to `file`."""
    for item in tasks:
        if isinstance(item, Item):
            wanted[item.task.id] = None
            if not file.done(item.task.id):
                yield item
        else:
            key = f"{tasks.chosen.name}/row {item.number}"
            wanted[key] = None
            if key not in file.found:
                file.add(Prediction(id=key, number=item.number, left_out=item.reason, detail=item.detail))


def _prediction(item: Item, answer: Answer | Refusal, scorer: Scorer) -> Prediction:
    shared: dict[str, Any] = {
        "id": item.task.id,
        "number": item.number,
        "question": item.question.question,
        "answer": item.task.answer,
        "groups": item.question.groups,
        "columns": item.question.columns,
    }
    if isinstance(answer, Refusal):
        return Prediction(**shared, left_out=answer.reason, detail=answer.detail)
    verdict = scorer.score([answer.text], [item.task])[0].verdict
    return Prediction(
        **shared,
        prediction=answer.text,
        extracted=verdict.extracted,
        kind=verdict.kind.value,
        score=verdict.score,
        rule=verdict.rule,
        detail=verdict.detail,
        tokens=answer.tokens,
        cut_off=answer.cut_off,
        thinks=thinks(answer.text),
    )
