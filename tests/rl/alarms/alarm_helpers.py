"""Rollouts that were made up, and runs of them through the alarms."""

import numpy as np

from rewards.types import Score, Task, Verdict, VerdictKind
from rl.alarms.watch import AlarmWatch
from rollouts.patches import Patches
from rollouts.types import Completion, Prompt, Rollout, ScoredRollout, Segment

GROUPS, SAMPLES = 16, 8


def make_prompt(group, *, source="sums", answer=None):
    return Prompt(
        id=f"{source}/{group}",
        task=Task(id=f"{source}/{group}", source=source, question="?", answer=answer or str(group)),
        input_ids=np.array([1]),
        patches=Patches(np.zeros((0, 3, 14, 14), np.float32)),
        image_grid_hws=np.zeros((0, 2), np.int64),
    )


def make_rollout(
    prompt, sample, *, right=True, reward=None, answer=None, tokens=10, finish="stop", version=0, failed=False
):
    """A scored rollout. Its reward is 1 if it is right, unless another is given."""
    kind = VerdictKind.TIMEOUT if failed else VerdictKind.CORRECT if right else VerdictKind.WRONG
    extracted = answer or (prompt.task.answer if right else f"no {prompt.id} {sample}")
    completion = Completion(
        token_ids=np.arange(tokens),
        policy_logprobs=np.full(tokens, -1.0, np.float32),
        sampler_logprobs=np.full(tokens, -1.0, np.float32),
        finish_reason=finish,
        segments=(Segment(start=0, stop=tokens, version=version),),
    )
    earned = None if failed else float(right) if reward is None else reward
    return ScoredRollout(
        rollout=Rollout(prompt=prompt, index=sample, completion=completion, text="x"),
        score=Score(verdict=Verdict(kind=kind, score=float(right), extracted=extracted), reward=earned),
    )


def make_groups(step, *, right=0.5, sources=("sums",), **options):
    """A step of groups in which a share of the samples is right; which ones turns with the step."""
    count = round(right * SAMPLES)
    return [
        [
            make_rollout(
                make_prompt(group, source=sources[group % len(sources)]),
                sample,
                right=(sample + step + group) % SAMPLES < count,
                **options,
            )
            for sample in range(SAMPLES)
        ]
        for group in range(GROUPS)
    ]


def metrics_of(scored, **others):
    """The metrics that the rules read, as a step writes them."""
    rollouts = [r for group in scored for r in group]
    judged = [r for r in rollouts if r.score.reward is not None]
    right = [r.score.verdict.kind is VerdictKind.CORRECT for r in judged]
    signal = [len({r.score.reward for r in group if r.score.reward is not None}) > 1 for group in scored]
    found = {
        "rollouts": float(len(judged)),
        "reward": float(np.mean([r.score.reward for r in judged])),
        "accuracy": float(np.mean(right)),
        "verifier_failures": float(len(rollouts) - len(judged)),
        "tokens_mean": float(np.mean([len(r.rollout.completion.token_ids) for r in judged])),
        "truncated_share": float(np.mean([r.rollout.completion.cut_off for r in judged])),
        "signal_share": float(np.mean(signal)),
        "thinking_share": 0.9,
        "entropy": 0.3,
        "approx_kl": 1e-6,
        "loss": 0.01,
        "grad_norm": 1.0,
        "skipped_updates": 0.0,
    }
    for source in {r.rollout.prompt.task.source for r in judged}:
        own = [c for c, r in zip(right, judged, strict=True) if r.rollout.prompt.task.source == source]
        found[f"accuracy/{source}"] = float(np.mean(own))
    return found | others


def run(steps, make, *, watch=None, checks=None):
    """Every event of a run whose step `n` is `make(n)`: groups and metrics; `checks` are validations after steps."""
    watch, events = watch or AlarmWatch(), []
    for step in range(1, steps + 1):
        scored, others = make(step)
        watch.observe(step, scored, metrics_of(scored, **others))
        if checks and step in checks:
            watch.observe_validation(step, checks[step], 400)
        events += watch.judge()
    return events
