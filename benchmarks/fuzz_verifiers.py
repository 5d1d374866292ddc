"""Compose responses around known answers and score them: a right answer must be paid, any other value must not.

    python benchmarks/fuzz_verifiers.py --seconds 600 --seed 1
    python benchmarks/fuzz_verifiers.py --count 20000 --kind unit --show 40

Harmless rewritings (markup, boxes, explanations, retractions, invisible characters, full-width digits, converted units)
must leave a right answer right. A change of a digit, sign, unit, letter or scale word, a negation, a hedge or a bound
must make it wrong. Prints each failure once a pattern, then a table of kinds and one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent)]
from composed_sentences import BOUNDED, NUMBERS, REFUSED, RETRACTED, fitting, frames_of, say  # noqa: E402
from composed_shapes import SHAPES  # noqa: E402
from composed_values import NUMBERS as NUMBER_MAKERS  # noqa: E402
from composed_values import Answer  # noqa: E402

from rewards import Scorer, Task  # noqa: E402

BATCH = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One response, and whether it must be paid."""

    kind: str
    pattern: str  # what the failures of one cause have in common
    task: Task
    response: str
    due: bool


def cases_of(rng: random.Random, answer: Answer) -> Iterator[Case]:
    """A few responses with right texts, with wrong texts, and with the answer refused."""
    task = Task(
        id="t", source="fuzz", question="", answer=answer.reference, verifier=rng.choice(answer.verifiers),
        choices=answer.choices,
    )  # fmt: skip

    def case(frames: Sequence[str], text: str, due: bool) -> Case:
        other = answer.wrong[0]
        frame = fitting(rng, frames, text + other)
        kind = f"{task.verifier} {answer.kind} {'right' if due else 'wrong'}"
        response = say(rng, frame, text, other, answer)
        return Case(kind=kind, pattern=f"{kind} {frame!r}", task=task, response=response, due=due)

    for text in rng.sample(answer.right, min(4, len(answer.right))):
        yield case(rng.choice(frames_of(answer)), text, True)
    for text in rng.sample(answer.wrong, min(4, len(answer.wrong))):
        yield case(rng.choice([frames for frames in frames_of(answer) if frames is not RETRACTED]), text, False)
    refused = (*REFUSED, *BOUNDED) if answer.kind in NUMBERS else REFUSED
    yield case(refused, rng.choice(answer.right), False)


def compose(seed: object, kind: str = "") -> Iterator[Case]:
    """Cases without end; the same ones for the same seed."""
    rng = random.Random(f"{seed}")
    makers = [maker for maker in (*NUMBER_MAKERS, *SHAPES) if kind in ("", maker.__name__)]
    while True:
        yield from cases_of(rng, rng.choice(makers)(rng))


def failures(scorer: Scorer, cases: list[Case]) -> list[tuple[Case, str]]:
    """The cases that the scorer gets wrong, with what the verdict says."""
    scores = scorer.score([case.response for case in cases], [case.task for case in cases])
    return [
        (case, f"{score.verdict.kind.value} {score.verdict.rule} {score.verdict.extracted!r}")
        for case, score in zip(cases, scores, strict=True)
        if (score.reward == 1.0) is not case.due
    ]


def main() -> None:
    """Print failures while they are found, then the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to run")
    parser.add_argument("--count", type=int, default=10**9, help="most cases")
    parser.add_argument("--seed", default="0")
    parser.add_argument("--kind", default="", help="one maker's name, such as `measured`")
    parser.add_argument("--show", type=int, default=1, help="failures to print of each pattern")
    options = parser.parse_args()
    source, seen, failed, patterns = compose(options.seed, options.kind), Counter(), Counter(), Counter()
    end = time.monotonic() + options.seconds
    with Scorer(()) as scorer:
        while time.monotonic() < end and seen.total() < options.count:
            cases = [next(source) for _ in range(BATCH)]
            seen.update(case.kind for case in cases)
            for case, verdict in failures(scorer, cases):
                failed[case.kind] += 1
                patterns[case.pattern] += 1
                if patterns[case.pattern] <= options.show:
                    choices = f" {case.task.choices}" if case.task.choices else ""
                    print(f"{case.kind} {case.task.answer!r}{choices}: {case.response!r} -> {verdict}", flush=True)
    print(f"\n{'kind':32}{'cases':>9}{'failures':>10}")
    for kind, count in failed.most_common():
        print(f"{kind:32}{seen[kind]:9}{count:10}")
    print(json.dumps({"seed": options.seed, "cases": seen.total(), "failures": failed.total(), "kinds": len(failed)}))


if __name__ == "__main__":
    main()
