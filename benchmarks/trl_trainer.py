"""TRL's GRPOTrainer on a recipe's RL stage, one step at a time, for `end_to_end.py`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from learner import take_trl_names
from PIL import Image
from transformers import PrinterCallback, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from configs.rl import RLConfig
from configs.schema import RunConfig
from kimi_vl import KimiVLForConditionalGeneration, KimiVLProcessor, load_model, load_processor
from kimi_vl.family import stop_and_barred_ids
from rewards.scorer import Scorer
from rewards.types import Task
from rl.learner.learner import Learner
from rl.learner.learner_config import LearnerConfig
from rl.learner.optimizer import build_optimizer, build_schedule, clip_gradients
from rl.run.scoring import open_scorer
from rl.types import Sample, StepBatch
from rollouts.patches import Patches
from rollouts.tasks.prompts import PromptRenderer
from rollouts.types import Prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What both sides train: a recipe of one RL stage from the warm model."""

    config: RunConfig
    stage: RLConfig

    @property
    def model_path(self) -> str:
        """Where the warm model lies."""
        return self.config.model.path


def receive(connection: Connection) -> tuple[Any, ...]:
    """The parent's next command; `end` where the parent is gone."""
    try:
        return connection.recv()
    except EOFError:
        return ("end",)


class TRLProcessor(KimiVLProcessor):
    """Hands images over as TRL cuts them: a flat row for each patch, and grids with a frame in front."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """See `KimiVLProcessor`."""
        found = super().__call__(*args, **kwargs)
        if "pixel_values" in found:
            grids = torch.as_tensor(np.asarray(found.pop("image_grid_hws")))
            found["image_grid_thw"] = torch.nn.functional.pad(grids, (1, 0), value=1)
            found["pixel_values"] = torch.as_tensor(np.asarray(found["pixel_values"])).flatten(1)
        return found


class TRLModel(KimiVLForConditionalGeneration):
    """Names the arguments that TRL passes: `generate` looks for them here. `take_trl_names` converts them."""

    def forward(
        self, input_ids: Any = None, pixel_values: Any = None, image_grid_thw: Any = None, **kwargs: Any
    ) -> Any:
        """See `KimiVLForConditionalGeneration`."""
        if pixel_values is not None:
            kwargs |= {"pixel_values": pixel_values, "image_grid_thw": image_grid_thw}
        return super().forward(input_ids, **kwargs)

    def _expand_inputs_for_generation(self, expand_size: int = 1, input_ids: Any = None, **kwargs: Any) -> Any:
        """TRL repeats prompts and images itself."""
        assert expand_size == 1
        return input_ids, {k: v for k, v in kwargs.items() if k != "is_encoder_decoder"}


class Turns(TrainerCallback):
    """Waits for a command before the first step and after each one, and answers with the seconds of the step."""

    def __init__(self, connection: Connection, trainer: GRPOTrainer, job: Job) -> None:
        self._connection, self._trainer, self._job = connection, trainer, job
        self._began = 0.0
        self._gradient: dict[str, torch.Tensor] = {}
        self.asked_to_stop = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Wait for the first command."""
        self._connection.send("ready")
        self._wait(control)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Keep the first step's gradient, which is clipped by now."""
        if state.global_step == 0:
            named = self._trainer.model.named_parameters()
            self._gradient = {name: p.grad.clone() for name, p in named if p.grad is not None}

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Answer, and wait for the next command."""
        self._connection.send({"seconds": time.perf_counter() - self._began})
        self._wait(control)

    def _wait(self, control: Any) -> None:
        while True:
            command, *arguments = receive(self._connection)
            if command == "step":
                torch.set_num_threads(arguments[0])
                self._began = time.perf_counter()
                return
            if command == "weights":
                state = self._trainer.model.state_dict()
                self._connection.send({name: t.detach().numpy().copy() for name, t in state.items()})
            elif command == "compare":
                self._connection.send(gradient_gap(self._trainer._buffered_inputs, self._gradient, self._job))
            else:
                control.should_training_stop = True
                self.asked_to_stop = True
                return


def serve(connection: Connection, job: Job, tasks: Sequence[Sequence[Task]], micro: int) -> None:
    """Train on the tasks of each step when told to; `micro` completions share a forward pass."""
    torch.manual_seed(job.config.seed)
    with open_scorer(job.stage, job.config.data_of(job.stage), base=Path.cwd()) as scorer:
        trainer = make_trainer(job, tasks, micro, scorer)
        turns = Turns(connection, trainer, job)
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(turns)
        trainer.train()
        if not turns.asked_to_stop:
            raise SystemExit("TRL's trainer ended by itself")


def make_trainer(job: Job, tasks: Sequence[Sequence[Task]], micro: int, scorer: Scorer) -> GRPOTrainer:
    """TRL's trainer with the stage's tasks, reward, sampling, optimizer and schedule."""
    stage, path = job.stage, job.model_path
    model = load_model(path)
    model.__class__ = TRLModel
    take_trl_names(model)
    processor = load_processor(path)
    processor.__class__ = TRLProcessor
    stop, barred = stop_and_barred_ids(path, processor)
    model.generation_config.eos_token_id = sorted(map(int, stop))
    optimizer = build_optimizer(model, stage.optimizer)
    schedule = build_schedule(optimizer, stage.optimizer, total=stage.steps)
    accumulated = stage.prompts_per_step * stage.samples_per_prompt // micro
    arguments = GRPOConfig(
        output_dir=str(Path(job.config.output_dir) / "trl"),
        max_steps=len(tasks),
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=accumulated,
        steps_per_generation=accumulated,
        num_generations=stage.samples_per_prompt,
        max_completion_length=stage.sampling.max_new_tokens,
        temperature=stage.sampling.temperature,
        generation_kwargs={"suppress_tokens": sorted(map(int, barred))},
        beta=0.0,
        loss_type=stage.loss.algorithm,
        max_grad_norm=stage.optimizer.grad_clip,
        router_aux_loss_coef=0.0,
        shuffle_dataset=False,
        seed=job.config.seed,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        disable_tqdm=True,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
    )

    def reward(completions: Any, number: Sequence[int], **_: Any) -> list[float | None]:
        texts = [completion[0]["content"] for completion in completions]
        flat = [task for step in tasks for task in step]
        return [score.reward for score in scorer.score(texts, [flat[n] for n in number])]

    return GRPOTrainer(
        model=model,
        args=arguments,
        reward_funcs=reward,
        train_dataset=_dataset(job, [task for step in tasks for task in step], processor),
        processing_class=processor,
        optimizers=(optimizer, schedule),
    )


def _dataset(job: Job, tasks: Sequence[Task], processor: Any) -> Dataset:
    templates = PromptRenderer.from_config(processor, job.config.data_of(job.stage)).templates
    rows = []
    for number, task in enumerate(tasks):
        prompt = templates.of(task)
        system = [] if prompt.system is None else [{"role": "system", "content": prompt.system}]
        rows.append(
            {
                "prompt": [*system, {"role": "user", "content": prompt.apply(task.question)}],
                "images": [Image.open(BytesIO(data)) for data in task.images],
                "number": number,
            }
        )
    return Dataset.from_list(rows)


def gradient_gap(batches: Sequence[dict[str, Any]], theirs: dict[str, torch.Tensor], job: Job) -> float:
    """Relative distance of our learner's clipped gradient of the same step from TRL's."""
    model = load_model(job.model_path)
    processor = load_processor(job.model_path)
    stage = job.stage
    config = LearnerConfig(
        loss=stage.loss,
        optimizer=stage.optimizer,
        temperature=stage.sampling.temperature,
        total_steps=stage.steps,
        max_new_tokens=stage.sampling.max_new_tokens,
        micro_batch_tokens=stage.micro_batch_tokens,
    )
    learner = Learner(model, config, barred_ids=stop_and_barred_ids(job.model_path, processor)[1])
    samples = [sample for batch in batches for sample in _samples(batch, processor.patch_shape)]
    learner.accumulate(StepBatch(samples=tuple(samples), first=True))
    clip_gradients(model.parameters(), stage.optimizer.grad_clip)
    ours = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    if ours.keys() != theirs.keys():
        raise SystemExit(f"gradients of other weights: {sorted(ours.keys() ^ theirs.keys())[:4]}")
    apart = sum(float((ours[name] - theirs[name]).square().sum()) for name in ours) ** 0.5
    return apart / max(1e-30, sum(float(g.square().sum()) for g in theirs.values()) ** 0.5)


def _samples(batch: dict[str, Any], patch_shape: tuple[int, ...]) -> list[Sample]:
    """TRL's micro-batch as ours: padding taken off, each prompt once."""
    grids = batch["image_grid_thw"]
    pixels = batch["pixel_values"].split(grids.prod(-1).tolist())
    found = []
    for i in range(len(batch["advantages"])):
        ids = batch["prompt_ids"][i][batch["prompt_mask"][i].bool()].numpy()
        tokens = batch["completion_ids"][i][batch["completion_mask"][i].bool()].numpy()
        patches = pixels[i].view(-1, *patch_shape).numpy()
        key = str(hash((ids.tobytes(), patches.tobytes())))
        prompt = Prompt(
            id=key,
            task=Task(id=key, source="trl", question="?", answer="1"),
            input_ids=ids,
            patches=Patches(patches),
            image_grid_hws=grids[i : i + 1, 1:].numpy(),
        )
        advantage = float(batch["advantages"][i])
        old = np.zeros(len(tokens), np.float32)  # the first update of a step does not read them
        found.append(Sample(id=key, prompt=prompt, token_ids=tokens, old_logprobs=old, advantage=advantage))
    return found
