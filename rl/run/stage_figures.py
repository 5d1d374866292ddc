"""What each stage of a finished run added: its own figure, beside that of the model that entered it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from configs.data import SourceConfig
from configs.load import load_recipe
from rl.run.folder import RunFolder
from rl.run.trackers.jsonl_tracker import read_metrics
from rollouts.tasks.source import BUILT_IN

BEFORE = "before/"  # of a figure that a stage measured on the model that entered it
MOST_ACCURACY_LOST = 0.02  # by a stage that shortens completions


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnFigure:
    """What a kind of stage is there to improve: the mean of some held-out metrics."""

    title: str
    metrics: tuple[str, ...]  # names; one that ends in `/` stands for all that begin with it
    better: Literal["higher", "lower"] = "higher"

    def includes(self, metric: str) -> bool:
        """Whether a metric is one of them."""
        return any(metric == name or (name.endswith("/") and metric.startswith(name)) for name in self.metrics)

    def mean(self, values: Sequence[float]) -> float:
        """The mean of the metrics' values; of perplexities the geometric one, which does not hang on the largest."""
        if self.title == "perplexity":
            return math.exp(statistics.mean(math.log(value) for value in values))
        return statistics.mean(values)


ACCURACY = OwnFigure(title="greedy accuracy", metrics=("greedy_accuracy",))  # also of kinds that the table leaves out
OWN_FIGURES: Mapping[str, OwnFigure] = {
    "vit": OwnFigure(title="retrieval, recall at 1", metrics=("image_to_text_1/", "text_to_image_1/")),
    "pretrain": OwnFigure(title="perplexity", metrics=("perplexity/",), better="lower"),
    "long_context": OwnFigure(title="needles found", metrics=("needles/text", "needles/image")),
    "sft": ACCURACY,
    "rl": OwnFigure(title="sampled accuracy", metrics=("sampled_accuracy",)),
    "long2short": OwnFigure(title="tokens a completion", metrics=("mean_tokens",), better="lower"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StageFigures:
    """The held-out metrics of a stage's model, and of the model that entered it."""

    name: str
    kind: str
    seconds: float
    values: Mapping[str, float]  # metric -> value; the sources' names say which options they have
    entering: Mapping[str, float] = field(default_factory=dict)
    from_random: bool = False  # random weights entered the stage

    @property
    def own(self) -> OwnFigure:
        """The figure that the stage is there to improve."""
        return OWN_FIGURES.get(self.kind, ACCURACY)

    @property
    def before(self) -> float | None:
        """The entering model's own figure; None where it was not measured."""
        return self._mean(self.entering, self._common)

    @property
    def after(self) -> float | None:
        """The own figure at the stage's end, over what was measured before, too; None where it was not measured."""
        return self._mean(self.values, self._common or list(filter(self.own.includes, self.values)))

    @property
    def improved(self) -> bool | None:
        """Whether the own figure is better than the entering model's; None where one of the two is unknown."""
        before, after = self.before, self.after
        if before is None or after is None:
            return None
        if self.kind == "long2short" and self._accuracy_lost() > MOST_ACCURACY_LOST:
            return False
        return after > before if self.own.better == "higher" else after < before

    def sentence(self) -> str:
        """The own figure in words. Example: `rl: sampled accuracy 0.410 -> 0.550, better`."""
        return f"{self.name}: {self.outcome}"

    @property
    def outcome(self) -> str:
        """The own figure in words, without the stage. Example: `sampled accuracy 0.410 -> 0.550, better`."""
        title, before, after = self.own.title, self.before, self.after
        if after is None:
            return f"{title} was not measured: no held-out data for it"
        if before is None and self.from_random:
            return f"{title} {after:.3f}; random weights entered the stage"
        if before is None:
            return f"{title} {after:.3f}; it was not measured on the model that entered the stage"
        outcome = "better" if self.improved else "NOT better"
        if self.kind == "long2short":
            outcome += f"; greedy accuracy {-self._accuracy_lost():+.3f}, where -{MOST_ACCURACY_LOST} may be lost"
        return f"{title} {before:.3f} -> {after:.3f}, {outcome}"

    @property
    def _common(self) -> list[str]:
        """The metrics of the own figure that both models have."""
        return [name for name in self.values if name in self.entering and self.own.includes(name)]

    def _mean(self, values: Mapping[str, float], names: Sequence[str]) -> float | None:
        return self.own.mean([values[name] for name in sorted(names)]) if names else None

    def _accuracy_lost(self) -> float:
        name = "greedy_accuracy"
        return self.entering[name] - self.values[name] if name in self.entering and name in self.values else 0.0


def read_stages(folder: RunFolder) -> list[StageFigures]:
    """The stages of a run that are done, in their order.

    The model that entered a stage was measured by the stage itself (metrics that begin with `before/`), or at the end
    of the stage before.
    """
    config = load_recipe(folder.path / "recipe.yaml")
    sources = {stage.name: source_titles(config.data_of(stage).held_out) for stage in config.stages}
    found: list[StageFigures] = []
    previous: Mapping[str, float] = {}
    for record in folder.records():
        rows = read_metrics(folder.path / "metrics.jsonl", stage=f"held_out/{record.name}")
        values = _known(rows[-1].items() if rows else ()) | record.figures
        named = {_with_source(name, sources[record.name]): value for name, value in values.items()}
        own = {name.removeprefix(BEFORE): value for name, value in named.items() if name.startswith(BEFORE)}
        after = {name: value for name, value in named.items() if not name.startswith(BEFORE)}
        found.append(
            StageFigures(
                name=record.name,
                kind=record.kind,
                seconds=record.seconds,
                values=after,
                entering={**previous, **own},
                from_random=not found and config.model.path == "tiny",
            )
        )
        previous = after
    return found


def source_titles(sources: Sequence[SourceConfig]) -> dict[str, str]:
    """What the sources of a mixture are called in metrics -> a name that says what they show.

    Example: `charts-2` -> `charts (choice)`. Files and data sets of the Hub keep their names.
    """
    titles: dict[str, str] = {}
    uses: list[str] = []
    for source in sources:
        if source.use not in BUILT_IN:
            continue
        uses.append(source.use)
        count = uses.count(source.use)
        said = [text for value in source.options.values() for text in _texts(value)]
        said += ["training split"] if source.split == "train" else []
        name = source.use if count == 1 else f"{source.use}-{count}"
        title = f"{source.use} ({', '.join(said)})" if said else source.use
        titles[name] = title if title not in titles.values() else f"{title} {count}"
    return titles


def _texts(value: object) -> list[str]:
    """The words of an option: itself, or a list of up to two; longer lists would hide what tells sources apart."""
    words = [word for word in (value if isinstance(value, list | tuple) else [value]) if isinstance(word, str)]
    return words if len(words) <= 2 else []


def _known(pairs: Iterable[tuple[str, object]]) -> dict[str, float]:
    return {
        name: float(value)
        for name, value in pairs
        if name not in ("step", "time") and isinstance(value, int | float) and math.isfinite(value)
    }


def _with_source(metric: str, titles: Mapping[str, str]) -> str:
    """A metric with its source's title in place of the name. Example: `perplexity/charts-2`."""
    head, slash, source = metric.rpartition("/")
    return f"{head}/{titles[source]}" if slash and source in titles else metric
