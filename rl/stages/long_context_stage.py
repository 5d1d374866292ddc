"""A long-context stage (arXiv:2504.07491 §2.3): the supervised stage on a model of a larger RoPE base and context."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from configs.json_io import read_json
from configs.long_context import LongContextConfig
from rl.checkpoint import replace_folder
from rl.learner.weight_stream import weight_stream
from rl.run.context import RunContext, load_policy
from rl.run.folder import write_json
from rl.run.needle import Cell, Needle, filler_sentences, find_needles, make_needles, needle_figures
from rl.run.needle_plot import plot_needles
from rl.stages.supervised_stage import SupervisedStage
from rollouts.model_family import VisionLanguageModel, family_at

_FILLER_EXAMPLES = 256  # of the stage's data, for the needles' filler
_NEEDLE_SEED = 3  # the same needles for every run, so that seeds and recipes compare


@dataclass(frozen=True, slots=True, kw_only=True)
class _Map:
    """What `before.json` and `after.json` hold."""

    cells: list[Cell]


class LongContextStage(SupervisedStage):
    """Measures the entering model with needles, changes its config, trains it, and measures it again."""

    def __init__(self, context: RunContext, config: LongContextConfig, model_path: str) -> None:
        self._folder = context.folder.stage(config.name)
        self._before, self._after = self._folder / "before.json", self._folder / "after.json"
        self._run_context, self._name = context, config.name
        self._needles = _needles(context, config)
        if not self._before.exists():
            self._measure(load_policy(context, model_path), self._before)
        extended = _extended_model(context, config, model_path)
        context.workers.serve(extended)
        super().__init__(context, config, extended)

    def run(self) -> VisionLanguageModel:
        """Train the remaining steps, and draw the needle maps of the entering model and the trained one."""
        model = super().run()
        self._measure(model, self._after)
        before, after = (read_json(path, _Map).cells for path in (self._before, self._after))
        plot_needles({"before": before, "after": after}, self._folder / "needles.png")
        return model

    def figures(self) -> dict[str, float]:
        """The share of needles found by the trained model and, under `before/`, by the entering one."""
        before, after = (needle_figures(read_json(path, _Map).cells) for path in (self._before, self._after))
        return after | {f"before/{name}": value for name, value in before.items()}

    def _measure(self, model: VisionLanguageModel, path: Path) -> None:
        """Find the needles with the run's workers, and keep what was found."""
        context = self._run_context
        context.pool.publish(weight_stream(model, context.pool.dtype), version=context.pool.version + 1)
        cells = find_needles(self._needles, context.pool.generate, context.decode, context.processor)
        write_json(path, asdict(_Map(cells=cells)))
        figures = needle_figures(cells)
        context.console.print(
            f"{self._name}: needles found {path.stem}: "
            f"text {figures['needles/text']:.3f}  image {figures['needles/image']:.3f}"
        )


def _needles(context: RunContext, config: LongContextConfig) -> list[Needle]:
    """The needle documents, with filler from the stage's own data."""
    filler = filler_sentences(context.examples(config).draw(0, _FILLER_EXAMPLES), seed=_NEEDLE_SEED)
    return make_needles(context.processor, filler, context=config.context, seed=_NEEDLE_SEED)


def _extended_model(context: RunContext, config: LongContextConfig, model_path: str) -> str:
    """The folder with the entering model under its new RoPE base and context; written once."""
    folder = context.folder.stage(config.name) / "extended"
    if not (folder / "config.json").exists():
        partial = folder.with_name("extended.partial")
        family_at(model_path).extend_context(model_path, partial, rope_base=config.rope_base, context=config.context)
        replace_folder(partial, folder)
    return str(folder)
