"""Several samples of each training question, kept as Parquet; a killed stage samples only what is missing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from configs.errors import UserError
from configs.rl import SamplingConfig
from configs.text import counted
from rewards.types import REWARD_KINDS, Task, VerdictKind
from rl.rollout_log import RolloutLog, read_rollouts
from rl.run.console import PlainConsole
from rl.run.progress import StageProgress
from rl.stages.short_answers import SampledAnswer
from rollouts.sources.rollout_pipeline import RolloutPipeline, request_seed

BATCH = 32  # questions that are sampled together, and logged in one file


class AnswerSampling:
    """`samples` of each of `tasks`, as `step-NNNNNN.parquet` of `BATCH` questions each in `folder`."""

    def __init__(
        self,
        tasks: Sequence[Task],
        pipeline: RolloutPipeline,
        sampling: SamplingConfig,
        *,
        samples: int,
        seed: int,
        folder: Path,
    ) -> None:
        self._batches = [tasks[start : start + BATCH] for start in range(0, len(tasks), BATCH)]
        self._pipeline, self._sampling, self._samples, self._seed = pipeline, sampling, samples, seed
        self._log = RolloutLog(folder)

    @property
    def done(self) -> int:
        """How many batches an earlier process has sampled."""
        return sum(self._log.path(number).exists() for number in range(1, len(self._batches) + 1))

    @property
    def complete(self) -> bool:
        """Whether nothing is left to sample."""
        return self.done == len(self._batches)

    def run(self, console: PlainConsole, title: str) -> None:
        """Sample the batches that are missing with the workers, which must serve the entering model."""
        with StageProgress(console, title, total=len(self._batches), done=self.done) as bar:
            for number, tasks in enumerate(self._batches, 1):
                if self._log.path(number).exists():  # a file is there as a whole or not at all
                    continue
                prompts, _ = self._pipeline.render(tasks, self._pipeline.render_large(tasks))
                seed = request_seed(self._seed, number)
                scored = self._pipeline.generate_and_score(prompts, self._sampling, n=self._samples, seed=seed)
                self._log.write(number, scored, [], [])
                found = [answer.score.verdict.kind is VerdictKind.CORRECT for group in scored for answer in group]
                bar.advance({"accuracy": float(np.mean(found)) if found else 0.0})

    def answers(self, *, max_tokens: int) -> Mapping[str, list[SampledAnswer]]:
        """The samples with a verdict by question, in the order in which they were sampled.

        Those longer than `max_tokens`, prompt included, are left out. Raises UserError where none has a verdict, or a
        file is damaged.
        """
        groups: dict[str, list[SampledAnswer]] = defaultdict(list)
        rows = 0
        for row in read_rollouts(self._log.folder):
            rows += 1
            answer = SampledAnswer(
                task=row["task"],
                prompt_tokens=row["prompt_tokens"],
                token_ids=np.array(row["token_ids"], dtype=np.int64),
                correct=row["verdict"] == VerdictKind.CORRECT,
                finished=row["finish_reason"] == "stop",
            )
            if row["verdict"] in REWARD_KINDS and answer.prompt_tokens + len(answer) <= max_tokens:
                groups[answer.task].append(answer)
        if not groups:
            raise UserError(
                f"{self._log.folder}: of {counted(rows, 'sample')} none has a verdict and fits into "
                f"max_tokens = {max_tokens}; "
                "raise it, or look at the column `detail` of the Parquet files for what the verifier says"
            )
        return groups
