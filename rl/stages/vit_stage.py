"""A `vit` stage: the vision tower alone on image-text pairs, measured by retrieval (arXiv:2504.07491 §2.3.1)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch

from configs.errors import UserError
from configs.json_io import read_json
from configs.supervised import SupervisedConfig
from configs.vit import ViTConfig
from rewards.types import Task
from rl.algorithms.contrastive import retrieval_recall
from rl.learner.contrastive_learner import ContrastiveConfig, ContrastiveLearner
from rl.run.context import RunContext
from rl.run.document_rendering import render_image
from rl.run.folder import write_json
from rl.stages.example_batches import ExampleRenderer
from rl.stages.open_learner import open_model
from rl.stages.supervised_stage import SupervisedStage
from rl.types import PromptCompletion
from rollouts.model_family import VisionLanguageModel
from rollouts.tasks.documents import Example
from rollouts.tasks.image_text import image_text
from rollouts.tasks.prompts import PromptRenderer
from rollouts.types import Prompt

_TOGETHER = 32  # held-out pairs that are encoded together


class CaptionRenderer(ExampleRenderer):
    """Examples to prompts with one image, completed by the caption. Longer captions are cut."""

    def __init__(self, renderer: PromptRenderer, config: SupervisedConfig) -> None:
        super().__init__(renderer, config)
        self._processor, self._longest = renderer.processor, config.max_tokens

    def _one(self, example: Example, *, thinking: bool) -> list[PromptCompletion]:
        data, caption = image_text(example)
        image, tokenizer = render_image(self._processor, data), self._processor.tokenizer
        ids = tokenizer(caption, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        prompt = Prompt(
            id=example.id,
            task=Task(id=example.id, source=example.source, question="", answer=caption),
            input_ids=np.array([tokenizer.bos_token_id]),
            patches=image.patches,
            image_grid_hws=image.grid,
        )
        token_ids = np.array([*ids[: self._longest - 1], tokenizer.eos_token_id], dtype=np.int64)
        return [PromptCompletion(id=example.id, prompt=prompt, token_ids=token_ids)]


class ViTStage(SupervisedStage):
    """Trains the tower with text modules that live with the stage; projector and language model stay as they are."""

    def __init__(self, context: RunContext, config: ViTConfig, model_path: str) -> None:
        self._own = config
        super().__init__(context, config, model_path)
        self._before = self._folder / "before.json"
        self._after: dict[str, float] = {}

    def _open_learner(self, model_path: str) -> ContrastiveLearner:
        context, config = self._context, self._own
        model = open_model(context, config, model_path)
        if not any(p.requires_grad for p in model.vision_tower.parameters()):
            raise UserError(
                f"{config.name}: nothing of the vision tower is trained; set {config.name}.freeze to [], and with "
                "model.lora add `vision` to its targets"
            )
        own = ContrastiveConfig(
            optimizer=config.optimizer,
            total_steps=config.steps,
            batch_size=config.batch_size,
            first_token=int(context.processor.tokenizer.bos_token_id),
            max_tokens=config.max_tokens,
            micro_batch_tokens=config.micro_batch_tokens,
            caption_coef=config.caption_coef,
            text_layers=config.text_layers,
            seed=context.config.seed,
        )
        return ContrastiveLearner(model, own)

    def _example_renderer(self, config: SupervisedConfig) -> CaptionRenderer:
        return CaptionRenderer(self._context.inputs[config.name].renderer, config)

    def run(self) -> VisionLanguageModel:
        """Measure retrieval, train the remaining steps, and measure it again."""
        if not self._before.exists():
            write_json(self._before, {f"before/{name}": value for name, value in self._retrieval().items()})
        model = super().run()
        self._after = self._retrieval()
        return model

    def figures(self) -> dict[str, float]:
        """Recall on the held-out pairs of each source, before the first step and at the end."""
        return read_json(self._before, dict[str, float]) | self._after

    def _retrieval(self) -> dict[str, float]:
        by_source: dict[str, list[Example]] = defaultdict(list)
        for example in self._context.inputs[self._own.name].pairs:
            by_source[example.source].append(example)
        figures: dict[str, float] = {}
        for source, examples in by_source.items():
            figures |= {f"{name}/{source}": value for name, value in self._recall(examples).items()}
        return figures

    def _recall(self, examples: Sequence[Example]) -> dict[str, float]:
        """Recall among the pairs of one source, and how many they are."""
        renderer, rng = self._example_renderer(self._own), np.random.default_rng(0)
        images: list[torch.Tensor] = []
        texts: list[torch.Tensor] = []
        captions: list[str] = []
        for start in range(0, len(examples), _TOGETHER):
            if not (rendered := renderer.render(list(examples[start : start + _TOGETHER]), rng).examples):
                continue
            found = self._learner.embed(rendered)
            images.append(found[0])
            texts.append(found[1])
            captions += [pair.prompt.task.answer for pair in rendered]
        if not captions:
            return {"pairs": 0.0}
        return {"pairs": float(len(captions)), **retrieval_recall(torch.cat(images), torch.cat(texts), captions)}
