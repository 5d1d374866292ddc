"""Explained variance of PPO's critic on prompts that it has not been trained on, and the highest possible one.

    python benchmarks/critic.py [RUN] [--questions 800] [--quick]

RUN is a finished run of `compare_algorithms.py`. Its last policy samples four completions for held-out tasks and for
validation tasks, which are new sums in the handwriting of training. For both sets the script prints the critic's
explained variance `1 - Var(R - V) / Var(R)` over all tokens, and that of a perfect critic. The latter is estimated from
four continuations of every second prefix of some completions: no critic can know how those differ. The last line is
JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from configs.load import load_recipe
from configs.rl import RLConfig
from configs.schema import RunConfig
from kimi_vl import load_model, load_processor
from kimi_vl.family import stop_and_barred_ids
from rewards.scorer import Scorer
from rl.checkpoint import load_checkpoint
from rl.learner.learner import Learner
from rl.learner.learner_config import LearnerConfig
from rl.run.evaluate import HELD_OUT_SEED, VALIDATION_SEED
from rl.samples import make_samples, sample_metrics
from rollouts.engines.driver import EngineDriver
from rollouts.engines.transformers import TransformersEngine
from rollouts.sources.group_building import make_groups
from rollouts.sources.rollout_pipeline import RolloutPipeline
from rollouts.tasks.mixture import held_out
from rollouts.tasks.prompts import PromptRenderer
from rollouts.types import Completion, Group, Prompt, Request, Segment

SAMPLES = 4
EVERY = 2  # tokens between two prefixes that are continued
UNLIKELY = -1.2  # log-prob of an unlikely token: probability 0.3


class Judge:
    """The last policy and critic of a PPO run, with the scorer."""

    def __init__(self, folder: Path) -> None:
        self.config = load_recipe(folder / "recipe.yaml")
        self.rl = _rl(self.config)
        path = self.config.model.path
        self.processor = load_processor(path)
        stop, barred = stop_and_barred_ids(path, self.processor)
        config = LearnerConfig(
            loss=self.rl.loss,
            optimizer=self.rl.optimizer,
            temperature=self.rl.sampling.temperature,
            total_steps=self.rl.steps,
            max_new_tokens=self.rl.sampling.max_new_tokens,
        )
        self.learner = Learner(load_model(path), config, barred_ids=barred)
        state, _ = load_checkpoint(folder / "rl" / "checkpoints")
        if state is None:
            raise SystemExit(f"{folder}: no checkpoint of an RL stage; run benchmarks/compare_algorithms.py --only ppo")
        self.learner.load_state_dict(state["learner"])
        self.renderer = PromptRenderer.from_config(self.processor, self.config.data)
        self.engine = EngineDriver(TransformersEngine(load_model(path), stop_ids=stop, barred_ids=barred))
        self.engine.load_weights(self.learner.weights(), version=self.learner.version)

    def decode(self, ids: np.ndarray) -> str:
        """The text of some tokens."""
        return self.processor.tokenizer.decode(ids, skip_special_tokens=True)

    def prompts(self, source: str, count: int) -> list[Prompt]:
        """Held-out or validation questions."""
        sources = {"held_out": self.config.data.held_out, "validation": self.config.data.validation}[source]
        seed = {"held_out": HELD_OUT_SEED, "validation": VALIDATION_SEED}[source]
        tasks = held_out(sources, limit=count, seed=seed, base=Path.cwd())
        return self.renderer.render_all(tasks)[0]

    def answers(self, prompts: Sequence[Prompt], scorer: Scorer) -> list[Group]:
        """Four scored answers to each question."""
        pipeline = RolloutPipeline(
            renderer=self.renderer, generate=self.engine.generate, decode=self.decode, scorer=scorer
        )
        scored = pipeline.generate_and_score(prompts, self.rl.sampling, n=SAMPLES, seed=HELD_OUT_SEED)
        return [group for group in make_groups(prompts, scored) if group.rollouts]

    def explained(self, groups: Sequence[Group]) -> float:
        """The critic's explained variance over all tokens of these answers."""
        return sample_metrics(make_samples(groups, self.rl, self.learner.model_outputs(groups)))["explained_variance"]

    def slips(self, groups: Sequence[Group]) -> float:
        """Position of the first unlikely token in wrong completions, as a share of their tokens."""
        wrong = [m.rollout.completion.policy_logprobs for g in groups for m in g.rollouts if not m.score.reward]
        wrong = [values for values in wrong if len(values)]
        places = [np.argmax(np.append(values < UNLIKELY, True)) / len(values) for values in wrong]
        return float(np.mean(places)) if places else float("nan")

    def knowable(self, groups: Sequence[Group], scorer: Scorer, *, answers: int) -> float:
        """Explained variance of the true value: 1 - mean variance after a prefix / variance of returns."""
        requests = [_go_on(group, at) for group in groups[:answers] for at in _places(group)]
        spread = [np.var(rewards, ddof=1) for rewards in self._endings(requests, scorer)]
        returns = np.repeat(
            [r for g in groups for r in g.rewards],
            [len(m.rollout.completion.token_ids) for g in groups for m in g.rollouts],
        )
        return 1 - float(np.mean(spread)) / float(np.var(returns)) if np.var(returns) else float("nan")

    def _endings(self, requests: Sequence[Request], scorer: Scorer) -> list[np.ndarray]:
        found = self.engine.generate(requests, self.rl.sampling)
        texts = [self.decode(c.token_ids) for completions in found for c in completions]
        scores = scorer.score(texts, [r.prompt.task for r in requests for _ in range(SAMPLES)])
        return [*np.array([float(s.reward or 0.0) for s in scores]).reshape(-1, SAMPLES)]


def _rl(config: RunConfig) -> RLConfig:
    if config.last_rl is None or config.last_rl.loss.resolved().critic is None:
        raise SystemExit("the run has no critic: it needs rl.loss.algorithm = ppo")
    return config.last_rl


def _places(group: Group) -> range:
    return range(0, len(group.rollouts[0].rollout.completion.token_ids), EVERY)


def _go_on(group: Group, at: int) -> Request:
    """Four continuations of the group's first completion from token `at` on."""
    seed = int(np.random.SeedSequence([len(group.prompt.input_ids), at]).generate_state(1, np.uint64)[0])
    if at == 0:
        return Request(prompt=group.prompt, n=SAMPLES, seed=seed)
    c = group.rollouts[0].rollout.completion
    written = Completion(
        token_ids=c.token_ids[:at],
        policy_logprobs=c.policy_logprobs[:at],
        sampler_logprobs=c.sampler_logprobs[:at],
        finish_reason="abort",
        segments=(Segment(start=0, stop=at, version=c.segments[0].version),),
    )
    return Request(prompt=group.prompt, n=SAMPLES, seed=seed, prefixes=(written,) * SAMPLES)


def critic_figures(folder: Path, *, questions: int) -> dict[str, float]:
    """Explained and knowable shares for held-out and validation tasks. One completion in fifty is continued."""
    judge, found, answers = Judge(folder), {}, max(5, questions * SAMPLES // 50)
    with Scorer(judge.rl.rewards, base=Path.cwd()) as scorer:
        for source in ("held_out", "validation"):
            groups = judge.answers(judge.prompts(source, questions), scorer)
            found[f"{source}/accuracy"] = float(np.mean([r for g in groups for r in g.rewards]))
            found[f"{source}/explained"] = judge.explained(groups)
            found[f"{source}/slip"] = judge.slips(groups)
            found[f"{source}/knowable"] = judge.knowable(groups, scorer, answers=answers)
    return {name: round(value, 3) for name, value in found.items()}


def main() -> None:
    """Measure one run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?", default=Path("runs/compare/steps-24/ppo-seed-0"))
    parser.add_argument("--questions", type=int, default=800)
    parser.add_argument("--quick", action="store_true", help="seconds: twenty questions")
    args = parser.parse_args()
    torch.set_num_threads(1)
    questions = 20 if args.quick else args.questions
    print(json.dumps({"runs": 1, **critic_figures(args.run, questions=questions)}))


if __name__ == "__main__":
    main()
