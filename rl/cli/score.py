"""`thinkvl score`: scores a JSONL file of responses with the verifiers and reward terms of a run."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from rich.table import Table

from configs.data import recipe_verifiers
from configs.errors import UserError
from configs.files import open_regular
from configs.load import load_recipe
from configs.rewards import JudgeConfig, RewardConfig
from configs.text import counted
from rewards.plugins.interface import PluginError
from rewards.scorer import Scorer
from rewards.types import Score, VerdictKind
from rl.cli.score_rows import FIELDS, BadLine, ResponseRow, read_rows
from rl.run.console import PlainConsole
from rl.run.progress import StageProgress

_BATCH = 256  # responses that the scorer gets at once
_STEPS = 200  # of the progress bar
_NAMED = 20  # bad lines that are told one by one
_FAILED = (VerdictKind.BAD_REFERENCE, VerdictKind.TIMEOUT, VerdictKind.CRASH)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreOptions:
    """The options of `thinkvl score`."""

    verifier: str = "math"
    rewards: Sequence[str] = ()  # `term` or `term=weight`
    recipe: Path | None = None
    columns: Sequence[str] = ()  # `ours=theirs`
    output: Path | None = None
    allowed: Sequence[str] = ()  # plug-ins that rows may name as their verifier


def score_command(file: Path, *, options: ScoreOptions, console: PlainConsole) -> int:
    """Score every response of `file`, write the verdicts, print the figures; return 1 if any failed, else 0.

    Raises UserError, ConfigError or PluginError if nothing can be scored.
    """
    columns = _columns(options.columns)
    terms, judge, allowed = _terms(options)
    output = options.output or file.with_name(f"{file.name}.verdicts.jsonl")
    if output.exists() and file.exists() and output.samefile(file):
        raise UserError(f"--output {output}: is the file of responses itself; name another")
    totals = ScoreTotals()
    aside = output.with_name(f".{output.name}.part")
    try:
        with Scorer(terms, base=Path.cwd(), judge=judge, allowed=allowed) as scorer:
            rows = read_rows(file, columns, options.verifier)
            _score_all(file, rows, scorer, totals, aside, console)
        if not totals.rows and not totals.bad:
            raise UserError(f"{file}: holds no line; each must be a JSON object with {', '.join(FIELDS[:3])} and so on")
        aside.replace(output)
    finally:
        aside.unlink(missing_ok=True)
    _print(totals, terms, console)
    console.print(f"verdicts in {output}")
    return int(bool(totals.bad or any(totals.kinds[kind] for kind in _FAILED) or totals.failures))


def _score_all(
    file: Path,
    rows: Iterator[ResponseRow | BadLine],
    scorer: Scorer,
    totals: ScoreTotals,
    aside: Path,
    console: PlainConsole,
) -> None:
    total = _count_lines(file)
    every = max(1, total // _STEPS)
    with (
        StageProgress(console, "score", total=max(1, -(-total // every))) as bar,
        aside.open("w", encoding="utf-8") as out,
    ):
        for batch, done in _batches(rows, every):
            _score(batch, scorer, totals, out)
            for _ in range(done):
                bar.advance({"accuracy": totals.accuracy})


class ScoreTotals:
    """Counts over all rows."""

    def __init__(self) -> None:
        self.rows = 0
        self.kinds: Counter[str] = Counter()
        self.by_source: dict[str, Counter[str]] = defaultdict(Counter)
        self.bad: list[BadLine] = []
        self.failures: Counter[str] = Counter()  # of reward terms, by "term/kind"
        self.parts: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])  # name -> sum, count

    @property
    def accuracy(self) -> float:
        """Share of correct responses among those whose verdict is a reward."""
        return accuracy(self.kinds)

    def add(self, row: ResponseRow, score: Score) -> None:
        """Count one scored response."""
        kind = score.verdict.kind
        self.rows += 1
        self.kinds[kind] += 1
        self.by_source[row.task.source][kind] += 1
        for name, verdict in score.failures.items():
            if name != "verifier":
                self.failures[f"{name}/{verdict.kind}"] += 1
        for name, value in {**score.parts, **({} if score.reward is None else {"reward": score.reward})}.items():
            self.parts[name][0] += value
            self.parts[name][1] += 1


def accuracy(kinds: Mapping[str, int]) -> float:
    """Share of `correct` among `correct`, `wrong` and `no_answer`; 0 without any."""
    judged = sum(kinds.get(kind, 0) for kind in (VerdictKind.CORRECT, VerdictKind.WRONG, VerdictKind.NO_ANSWER))
    return kinds.get(VerdictKind.CORRECT, 0) / judged if judged else 0.0


def _columns(given: Sequence[str]) -> dict[str, str]:
    columns = {}
    for pair in given:
        ours, equals, theirs = pair.partition("=")
        if not equals or not theirs or ours not in FIELDS:
            raise UserError(f"--column {pair}: must be OURS=THEIRS, where OURS is one of {', '.join(FIELDS)}")
        columns[ours] = theirs
    return columns


def _terms(options: ScoreOptions) -> tuple[tuple[RewardConfig, ...], JudgeConfig | None, tuple[str, ...]]:
    """The reward terms of the recipe and the command line, the judge, and the plug-ins that rows may name."""
    terms, judge, allowed = (RewardConfig(),), None, (options.verifier, *options.allowed)
    if options.recipe is not None:
        config = load_recipe(options.recipe)
        allowed += recipe_verifiers(*config.all_data)
        if config.last_rl is not None:
            terms, judge = config.last_rl.rewards, config.last_rl.judge
    terms += tuple(reward_term(text) for text in options.rewards)
    return terms, judge, allowed


def reward_term(text: str) -> RewardConfig:
    """Parse `verifier`, `rewards.py:brevity`, `repetition(n=6)` or `format=0.2`. Raises UserError for anything else."""
    text = text.strip()
    use, equals, weight = text.rpartition("=") if not text.endswith(")") else (text, "", "")
    try:
        return RewardConfig(use=use, weight=float(weight)) if equals else RewardConfig(use=text)
    except ValueError as error:
        raise UserError(f"--rewards {text}: must be TERM or TERM=WEIGHT, such as format=0.1 ({error})") from error


def split_terms(text: str) -> list[str]:
    """Split at commas outside of brackets."""
    return re.split(r",(?![^(]*\))", text)


def _count_lines(file: Path) -> int:
    with open_regular(file) as lines:
        return sum(1 for _ in lines)


def _batches(rows: Iterator[ResponseRow | BadLine], every: int) -> Iterator[tuple[list[ResponseRow | BadLine], int]]:
    """Batches of rows, each with the number of steps by which the progress bar advances."""
    batch: list[ResponseRow | BadLine] = []
    shown = line = 0
    for row in rows:
        batch.append(row)
        line = max(line, row.line)
        if len(batch) >= _BATCH:
            yield batch, line // every - shown
            batch, shown = [], line // every
    if batch:
        yield batch, max(1, line // every - shown)


def _score(batch: Sequence[ResponseRow | BadLine], scorer: Scorer, totals: ScoreTotals, out: IO[str]) -> None:
    rows: list[ResponseRow] = []
    for item in batch:
        if isinstance(item, ResponseRow):
            try:
                scorer.check_tasks([item.task])
            except PluginError as error:
                item = BadLine(line=item.line, reason=str(error))
        if isinstance(item, ResponseRow):
            rows.append(item)
        else:
            totals.bad.append(item)
    for row, score in zip(rows, scorer.score([r.response for r in rows], [r.task for r in rows]), strict=True):
        totals.add(row, score)
        out.write(json.dumps(_record(row, score), ensure_ascii=True) + "\n")


def _record(row: ResponseRow, score: Score) -> dict[str, Any]:
    verdict = asdict(score.verdict)
    verdict["seconds"] = round(verdict["seconds"], 6)
    failures = {name: asdict(found) for name, found in score.failures.items() if name != "verifier"}
    return {
        "line": row.line,
        "sample": row.sample,
        "id": row.task.id,
        "source": row.task.source,
        **verdict,
        "reward": score.reward,
        "parts": dict(score.parts),
        **({"failures": failures} if failures else {}),
    }


def _print(totals: ScoreTotals, terms: Sequence[RewardConfig], console: PlainConsole) -> None:
    for bad in totals.bad[:_NAMED]:
        console.print(f"line {bad.line}: {bad.reason}")
    if len(totals.bad) > _NAMED:
        console.print(f"... and {counted(len(totals.bad) - _NAMED, 'more line')} that cannot be used")
    table = Table("source", "responses", "accuracy", *VerdictKind)
    rows = {**totals.by_source, **({"all": totals.kinds} if len(totals.by_source) != 1 else {})}
    for source, kinds in rows.items():
        counts = [f"{kinds[kind]:,}" for kind in VerdictKind]
        table.add_row(source, f"{sum(kinds.values()):,}", f"{accuracy(kinds):.3f}", *counts)
    console.print(table)
    if len(terms) > 1:
        for name, (total, count) in totals.parts.items():
            console.print(f"  {name:<24} mean {total / count:.4f}")
    for name, count in totals.failures.items():
        console.print(f"  {counted(count, 'response')} without a reward: {name}")
    if totals.bad:
        console.print(f"{counted(len(totals.bad), 'line')} left out")
