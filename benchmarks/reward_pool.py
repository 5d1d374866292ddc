"""The worker pool: does it scale with workers, and do hostile answers delay ordinary ones?

    python benchmarks/reward_pool.py [--quick] [--rounds 3] [--answers 1000]

Algebra: answers that no string comparison settles, with 1 worker and with as many as there are cores, and by
math-verify in this process. Burst: `--answers` ordinary answers alone, then the same batch behind as many hostile ones
that pass every cheap limit; the verdicts must be the same. The cost of one hostile answer is measured too, here and
in math-verify with its own timeout. Rounds are interleaved; figures are medians. Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from concurrent.futures import wait
from importlib.metadata import version

from math_verify import parse, verify

from rewards import Scorer, Task
from rewards.sandbox.pool import Flow, cores
from rewards.types import VerdictKind


def algebra(count: int) -> list[tuple[str, Task]]:
    """Answers that are right (two in three) or wrong, and that only a worker's algebra can compare."""
    matrix = "\\begin{{pmatrix}}{a}&1\\\\0&{b}\\end{{pmatrix}}"
    forms = (
        ("\\Re(x)+{a}", "{a}+\\Re(x)"),
        ("\\begin{{pmatrix}}1&0\\\\0&1\\end{{pmatrix}}" + matrix, matrix),
        ("\\Im(z)-{a}", "-{a}+\\Im(z)"),
        ("\\Re(z)\\Im(z)+{a}", "{a}+\\Im(z)\\Re(z)"),
    )
    made = []
    for i in range(count):
        answer, reference = forms[i % len(forms)]
        a = 2 + i // len(forms)
        gold = reference.format(a=a if i % 3 else a + 1, b=a * a)
        task = Task(id=f"algebra/{i}", source="benchmark", question="", answer=gold)
        made.append((f"\\boxed{{{answer.format(a=a, b=a * a)}}}", task))
    return made


def ordinary(count: int) -> list[tuple[str, Task]]:
    """A batch like a model's: of ten answers, seven are numbers or words and three need algebra."""
    hard = iter(algebra(count))
    easy = ("{0}", "{0}.0", "\\frac{{{0}}}{{1}}", "x = {0}", "{0} cm", "\\text{{none}}", "{0}\\%")
    made = []
    for i in range(count):
        if i % 10 < len(easy):
            task = Task(id=f"easy/{i}", source="benchmark", question="", answer=str(1000 + i))
            made.append((f"◁think▷...◁/think▷ \\boxed{{{easy[i % 10].format(1000 + i)}}}", task))
        else:
            made.append(next(hard))
    return made


def hostile(count: int) -> list[tuple[str, Task]]:
    """Inverses of matrices of powers: they pass the cheap limits and never end. No two are alike, so no cache helps."""
    task = Task(id="hostile", source="benchmark", question="", answer="5")
    matrices = (
        "\\\\".join("&".join(f"x^{{{i * j}}}+{i + n}" for j in range(8)) for i in range(8)) for n in range(count)
    )
    return [(f"\\boxed{{\\begin{{pmatrix}}{rows}\\end{{pmatrix}}^{{-1}}}}", task) for rows in matrices]


def timed(scorer: Scorer, batch: list[tuple[str, Task]]) -> tuple[float, list[VerdictKind]]:
    """Seconds and verdicts of a batch."""
    began = time.perf_counter()
    scores = scorer.score([text for text, _ in batch], [task for _, task in batch])
    return time.perf_counter() - began, [score.verdict.kind for score in scores]


def warm(workers: int) -> Scorer:
    """A scorer whose workers are started."""
    scorer = Scorer((), workers=workers)
    wait([scorer.pool.submit({"gold": "x", "answer": f"y+{i}"}) for i in range(8 * workers)])
    return scorer


def burst(batch: list[tuple[str, Task]], count: int) -> dict[str, float]:
    """Time the batch alone, then while `count` hostile answers are being verified."""
    with warm(cores()) as scorer:
        alone, expected = timed(scorer, batch)
    with warm(cores()) as scorer:
        flow = Flow()
        futures = [future for text, task in hostile(count) for future in scorer.submit([text], task, flow=flow)]
        behind, found = timed(scorer, batch)
        ended = sum(future.done() for future in futures)
        killed = scorer.pool.kills
    changed = sum(a is not b for a, b in zip(expected, found, strict=True))
    return {"alone": alone, "behind": behind, "changed": changed, "hostile_ended": ended, "kills": killed}


def one_hostile(count: int) -> dict[str, float]:
    """Seconds that one hostile answer takes, in a worker and in math-verify with its own timeout."""
    batch = hostile(count)
    with warm(1) as scorer:
        ours, kinds = timed(scorer, batch)
    assert set(kinds) == {VerdictKind.TIMEOUT}, kinds
    began = time.perf_counter()
    for text, task in batch:
        verify(parse(f"${task.answer}$"), parse(text))
    return {"ours": ours / count, "math_verify": (time.perf_counter() - began) / count}


def math_verify_rate(batch: list[tuple[str, Task]]) -> float:
    """Verifications a second of math-verify in this process."""
    began = time.perf_counter()
    for text, task in batch:
        verify(parse(f"${task.answer}$"), parse(text))
    return len(batch) / (time.perf_counter() - began)


def main() -> None:
    """Run, print, and end with JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round of a tenth: under a minute")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--answers", type=int, default=1000)
    options = parser.parse_args()
    rounds, count = (1, 100) if options.quick else (options.rounds, options.answers)
    hard, batch = algebra(count), ordinary(count)
    one, many, other, bursts, costs = [], [], [], [], []
    for number in range(rounds):
        for workers, rates in ((1, one), (cores(), many)):
            with warm(workers) as scorer:
                seconds, _ = timed(scorer, hard)
                rates.append(count / seconds)
        other.append(math_verify_rate(hard[: max(50, count // 5)]))
        bursts.append(burst(batch, count))
        costs.append(one_hostile(2))
        rates = f"{one[-1]:.0f}/s with 1, {many[-1]:.0f}/s with {cores()} workers, math-verify {other[-1]:.0f}/s"
        print(f"round {number + 1}: algebra {rates}; burst {bursts[-1]}; a hostile answer {costs[-1]}", flush=True)
    middle = statistics.median
    result = {
        "rounds": rounds,
        "answers": count,
        "workers": cores(),
        "algebra_per_second_1_worker": round(middle(one), 1),
        f"algebra_per_second_{cores()}_workers": round(middle(many), 1),
        "scaling": round(middle([b / a for a, b in zip(one, many, strict=True)]), 2),
        "algebra_per_second_math_verify_in_process": round(middle(other), 1),
        "ordinary_seconds_alone": round(middle([b["alone"] for b in bursts]), 2),
        "ordinary_seconds_behind_hostile": round(middle([b["behind"] for b in bursts]), 2),
        "behind_to_alone": round(middle([b["behind"] / b["alone"] for b in bursts]), 2),
        "verdicts_changed": sum(b["changed"] for b in bursts),
        "hostile_seconds_ours": round(middle([c["ours"] for c in costs]), 2),
        "hostile_seconds_math_verify": round(middle([c["math_verify"] for c in costs]), 2),
        "python": platform.python_version(),
        "math_verify": version("math-verify"),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
