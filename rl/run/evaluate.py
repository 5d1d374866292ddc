"""Held-out evaluation with the scorer that training uses: greedy accuracy, sampled accuracy, thinking, length."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np

from configs.rl import SamplingConfig
from configs.schema import EvaluationConfig
from configs.text import counted
from rl.run.accuracy import Estimate, estimates
from rollouts.sources.rollout_pipeline import RolloutPipeline
from rollouts.sources.scoring import accuracy, thinks
from rollouts.types import Prompt, ScoredRollout

_TABLES = ("failure_reasons", "by_source", "intervals")
_MOST_REASONS = 8  # shown on the console
HELD_OUT_SEED, VALIDATION_SEED = 1, 2  # the same tasks for every run, so that seeds and recipes compare


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalResult:
    """Shares in [0, 1] over the tasks; tokens are means over greedy answers.

    Accuracies are over the answers whose verifier gave a verdict, NaN where none did; the others are counted apart.
    """

    tasks: int  # that were answered: a task in quarantine is not
    greedy_accuracy: float
    sampled_accuracy: float
    thinking_share: float  # greedy answers that hold a closed, non-empty think block
    mean_tokens: float
    truncated_share: float  # greedy answers cut off by the token limit
    verifier_failures: int  # answers, greedy and sampled, whose verifier failed: bad reference, timeout or crash
    failure_reasons: dict[str, int]  # how many of them there are for each reason; they leave their task's estimates
    by_source: dict[str, float]  # greedy accuracy of each data source
    # greedy accuracy, pass@k and maj@k over the tasks, each with its 95 % confidence interval
    intervals: dict[str, Estimate] = field(default_factory=dict)

    def metrics(self) -> dict[str, float]:
        """The figures under flat names, for the trackers."""
        flat = {k: float(v) for k, v in asdict(self).items() if k not in _TABLES}
        return flat | {f"greedy_accuracy/{source}": value for source, value in self.by_source.items()}

    def gaps(self) -> list[str]:
        """Lines that say which completions have no verdict and why, and which estimates are over fewer tasks."""
        reasons = list(self.failure_reasons.items())
        lines = [f"{counted(count, 'answer')} without a verdict: {reason}" for reason, count in reasons[:_MOST_REASONS]]
        if more := sum(count for _, count in reasons[_MOST_REASONS:]):
            lines.append(f"{counted(more, 'answer')} without a verdict for other reasons")
        short = {name: e.tasks for name, e in self.intervals.items() if e.tasks < self.tasks}
        return lines + [
            f"{name} is over {tasks} of {counted(self.tasks, 'task')}: the others have too few verdicts"
            for name, tasks in short.items()
        ]


NO_TASKS = EvalResult(  # of a stage without held-out tasks
    tasks=0,
    greedy_accuracy=math.nan,
    sampled_accuracy=math.nan,
    thinking_share=math.nan,
    mean_tokens=math.nan,
    truncated_share=math.nan,
    verifier_failures=0,
    failure_reasons={},
    by_source={},
)


def evaluation_sampling(training: SamplingConfig | None, evaluation: EvaluationConfig) -> SamplingConfig:
    """The sampling of an evaluation: every option of training, with the evaluation's own token limit.

    `training` is None for a run without RL, whose evaluation then uses the defaults of `SamplingConfig`.
    """
    return replace(training or SamplingConfig(), max_new_tokens=evaluation.max_new_tokens)


def evaluate(
    pipeline: RolloutPipeline,
    prompts: Sequence[Prompt],
    *,
    sampling: SamplingConfig,
    samples: int,
    seed: int,
    on_sampled: Callable[[list[list[ScoredRollout]]], object] | None = None,
) -> tuple[EvalResult, list[ScoredRollout]]:
    """Generate one greedy and `samples` sampled completions per prompt; return the figures and the greedy ones.

    `samples` = 0 leaves out the sampled pass (its accuracy is then NaN). `on_sampled` gets the answers of that pass.
    """
    greedy = pipeline.generate_and_score(prompts, replace(sampling, temperature=0.0), n=1, seed=seed)
    drawn = pipeline.generate_and_score(prompts, sampling, n=samples, seed=seed) if samples else []
    if on_sampled is not None:
        on_sampled(drawn)
    answers = [group[0] for group in greedy if group]  # a task in quarantine has no answer, and is not counted
    sampled = [answer for group in drawn for answer in group]
    by_source: dict[str, list[ScoredRollout]] = defaultdict(list)
    for answer in answers:
        by_source[answer.rollout.prompt.task.source].append(answer)
    result = EvalResult(
        tasks=len(answers),
        greedy_accuracy=accuracy(a.score.verdict for a in answers),
        sampled_accuracy=accuracy(a.score.verdict for a in sampled),
        thinking_share=float(np.mean([thinks(a.rollout.text) for a in answers])),
        mean_tokens=float(np.mean([len(a.rollout.completion.token_ids) for a in answers])),
        truncated_share=float(np.mean([a.rollout.completion.finish_reason == "length" for a in answers])),
        verifier_failures=sum(not a.score.verdict.is_reward for a in [*answers, *sampled]),
        failure_reasons=dict(_failure_reasons([*answers, *sampled]).most_common()),
        by_source={s: accuracy(a.score.verdict for a in own) for s, own in sorted(by_source.items())},
        intervals=estimates(
            [[a.score.verdict for a in group] for group in greedy],
            [[a.score.verdict for a in group] for group in drawn],
            seed=seed,
        ),
    )
    return result, answers


def _failure_reasons(answers: Sequence[ScoredRollout]) -> Counter[str]:
    """How many verdicts failed for each reason. Example: `bad_reference (not a number: a few)`."""
    failed = [answer.score.verdict for answer in answers if not answer.score.verdict.is_reward]
    return Counter(f"{verdict.kind}{f' ({verdict.detail[:120]})' if verdict.detail else ''}" for verdict in failed)
