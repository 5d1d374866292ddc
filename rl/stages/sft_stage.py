"""A supervised stage of a run."""

from __future__ import annotations

from pathlib import Path

from configs.sft import SFTConfig
from rl.learner.lora import prepare_training, save_adapters
from rl.learner.optimizer import rounding_note
from rl.run.context import RunContext, load_policy
from rl.run.progress import StageProgress
from rl.stages.sft_checkpoint import newest_checkpoint
from rl.stages.sft_trainer import run_sft
from rollouts.model_family import VisionLanguageModel


class SFTStage:
    """Supervised fine-tuning with TRL's trainer, which also writes and reads the checkpoints."""

    def __init__(self, context: RunContext, config: SFTConfig, model_path: str) -> None:
        self._context, self._config = context, config
        self._folder = context.folder.stage(config.name)
        self._checkpoint: Path | None = None
        self._done = 0
        if (note := rounding_note(context.config.model, config.optimizer, stage=config.name)) is not None:
            context.console.print(note, highlight=False)
        self._model = load_policy(context, model_path, train=True)
        prepare_training(self._model, context.config.model, base=model_path)

    def resume(self) -> int:
        """Find the newest checkpoint that is whole; the trainer reads it when it begins."""
        self._checkpoint = newest_checkpoint(self._folder / "checkpoints")
        self._done = 0 if self._checkpoint is None else int(self._checkpoint.name.rpartition("-")[2])
        return self._done

    def run(self) -> VisionLanguageModel:
        """Train in place."""
        context, config = self._context, self._config
        with StageProgress(context.console, config.name, total=config.steps, done=self._done) as bar:

            def on_step(step: int, values: dict[str, float]) -> None:
                context.metrics.write(config.name, step, values)
                bar.advance({"loss": values["loss"]})

            run_sft(
                self._model,
                context.processor,
                context.inputs[config.name].renderer,
                context.mixture(config),
                config,
                folder=self._folder / "checkpoints",
                checkpoint=self._checkpoint,
                seed=context.config.seed,
                on_step=on_step,
            )
        save_adapters(self._model, self._folder / "adapter")
        return self._model

    def close(self) -> None:
        """Nothing runs beside this process."""
