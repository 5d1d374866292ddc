"""`thinkvl curate`: chooses prompts for RL as Kimi k1.5 does (arXiv:2501.12599, §2.1)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from configs.errors import UserError
from configs.prompt import PromptConfig
from configs.text import counted
from rl.curation.balance import LEVELS, Candidate, cap_levels, cap_tags
from rl.curation.generators import DIRECT, Drawing
from rl.curation.inputs import DataOptions
from rl.curation.kinds import PRONE
from rl.curation.model_options import SamplingOptions, direct_sampling
from rl.curation.prompt_set import PROMPTS, write_set
from rl.curation.report import OVER_LEVEL, UNJUDGED, print_counts, write_report
from rl.curation.sampling import Sampled
from rl.curation.session import CurationPlan, Session, open_session
from rl.run.console import PlainConsole

GUESSED = "answer guessed without thinking"
TRIVIAL = "pass rate above the limit"
UNSOLVED = "pass rate below the limit"
OVER_TAG = "over the cap of a tag"


@dataclass(frozen=True, slots=True, kw_only=True)
class CurateOptions:
    """The options of `thinkvl curate`: data, model, and which prompts are kept."""

    output: Path
    data: DataOptions
    model: SamplingOptions
    samples: int = 10  # whose pass rate is the difficulty label
    guesses: int = 8  # answers without thinking; 0: prompts are not tested
    guess_template: str = DIRECT
    keep_kinds: Collection[str] = ()
    pass_rates: tuple[float, float] = (0.0, 0.99)  # of the prompts that stay, both included
    caps: Mapping[str, int] = field(default_factory=dict)  # most prompts of a tag; "" is any other tag
    level_share: float = 1.0

    def plan(self) -> CurationPlan:
        """The plan of the command. Raises UserError for an invalid option."""
        if unknown := sorted(set(self.keep_kinds) - set(PRONE)):
            raise UserError(f"--keep-kind {', '.join(unknown)}: no such kind; there are {', '.join(PRONE)}")
        low, high = self.pass_rates
        if not 0 <= low <= high <= 1:
            raise UserError(f"--min-pass-rate {low} --max-pass-rate {high}: must be from 0 to 1, in this order")
        if not 0 < self.level_share <= 1:
            raise UserError(f"--level-share {self.level_share}: must be above 0, and at most 1")
        try:
            PromptConfig(template=self.guess_template)
        except ValueError as error:
            raise UserError(f"--guess-template: {error}") from error
        return CurationPlan(
            command="curate",
            output=self.output,
            data=self.data,
            model=self.model,
            keep_kinds=self.keep_kinds,
            prompt=PromptConfig(),
            drawn={"samples": self.samples, "guesses": self.guesses, "guess_template": self.guess_template},
            kept={
                "keep_kinds": sorted(self.keep_kinds),
                "pass_rates": list(self.pass_rates),
                "caps": dict(self.caps),
                "level_share": self.level_share,
            },
            keep_texts=False,
        )


def curate_command(options: CurateOptions, console: PlainConsole) -> Path:
    """Write the kept prompts to `options.output` and a report beside it; return the path of the output.

    Raises UserError, ConfigError, DataSetError, PluginError or OSError for a mistake of the user.
    """
    with open_session(options.plan(), console) as session:
        if session is not None:
            sampled = sample(session, options)
            _write(session, sampled, balance(session, sampled, options), options.output)
    return options.output


def sample(session: Session, options: CurateOptions) -> dict[str, Sampled]:
    """The samples of each kept prompt, by key. Guessable prompts are dropped before the long samples are drawn."""
    keys = list(session.left)
    if options.guesses:
        template = options.guess_template
        direct = Drawing(n=options.guesses, sampling=direct_sampling(session.sampling), direct=template)
        keys = list(_passing(session, "guesses", keys, direct, guess_fault))
    low, high = options.pass_rates
    drawing = Drawing(n=options.samples, sampling=session.sampling)
    return _passing(session, "samples", keys, drawing, lambda sampled: rate_fault(sampled, low, high))


def _passing(
    session: Session, stage: str, keys: Sequence[str], drawing: Drawing, fault: Callable[[Sampled], str | None]
) -> dict[str, Sampled]:
    """Draw samples, and return those of the prompts without a fault, by key."""
    found: dict[str, Sampled] = {}
    for sampled in session.draw(stage, keys, drawing):
        reason = fault(sampled)
        if reason is None:
            found[sampled.key] = sampled
        else:
            session.leave_out(reason, sampled.key)
    return found


def guess_fault(sampled: Sampled) -> str | None:
    """The fault of a prompt that is guessed: an answer without thinking is correct. Answers that think do not count."""
    return GUESSED if any(one.correct and not one.thinks for one in sampled.samples) else None


def rate_fault(sampled: Sampled, low: float, high: float) -> str | None:
    """The fault of a prompt whose pass rate is unknown or outside of [low, high]."""
    if not sampled.judged:
        return UNJUDGED
    return UNSOLVED if sampled.pass_rate < low else TRIVIAL if sampled.pass_rate > high else None


def balance(session: Session, sampled: Mapping[str, Sampled], options: CurateOptions) -> list[str]:
    """The keys that are kept under the caps of tags, and then under the share of a level, in their order."""
    pool = [Candidate(key=key, tags=session.left[key].tags, pass_rate=own.pass_rate) for key, own in sampled.items()]
    seed = options.model.seed
    within = cap_tags(pool, caps=options.caps, seed=seed)
    level = cap_levels([c for c in pool if c.key in within], share=options.level_share, seed=seed)
    for candidate in pool:
        if candidate.key not in level:
            reason = OVER_LEVEL if candidate.key in within else OVER_TAG
            session.leave_out(reason, candidate.key)
    return [candidate.key for candidate in pool if candidate.key in level]


def _write(session: Session, sampled: Mapping[str, Sampled], kept: Sequence[str], output: Path) -> None:
    """Write the set and the report, and print the counts. Raises UserError if no prompt is kept."""
    report, console = session.report, session.console
    levels = Counter(sampled[key].level for key in kept)
    by_level = {name: levels[number] for number, name in enumerate(LEVELS)}
    tags = dict(Counter(tag for key in kept for tag in session.left[key].tags).most_common())
    values = {**session.settings, **report.as_json(), "kept": len(kept), "levels": by_level, "tags": tags}
    where = write_report(output, values)
    print_counts(console, "left out", report.counts)
    if not kept:
        raise UserError(f"none of {counted(report.read, 'prompt')} stays: {report.reasons()}; the report is {where}")
    rows = (
        session.origin.row(task, row_id=task.id, samples=own.judged, correct=own.correct)
        for own, task in ((sampled[key], session.task(key)) for key in kept)
    )
    write_set(output, rows, PROMPTS, settings=session.settings)
    print_counts(console, "pass rate of those kept", by_level)
    print_counts(console, "tag of those kept", tags)
    console.print(f"{len(kept):,} of {counted(report.read, 'prompt')} in {output}; the report is {where}")
