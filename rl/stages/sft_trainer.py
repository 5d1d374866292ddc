"""Supervised stages with TRL's SFTTrainer: loss on answers only; rendered, packed and scored as in RL."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence, Sized
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from datasets import Dataset
from torch.utils.data import Sampler, SequentialSampler
from transformers import PrinterCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl.trainer.sft_config import SFTConfig as TrlConfig
from trl.trainer.sft_trainer import SFTTrainer

from configs.errors import UserError
from configs.sft import SFTConfig
from rewards.types import Task
from rl.learner.batch import collect_images, pack
from rl.learner.forward import encode, response_hidden
from rl.learner.logprobs import token_logprobs
from rl.learner.optimizer import build_optimizer, build_schedule
from rl.learner.packed_attention import use_packed_attention
from rl.safe_load import load_state
from rl.stages.sft_checkpoint import seal_checkpoint
from rl.types import PackedRow, PromptCompletion
from rollouts.model_family import VisionLanguageConfig, VisionLanguageModel, VisionLanguageProcessor
from rollouts.tasks.mixture import TaskMixture
from rollouts.tasks.prompts import PromptRenderer, target_text

_WEIGHTS = "weights.pt"
_HOPELESS = 256  # examples of which none can be rendered: then it is not single bad rows

OnStep = Callable[[int, dict[str, float]], None]


class AnswerCollator:
    """Renders prompts when they are needed (patches are large) and packs them with their answers."""

    def __init__(self, tasks: Sequence[Task], renderer: PromptRenderer, config: VisionLanguageConfig) -> None:
        self._tasks, self._renderer, self._config = tasks, renderer, config
        self._rendered = 0
        self.skipped: Counter[str] = Counter()

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Rows `{example, input_ids}` to a packed row and its images; `labels` are the answers' tokens, for counting.

        A task that cannot be rendered is left out, and `skipped` counts it by reason; `row` is None where none can.
        Raises UserError once it is clear that no task at all can be rendered.
        """
        answers = []
        for row in rows:
            example = str(row["example"])
            rendered, skipped = self._renderer.render_all([self._tasks[row["example"]]])
            self.skipped.update(skipped)
            tokens = np.array(row["input_ids"])
            answers += [
                PromptCompletion(id=example, prompt=replace(prompt, id=example), token_ids=tokens)
                for prompt in rendered
            ]
        self._rendered += len(answers)
        if not answers:
            self._stop_if_hopeless()
            nothing = torch.zeros(0, dtype=torch.long)
            return {"row": None, "images": None, "labels": nothing, "shift_labels": nothing, "input_ids": nothing}
        images = collect_images(answers, self._config)
        packed = pack(answers, images)
        labels = packed.targets
        # `shift_labels` tells Trainer that every label counts, not all but a row's first.
        return {
            "row": packed,
            "images": images,
            "labels": labels,
            "shift_labels": labels,
            "input_ids": packed.input_ids,
        }

    def _stop_if_hopeless(self) -> None:
        tried = sum(self.skipped.values())
        if not self._rendered and tried >= min(_HOPELESS, len(self._tasks)):
            raise UserError(f"none of the first {tried} examples can be rendered: {dict(self.skipped)}")


class _PackedTrainer(SFTTrainer):
    """Takes the examples in the order given and computes the loss on packed rows, as the RL learner does."""

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """Negative log-likelihood of the answers' tokens, over all answer tokens of the optimizer step."""
        row: PackedRow | None = inputs["row"]
        if row is None:
            return 0.0 * next(p for p in model.parameters() if p.requires_grad).sum()
        hidden = response_hidden(model, row, encode(model, inputs["images"]))
        head = model.lm_head.weight
        nothing_barred = torch.zeros(len(head), dtype=torch.bool, device=head.device)
        logprobs, _ = token_logprobs(hidden, head, row.targets.to(head.device), temperature=1.0, barred=nothing_barred)
        count = num_items_in_batch if num_items_in_batch is not None else len(logprobs)
        return -logprobs.sum() / count

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:  # the only seam that Trainer offers
        return SequentialSampler(cast(Sized, self.train_dataset))

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        # Under our names, adapters and all. Trainer would write the hub's names, and read them back with
        # strict=False: match nothing and say little.
        folder = Path(output_dir or str(self.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(cast(torch.nn.Module, self.model).state_dict(), folder / _WEIGHTS)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        seal_checkpoint(Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}")

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        target = cast(torch.nn.Module, model if model is not None else self.model)
        target.load_state_dict(load_state(Path(resume_from_checkpoint) / _WEIGHTS))


class _ReportSteps(TrainerCallback):
    """Hands each step's logged numbers to the run."""

    def __init__(self, on_step: OnStep) -> None:
        self._on_step = on_step

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Called by the trainer after every step."""
        if logs and "loss" in logs:
            names = ("loss", "grad_norm", "learning_rate")
            self._on_step(state.global_step, {name: float(logs[name]) for name in names if name in logs})


def build_examples(
    mixture: TaskMixture, processor: VisionLanguageProcessor, config: SFTConfig, *, seed: int
) -> tuple[list[Task], Dataset]:
    """Draw `steps * batch_size` tasks and tokenise their answers. A task without a solution gets a direct answer."""
    rng = np.random.default_rng([seed, 1])
    tasks = mixture.draw(0, config.steps * config.batch_size)
    thinking = [t.solution is not None and rng.random() < config.thinking_share for t in tasks]
    texts = [target_text(t, thinking=th) + processor.turn_end for t, th in zip(tasks, thinking, strict=True)]
    tokens = processor.tokenizer(texts, add_special_tokens=False)["input_ids"]
    return tasks, Dataset.from_dict({"example": range(len(tasks)), "input_ids": tokens})


def run_sft(
    model: VisionLanguageModel,
    processor: VisionLanguageProcessor,
    renderer: PromptRenderer,
    mixture: TaskMixture,
    config: SFTConfig,
    *,
    folder: Path,
    checkpoint: Path | None,
    seed: int,
    on_step: OnStep,
) -> VisionLanguageModel:
    """Train `model` in place for `config.steps` steps and return it in evaluation mode.

    Checkpoints go to `folder` every `config.save_every` steps; training continues from `checkpoint`, if there is one.
    """
    tasks, dataset = build_examples(mixture, processor, config, seed=seed)
    arguments = _arguments(config, folder, seed=seed, dtype=model.dtype)
    collator = AnswerCollator(tasks, renderer, model.config)
    optimizer = build_optimizer(model, config.optimizer)
    use_packed_attention(model.text_model)
    trainer = _PackedTrainer(
        model=model.train(),
        args=arguments,
        train_dataset=dataset,
        data_collator=collator,
        processing_class=processor,
        optimizers=(optimizer, build_schedule(optimizer, config.optimizer, total=config.steps)),
        callbacks=[_ReportSteps(on_step)],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    for reason, count in collator.skipped.items():
        logging.getLogger(__name__).warning("%d examples left out: %s", count, reason)
    return model.eval()


def _arguments(config: SFTConfig, folder: Path, *, seed: int, dtype: torch.dtype) -> TrlConfig:
    """Trainer's arguments: its own checkpoints and optimizer steps; reports, data and loss are ours."""
    cuda = torch.cuda.is_available()
    arguments = TrlConfig(
        output_dir=str(folder),
        max_steps=config.steps,
        per_device_train_batch_size=config.batch_size // config.micro_batches,
        gradient_accumulation_steps=config.micro_batches,  # TRL divides by the step's tokens, not the micro-batch's
        max_grad_norm=config.optimizer.grad_clip,
        logging_steps=1,
        save_strategy="steps",
        save_steps=config.save_every,
        report_to="none",
        disable_tqdm=True,
        use_cpu=not cuda,
        bf16=cuda and dtype == torch.bfloat16,
        activation_checkpointing=cuda,  # memory is what lacks on a GPU, time on a CPU
        remove_unused_columns=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
        router_aux_loss_coef=0.0,  # the router's bias is fixed in post-training, and there is no auxiliary loss
        seed=seed,
    )
    arguments._n_gpu = min(1, arguments.n_gpu)  # else Trainer wraps the model for all the GPUs that it sees
    return arguments
