"""Whether drafts from a group's own samples would make the embedded engine faster: counted, not built.

    python benchmarks/drafts.py [--quick] [ROLLOUTS ...]

A draft is what followed the last few tokens of a sample elsewhere in its group; one forward pass then checks several
tokens. A draft costs the rows that it adds to the pass, and saves a pass for each token that the sample would have
drawn anyway. Measured is a decoding step of the embedded engine on one thread, by its number of rows. With these
seconds, recorded rollouts (`ROLLOUTS`: folders with a run's step-*.parquet) are replayed, with and without drafts: the
samples stay the same, so every draft is known to be right or wrong. Made-up groups, in which a given share of the
tokens follows a common text, show what share would be needed. Prints a table and ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]  # runs from a checkout, installed or not

import engines  # noqa: E402
import numpy as np  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402

from configs.rl import SamplingConfig  # noqa: E402

ROWS = (1, 2, 4, 8, 16, 32, 64, 128)
SHARES = (0.2, 0.5, 0.8, 0.95)
TOKENS, SHORTEST, LONGEST = 4, 2, 6  # of a draft; of the text that it continues
Group = list[list[int]]  # the tokens of each sample


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """What a batch of groups takes."""

    passes: int
    seconds: float
    drafted: int = 0
    accepted: int = 0


def step_seconds(rounds: int) -> list[float]:
    """Seconds of a decoding step of as many rows as `ROWS` says, medians."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        engines.make_work(folder, groups=1, rows=max(ROWS), limit=rounds + 2)
        work = json.loads((folder / "work.json").read_text(encoding="utf-8"))
        engine = engines.embedded_engine(folder / "model", work | {"stop": []}).engine
        (request,) = engines._requests(folder, work, 0, 1)
        found = []
        for index, rows in enumerate(ROWS):
            engine.add(index, replace(request, n=rows), SamplingConfig(max_new_tokens=rounds + 2))
            spent = []
            for _ in range(rounds + 1):
                start = time.perf_counter()
                engine.step()
                spent.append(time.perf_counter() - start)
            engine.cancel([index])
            found.append(statistics.median(spent[1:]))  # the first has read the prompt
        return found


def draft_of(sample: list[int], texts: list[list[int]]) -> list[int]:
    """What follows the longest end of `sample` that stands in one of `texts`."""
    for length in range(LONGEST, SHORTEST - 1, -1):
        end = sample[-length:]
        for text in texts if len(end) == length else ():
            for at in range(len(text) - length - 1, -1, -1):
                if text[at : at + length] == end:
                    return text[at + length : at + length + TOKENS]
    return []


def replay(groups: list[Group], seconds: list[float], *, most: int) -> Replay:
    """Decode all samples side by side, with drafts as soon as at most `most` are left; 0 is without."""
    length = {(g, i): 0 for g, group in enumerate(groups) for i in range(len(group))}
    passes, spent, drafted, accepted = 0, 0.0, 0, 0
    while live := [key for key, known in length.items() if known < len(groups[key[0]][key[1]])]:
        rows, after = len(live), {}
        for g, i in live:
            sample, known = groups[g][i], length[g, i]
            draft: list[int] = []
            if len(live) <= most:
                others = [text[: length[g, j]] for j, text in enumerate(groups[g]) if j != i]
                draft = draft_of(sample[:known], [*others, sample[: known - 1]])
            right = 0
            while right < len(draft) and known + right + 1 < len(sample) and draft[right] == sample[known + right]:
                right += 1
            after[g, i] = known + right + 1
            rows, drafted, accepted = rows + len(draft), drafted + len(draft), accepted + right
        length |= after
        passes, spent = passes + 1, spent + float(np.interp(rows, ROWS, seconds))
    return Replay(passes=passes, seconds=spent, drafted=drafted, accepted=accepted)


def recorded(folder: Path) -> list[list[Group]]:
    """The groups of the first, the middle and the last step; each second group, as one of two workers has them."""
    files = sorted(folder.glob("step-*.parquet"))
    if not files:
        raise SystemExit(f"{folder} holds no step-*.parquet")
    steps = []
    for file in dict.fromkeys((files[0], files[len(files) // 2], files[-1])):
        table = pq.read_table(file, columns=["group", "token_ids"]).to_pydict()
        groups: dict[int, Group] = {}
        for group, tokens in zip(table["group"], table["token_ids"], strict=True):
            groups.setdefault(group, []).append(tokens)
        steps.append(list(groups.values())[::2])
    return steps


def made(share: float, *, groups: int, mean: int) -> list[Group]:
    """8 samples a group, with geometric lengths up to four times the mean; `share` of the tokens follow one text.

    Each sample begins somewhere in the text and goes round: samples that went side by side would know nothing new.
    """
    rng, found = np.random.default_rng(0), []
    for _ in range(groups):
        text = rng.integers(0, 2000, 4 * mean)
        group = []
        for length in np.minimum(rng.geometric(1 / mean, engines.SAMPLES), len(text)).tolist():
            own = np.roll(text, -int(rng.integers(len(text))))[:length]
            group.append(np.where(rng.random(length) < share, own, rng.integers(0, 2000, length)).tolist())
        found.append(group)
    return found


def main() -> None:
    """Measure, replay, print a table, and end with one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rollouts", nargs="*", type=Path, metavar="ROLLOUTS")
    parser.add_argument("--quick", action="store_true", help="fewer rounds and smaller groups")
    arguments = parser.parse_args()
    groups, mean, rounds = (4, 20, 5) if arguments.quick else (16, 60, 30)
    seconds = step_seconds(rounds)
    print("rows   " + "".join(f"{rows:8}" for rows in ROWS))
    print("ms     " + "".join(f"{1e3 * value:8.1f}" for value in seconds))
    batches = {f"made-up, {share:.0%} of one text": [made(share, groups=groups, mean=mean)] for share in SHARES}
    batches |= {str(folder): recorded(folder) for folder in arguments.rollouts}
    results = {}
    print(f"{'':40} drafts at   passes         accepted     seconds        times as fast")
    for name, steps in batches.items():
        plain = [replay(step, seconds, most=0) for step in steps]
        for most in (8, 64):
            drafts = [replay(step, seconds, most=most) for step in steps]
            before, after = (sum(r.seconds for r in part) for part in (plain, drafts))
            accepted, drafted = sum(r.accepted for r in drafts), sum(r.drafted for r in drafts)
            passes = f"{sum(r.passes for r in plain)} to {sum(r.passes for r in drafts)}"
            print(
                f"{name[-40:]:40} <= {most:2} rows  {passes:14} {f'{accepted} of {drafted}':12} "
                f"{f'{before:.2f} to {after:.2f}':14} {before / after:.2f}"
            )
            results[f"{name}, {most} rows"] = round(before / after, 3)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
