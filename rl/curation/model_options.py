"""The options of both commands about the model and its sampling."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.errors import UserError
from configs.rl import SamplingConfig
from rl.cli.open_model import ModelPlace, find_model
from rl.curation.chat_server import ServerGenerator, ServerOptions
from rl.curation.generators import Generator, ModelPlan, open_pool
from rl.curation.inputs import Inputs
from rollouts.engines.engine_spec import choose_engine
from rollouts.tasks.dataset import contents_hash

_DIRECT_TOKENS = 64  # of an answer without thinking


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingOptions:
    """A local model or a server, and the sampling options."""

    model: str | None = None  # a run, a model's folder, or a hub id
    server: ServerOptions | None = None
    temperature: float = 1.0
    max_new_tokens: int | None = None  # None: as the recipe's RL stage, or the run's
    workers: int | None = None  # None: as there, else 1
    seed: int = 0

    @property
    def name(self) -> str:
        """The model as the user named it."""
        return self.model or "" if self.server is None else f"{self.server.model} at {self.server.url}"

    def place(self) -> ModelPlace | None:
        """The place of the model; None for a server. Raises UserError unless exactly one of the two is named."""
        if (self.model is None) == (self.server is None):
            raise UserError("name either --model RUN_OR_MODEL, or --server URL with --server-model NAME")
        return find_model(self.model) if self.model is not None else None

    def sampling(self, inputs: Inputs) -> SamplingConfig:
        """The sampling parameters. Raises UserError for an invalid option."""
        default = inputs.rl.sampling.max_new_tokens if inputs.rl else SamplingConfig().max_new_tokens
        try:
            return SamplingConfig(temperature=self.temperature, max_new_tokens=self.max_new_tokens or default)
        except ValueError as error:
            raise UserError(str(error)) from error

    def identity(self, place: ModelPlace | None) -> dict[str, Any]:
        """What identifies the model: its name and, for a folder, a hash of its weights."""
        if place is None:
            assert self.server is not None
            return {"server": self.server.url, "model": self.server.model}
        folder = Path(place.path)
        weights = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
        return {"model": place.path, "weights": {file.name: contents_hash(file) for file in weights}}

    @contextmanager
    def open(
        self,
        place: ModelPlace | None,
        inputs: Inputs,
        sampling: SamplingConfig,
        *,
        beside: Path,
        say: Callable[[str], None],
    ) -> Iterator[Generator]:
        """Start the generator. Raises UserError or EngineError."""
        if place is None:
            assert self.server is not None
            yield ServerGenerator(self.server, inputs.data)
            return
        stage = inputs.recipe.last_rl if inputs.recipe else None  # a run's own engine may be anybody's code
        engine = "transformers"
        if stage is not None:
            engine = choose_engine(stage.engine, stage.engine_options, base=Path.cwd(), trains=False)
        plan = ModelPlan(
            place=place,
            data=inputs.data,
            dtype=inputs.dtype,
            engine=engine,
            options=stage.engine_options if stage is not None else {},
            context=inputs.data.max_prompt_tokens + sampling.max_new_tokens,
            workers=self.workers or (inputs.rl.workers if inputs.rl else 1),
            failures=beside.with_suffix(".failures"),
        )
        with open_pool(plan, say) as generator:
            yield generator


def direct_sampling(sampling: SamplingConfig) -> SamplingConfig:
    """The sampling of answers without thinking: the same with a small token limit."""
    return SamplingConfig(temperature=sampling.temperature, max_new_tokens=min(sampling.max_new_tokens, _DIRECT_TOKENS))
