"""`thinkvl build-cot`: builds a long-CoT set by rejection sampling (Kimi k1.5, arXiv:2501.12599, §2.2 and §2.4.2)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from configs.errors import UserError
from configs.prompt import PromptConfig
from configs.text import counted
from rl.curation.balance import LEVELS, Candidate, cap_levels
from rl.curation.chains import Chain, chain_of, shortest
from rl.curation.generators import Drawing
from rl.curation.inputs import DataOptions
from rl.curation.kinds import PRONE
from rl.curation.model_options import SamplingOptions
from rl.curation.prompt_set import WORKED, write_set
from rl.curation.report import OVER_LEVEL, UNJUDGED, print_counts, write_report
from rl.curation.sampling import Sampled
from rl.curation.session import CurationPlan, Session, open_session
from rl.run.console import PlainConsole
from rollouts.thinking_patterns import PATTERNS, count_patterns

NONE_KEPT = "no sample is right and well-formed"


@dataclass(frozen=True, slots=True, kw_only=True)
class CotOptions:
    """The options of `thinkvl build-cot`: data, model, and which samples are kept."""

    output: Path
    data: DataOptions
    model: SamplingOptions
    samples: int = 8  # candidates for each prompt
    most: int = 1  # solutions of each prompt, the shortest
    most_repetition: float = 0.4  # share of the 4-grams of a chain that may repeat an earlier one
    level_share: float = 0.4  # most prompts of one level of difficulty
    prompt: PromptConfig = field(default_factory=PromptConfig)  # in place of the recipe's, to request long thinking

    def plan(self) -> CurationPlan:
        """The plan of the command. Raises UserError for an invalid option."""
        if not 0 <= self.most_repetition <= 1:
            raise UserError(f"--max-repetition {self.most_repetition}: must be from 0 to 1")
        if not 0 < self.level_share <= 1:
            raise UserError(f"--level-share {self.level_share}: must be above 0, and at most 1")
        return CurationPlan(
            command="build-cot",
            output=self.output,
            data=self.data,
            model=self.model,
            keep_kinds=PRONE,
            prompt=self.prompt,
            drawn={"samples": self.samples},
            kept={"most": self.most, "most_repetition": self.most_repetition, "level_share": self.level_share},
            keep_texts=True,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Solved:
    """The kept solutions of a prompt, and its judged samples."""

    chains: Sequence[Chain]
    sampled: Sampled  # without texts


def build_cot_command(options: CotOptions, console: PlainConsole) -> Path:
    """Write the worked solutions to `options.output` and a report beside it; return the path of the output.

    Raises UserError, ConfigError, DataSetError, PluginError or OSError for a mistake of the user.
    """
    with open_session(options.plan(), console) as session:
        if session is not None:
            samples: Counter[str] = Counter()
            solved = solve(session, options, samples)
            _write(session, _balance(session, solved, options), samples, options.output)
    return options.output


def solve(session: Session, options: CotOptions, samples: Counter[str]) -> dict[str, Solved]:
    """The solutions of each prompt that has any, by key; `samples` counts all samples by their outcome."""
    found: dict[str, Solved] = {}
    drawing = Drawing(n=options.samples, sampling=session.sampling)
    for sampled in session.draw("candidates", list(session.left), drawing):
        chains, left_out = chains_of(sampled, options)
        samples.update(left_out)
        samples["kept"] += len(chains)
        if chains:
            bare = tuple(replace(one, text="") for one in sampled.samples)
            found[sampled.key] = Solved(chains=chains, sampled=replace(sampled, samples=bare))
        else:
            reason = NONE_KEPT if sampled.judged else UNJUDGED
            session.leave_out(reason, sampled.key)
    return found


def chains_of(sampled: Sampled, options: CotOptions) -> tuple[list[Chain], Counter[str]]:
    """The kept chains of a prompt, and the number of rejected samples by reason."""
    read = [chain_of(one, most_repetition=options.most_repetition) for one in sampled.samples]
    left_out = Counter(reason for reason in read if isinstance(reason, str))
    chains, others = shortest([chain for chain in read if isinstance(chain, Chain)], options.most)
    return chains, left_out + Counter(others)


def _balance(session: Session, solved: Mapping[str, Solved], options: CotOptions) -> dict[str, Solved]:
    """The prompts that are kept so that no level exceeds its share."""
    pool = [Candidate(key=key, tags=(), pass_rate=own.sampled.pass_rate) for key, own in solved.items()]
    stay = cap_levels(pool, share=options.level_share, seed=options.model.seed)
    for candidate in pool:
        if candidate.key not in stay:
            session.leave_out(OVER_LEVEL, candidate.key)
    return {key: own for key, own in solved.items() if key in stay}


def _write(session: Session, kept: Mapping[str, Solved], samples: Mapping[str, int], output: Path) -> None:
    """Write the set and the report, and print the counts. Raises UserError if no solution is kept."""
    report, console = session.report, session.console
    levels = Counter(own.sampled.level for own in kept.values())
    by_level = {name: levels[number] for number, name in enumerate(LEVELS)}
    chains = [chain for own in kept.values() for chain in own.chains]
    patterns = [count_patterns(chain.thinking) for chain in chains]
    showing = {name: sum(counts[name] > 0 for counts in patterns) for name in PATTERNS}
    tags = dict(Counter(tag for key in kept for tag in session.left[key].tags).most_common())
    sizes = {"prompts": len(kept), "solutions": len(chains), "tokens": sum(chain.tokens for chain in chains)}
    values = {**session.settings, **report.as_json(), **sizes, "samples_by_outcome": dict(samples)}
    where = write_report(output, {**values, "levels": by_level, "tags": tags, "patterns": showing})
    print_counts(console, "prompts left out", report.counts)
    print_counts(console, "samples", samples)
    if not kept:
        raise UserError(
            f"no solution of {counted(report.read, 'prompt')} stays: {report.reasons()}; the report is {where}"
        )
    write_set(output, _rows(session, kept), WORKED, settings=session.settings)
    print_counts(console, "pass rate of those kept", by_level)
    print_counts(console, "solutions that show", showing)
    console.print(
        f"{counted(len(chains), 'solution')} of {counted(len(kept), 'prompt')} in {output}; the report is {where}"
    )


def _rows(session: Session, kept: Mapping[str, Solved]) -> Iterator[dict[str, Any]]:
    """A row for each solution."""
    for key, own in kept.items():
        task = session.task(key)
        for number, chain in enumerate(own.chains):
            solved = replace(task, solution=chain.thinking)
            row_id = f"{task.id}#{number}"
            yield {
                **session.origin.row(solved, row_id=row_id, samples=own.sampled.judged, correct=own.sampled.correct),
                "response": chain.response,
                "tokens": chain.tokens,
                "patterns": count_patterns(chain.thinking),
            }
