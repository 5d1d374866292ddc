"""The contract test of plug-ins: what a reward function must survive before a run depends on it.

It is loaded in a worker process, as in a run, and called on ordinary and on hostile responses. What it gives is not
judged, for nobody else knows what it is meant to reward; that it gives something usable, always and again, is.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from configs.rewards import RewardConfig
from configs.text import counted
from rewards.plugins.interface import Outcome
from rewards.plugins.runner import IsolatedPlugin
from rewards.sandbox.pool import Flow
from rewards.types import Task, VerdictKind

TASK = Task(
    id="check/1",
    source="check",
    question="A box holds 12 books and 7 more are put into it. How many are there?",
    answer="19",
    choices=("17", "18", "19", "20"),
    images=(b"\x89PNG\r\n\x1a\n",),
)
RIGHT = "◁think▷12 + 7 = 19◁/think▷The answer is \\boxed{19}."
WRONG = "◁think▷12 + 7 = 18◁/think▷The answer is \\boxed{18}."
ORDINARY: Mapping[str, str] = {
    "right": RIGHT,
    "wrong": WRONG,
    "no thinking": "\\boxed{19}",
    "a sentence": "There are 19 books in the box.",
    "another sort of answer": "I cannot see any box in this picture.",
}
HOSTILE: Mapping[str, str] = {
    "empty": "",
    "white space": " \n\t ",
    "thinking never ends": "◁think▷12 + 7 = 19, and so",
    "thinking only": "◁think▷19◁/think▷",
    "marks in disorder": "◁/think▷◁think▷◁/think▷◁think▷19",
    "2 million characters": "19 and so on " * 160_000,
    "one long word": "a" * 200_000,
    "100,000 digits": "9" * 100_000,
    "a tower of powers": "\\boxed{9^{9^{9^{9}}}}",
    "20,000 brackets": "(" * 20_000 + "19" + ")" * 20_000,
    "an open formula, often": "\\( " * 20_000,
    "an open box": "\\boxed{\\frac{19",
    "Chinese": "◁think▷十二加七◁/think▷答案是 １９。",
    "Arabic, right to left": "الجواب هو \u202e١٩\u202c",
    "emoji and combining marks": "🧮👩‍👧‍👦 1\u0301\u0302\u0303 9" + "\u0300" * 5_000,
    "control characters": "\x00\x07\x1b[31m19\x7f\r\n",
    "half a character": "19 \ud83d",
    "not a number": "nan inf -inf 1e999 0/0",
    "code": "__import__('os')._exit(1)",
    "JSON and tags": '{"answer": [[[{"a": null}]]]}<answer><answer>19</answer>',
}
_FAILURES = (VerdictKind.CRASH, VerdictKind.TIMEOUT)
_LEAK_CALLS = 200
_LEAK_SECONDS = 10.0
_LEAK_BYTES = 32 << 20


class Result(StrEnum):
    """How a check ended. A note is for its author to judge."""

    OK = "ok"
    NOTE = "note"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One line of the report."""

    name: str
    result: Result
    detail: str


def check_reward(spec: str, config: RewardConfig, *, base: Path) -> Iterator[Check]:
    """The checks of the reward `spec`, each as it ends. Raises PluginError where it cannot be loaded."""
    plugin = IsolatedPlugin(spec, config, base=base, known=())
    try:
        began = time.perf_counter()
        kind = plugin.load()
        form = ("all responses to a prompt at once" if kind["grouped"] else "one response at a time") + (
            ", async" if kind["is_async"] else ""
        )
        yield Check(name="loads", result=Result.OK, detail=f"{form}; {time.perf_counter() - began:.1f} s")
        before = _score(plugin, ORDINARY)
        yield _usable("ordinary responses", before)
        if _always_fails(before):
            return  # every other line would say the same
        yield from (_usable(name, {name: _score(plugin, {name: text})[name]}) for name, text in HOSTILE.items())
        yield _alone(plugin, before, grouped=kind["grouped"])
        yield _same("gives the same again", before, _score(plugin, ORDINARY))
        plugin.close()
        yield _same("gives the same in a fresh process", before, _score(plugin, ORDINARY))
        yield _leak(plugin)
        yield _times(before)
        yield from _notes(before, _score(plugin, {"empty": ""}))
    finally:
        plugin.close()


def _score(plugin: IsolatedPlugin, responses: Mapping[str, str]) -> dict[str, Outcome]:
    """The outcome of each response, of one prompt."""
    found: dict[int, Outcome] = {}
    done = threading.Event()

    def deliver(place: int, outcome: Outcome) -> None:
        found[place] = outcome
        if len(found) == len(responses):
            done.set()

    plugin.start(list(responses.values()), TASK, Flow(), deliver)
    done.wait()
    return {name: found[place] for place, name in enumerate(responses)}


def _always_fails(outcomes: Mapping[str, Outcome]) -> bool:
    """Whether every response failed in the same way."""
    verdicts = {(outcome.verdict.kind, outcome.verdict.detail) for outcome in outcomes.values()}
    return len(verdicts) == 1 and next(iter(verdicts))[0] in _FAILURES


def _usable(name: str, outcomes: Mapping[str, Outcome]) -> Check:
    bad = {case: o.verdict for case, o in outcomes.items() if o.verdict.kind in _FAILURES}
    if len(bad) > 1 and _always_fails(outcomes):
        verdict = next(iter(bad.values()))
        detail = f"every one: {verdict.kind.value}: {verdict.detail}; mend this first, nothing else was tried"
        return Check(name=name, result=Result.FAILED, detail=detail)
    if bad:
        told = "; ".join(f"{'' if case == name else case + ': '}{v.kind.value}: {v.detail}" for case, v in bad.items())
        return Check(name=name, result=Result.FAILED, detail=told)
    values = ", ".join(f"{'' if case == name else case + ' '}{_value(o)}" for case, o in outcomes.items())
    return Check(name=name, result=Result.OK, detail=values)


def _alone(plugin: IsolatedPlugin, before: Mapping[str, Outcome], *, grouped: bool) -> Check:
    """A group of one must do; where each response counts by itself, its value must not hang on its neighbours."""
    alone = _score(plugin, {"right": RIGHT})
    check = _usable("a response alone", alone)
    if grouped or check.result is Result.FAILED:
        return check
    return _same("a response alone", {"right": before["right"]}, alone)


def _same(name: str, before: Mapping[str, Outcome], after: Mapping[str, Outcome]) -> Check:
    moved = [
        f"{case}: {_value(o)}, then {_value(after[case])}"
        for case, o in before.items()
        if (o.value, o.parts, o.verdict.kind) != (after[case].value, after[case].parts, after[case].verdict.kind)
    ]
    return Check(name=name, result=Result.FAILED if moved else Result.OK, detail="; ".join(moved) or "yes")


def _leak(plugin: IsolatedPlugin) -> Check:
    name = "memory stays where it is"
    _score(plugin, ORDINARY)
    pids, start, until = plugin.pool.pids, _resident(plugin.pool.pids), time.monotonic() + _LEAK_SECONDS
    calls = 0
    while calls < _LEAK_CALLS and time.monotonic() < until:
        _score(plugin, ORDINARY)
        calls += len(ORDINARY)
    if plugin.pool.pids != pids:
        return Check(name=name, result=Result.NOTE, detail="not measured: a process was replaced meanwhile")
    grown = _resident(pids) - start
    detail = f"{grown / 2**20:+.1f} MiB over {counted(calls, 'response')}"
    return Check(name=name, result=Result.FAILED if grown > _LEAK_BYTES else Result.OK, detail=detail)


def _resident(pids: Sequence[int]) -> int:
    """Bytes of memory in use by processes; 0 where the system does not tell."""
    try:
        return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 for pid in pids)
    except OSError:
        return 0


def _times(outcomes: Mapping[str, Outcome]) -> Check:
    seconds = [outcome.verdict.seconds for outcome in outcomes.values()]
    detail = f"{1000 * statistics.median(seconds):.1f} ms an ordinary response"
    return Check(name="time", result=Result.NOTE if statistics.median(seconds) > 1 else Result.OK, detail=detail)


def _notes(before: Mapping[str, Outcome], empty: Mapping[str, Outcome]) -> Iterator[Check]:
    right, wrong, nothing = (o.value for o in (before["right"], before["wrong"], empty["empty"]))
    if right < wrong:
        detail = f"right {right:g}, wrong {wrong:g}: meant as a penalty? Give it a negative weight, or turn it round"
        yield Check(name="right against wrong", result=Result.NOTE, detail=detail)
    if nothing > right:
        detail = f"empty {nothing:g}, right {right:g}: beside a verifier keep its weight small, or silence pays"
        yield Check(name="silence", result=Result.NOTE, detail=detail)


def _value(outcome: Outcome) -> str:
    kind = outcome.verdict.kind
    return f"{outcome.value:g}" if outcome.verdict.is_reward else kind.value
