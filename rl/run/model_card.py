"""The README.md of an exported model: front matter for the Hub, figures, how to use it, what it was trained on."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from configs.data import DataConfig, SourceConfig
from configs.load import plain, without_defaults
from configs.prompt import PromptConfig
from configs.schema import RunConfig
from configs.text import printable, shorten
from rewards.extraction import THINK_CLOSE, THINK_OPEN
from rl.run.benchmarks.results import table
from rollouts.model_family import ModelFamily
from rollouts.tasks.templates import prompt_of_typed_questions

RECIPE = "thinkvl_recipe.yaml"  # beside the card; a folder with a `recipe.yaml` is a run
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_BUILT_IN = {
    "digit_sums": "sums of handwritten digits, tiled into pictures: UCI handwritten digits, 1,797 scans shipped by "
    "scikit-learn, split into training and held-out handwriting",
    "easy_vqa": "easy-VQA: questions about pictures of one coloured shape",
}
_KINDS = {
    "vit": "vision tower",
    "pretrain": "pre-training",
    "long_context": "long context",
    "sft": "SFT",
    "long2short": "long to short",
    "rl": "RL",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CardFacts:
    """The contents of a model card; `summary` is that of a run's `summary.json`."""

    config: RunConfig
    family: ModelFamily
    summary: Mapping[str, Any]
    licence: str
    name: str
    repo_id: str | None  # None: the folder is not on the Hub
    parameters: int
    benchmarks: Sequence[Mapping[str, Any]] = ()  # `rl.run.benchmarks.results.figures` of each, with its settings


def model_card(facts: CardFacts) -> str:
    """The card as Markdown with YAML front matter; the same facts give the same bytes, so that uploads can resume."""
    sections = [
        f"# {shorten(facts.name)}\n\n{_introduction(facts)}",
        f"## Figures\n\n{_figures(facts)}",
        *([f"## Benchmarks\n\n{_benchmarks(facts.benchmarks)}"] if facts.benchmarks else []),
        f"## Use\n\n{_use(facts)}",
        f"## Training data\n\n{_data(facts.config.all_data)}",
        f"## Limits\n\n{_limits(facts)}",
        f"## Recipe\n\nMade with [ThinkVL](https://github.com/thinkvl/thinkvl), seed {facts.config.seed}. "
        f"What differs from the defaults; all keys are in [{RECIPE}]({RECIPE}).\n\n"
        f"{_fenced(_public_yaml(without_defaults(facts.config), facts.config), 'yaml')}",
    ]
    return printable(f"---\n{_front_matter(facts)}---\n\n" + "\n\n".join(sections) + "\n", keep="\n")


def _fenced(text: str, language: str) -> str:
    """`text` as a block of code; no run of backticks in it ends the block."""
    fence = "`" * max([3, *(len(run) + 1 for run in re.findall("`+", text))])
    return f"{fence}{language}\n{text}{fence}"


def _code(name: str) -> str:
    """A name as a span of code."""
    shown = shorten(_public(name)).replace("`", "'")
    return f"`{shown}`"


def _front_matter(facts: CardFacts) -> str:
    path = facts.config.model.path
    values: dict[str, object] = {
        "license": facts.licence,
        "library_name": "transformers",
        "pipeline_tag": "image-text-to-text",
        "tags": [*facts.family.TAGS, "thinkvl", "reasoning", "vision-language", *_methods(facts.config)],
    }
    if _is_hub_id(path):
        values["base_model"] = path
    datasets = sorted({s.use for data in facts.config.all_data for s in data.train if _is_hub_id(s.use)})
    if datasets:
        values["datasets"] = datasets
    return yaml.safe_dump(values, sort_keys=False)


def _methods(config: RunConfig) -> list[str]:
    names = dict.fromkeys(stage.loss.algorithm for stage in config.rl_stages)
    if not names:
        return ["sft"]
    own = {"kimi_k15": "online-mirror-descent"}
    return ["reinforcement-learning", *(own.get(name, name.replace("_", "-")) for name in names)]


def _introduction(facts: CardFacts) -> str:
    config = facts.config
    start = {
        True: f"random weights (a tiny model of the {facts.family.TITLE} architecture)",
        False: _code(config.model.path),
    }
    stages = [_stage_title(stage) for stage in facts.summary.get("stages", ())]
    return (
        f"A {facts.family.TITLE} trained to think before it answers: {_millions(facts.parameters)} parameters, from "
        f"{start[config.model.path == 'tiny']} through {' -> '.join(stages) or 'no stage'}. "
        f"Its thinking stands between `{THINK_OPEN}` and `{THINK_CLOSE}`, the answer after it."
    )


def _millions(count: int) -> str:
    return f"{count / 1e9:.1f} billion" if count >= 1e9 else f"{count / 1e6:.1f} million"


def _figures(facts: CardFacts) -> str:
    rows: Sequence[Mapping[str, Any]] = facts.summary.get("stages", ())
    lines = [
        "| after | seconds | greedy accuracy | sampled accuracy | answers that think | tokens an answer |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {_stage_title(row)} | {row['seconds']:.0f} | {_share(row['greedy_accuracy'])} "
        f"| {_share(row['sampled_accuracy'])} | {_share(row['thinking_share'])} | {_tokens(row['mean_tokens'])} |"
        for row in rows
    ]
    config = facts.config
    temperature = config.last_rl.sampling.temperature if config.last_rl else 1.0
    sources = ", ".join(_source(s) for s in config.data_of(config.stages[-1]).held_out)
    return "\n".join(lines) + (
        f"\n\nOn at most {config.evaluation.tasks} held-out tasks ({sources}); sampled at temperature {temperature:g}."
        + _intervals(rows)
    )


def _benchmarks(results: Sequence[Mapping[str, Any]]) -> str:
    limits = sorted({row["settings"]["sampling"]["max_new_tokens"] for row in results})
    return (
        f"{table(results)}\n\nIn per cent, with each benchmark's own prompt and answer rule; answers of at most "
        f"{' or '.join(map(str, limits))} tokens. Measured with `thinkvl eval --benchmark`."
    )


def _intervals(rows: Sequence[Mapping[str, Any]]) -> str:
    """The last stage's accuracies with their confidence intervals, as a sentence."""
    known = [
        f"{name} {value['value']:.3f} ({value['low']:.3f} to {value['high']:.3f})"
        for name, value in (rows[-1].get("intervals", {}) if rows else {}).items()
        if not math.isnan(value["value"])
    ]
    return f" After the last stage, with 95 % confidence intervals over the tasks: {', '.join(known)}." if known else ""


def _stage_title(record: Mapping[str, Any]) -> str:
    """The title of a stage. Example: `RL`, or `SFT (long_cot)` if its name says more than its kind."""
    kind, name = record["kind"], record["name"]
    return _KINDS[kind] if name == kind else f"{_KINDS[kind]} ({name})"


def _share(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.3f}"


def _tokens(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.1f}"


def _use(facts: CardFacts) -> str:
    place = facts.repo_id or "path/to/this/folder"
    prompt = prompt_of_typed_questions(facts.config.data_of(facts.config.stages[-1]))
    system = "" if prompt.system is None else f'    {{"role": "system", "content": {prompt.system!r}}},\n'
    return f"""\
With torch, transformers, accelerate and Pillow:

```python
from PIL import Image
from transformers import AutoModelForCausalLM, AutoProcessor

model_path = "{place}"
model = AutoModelForCausalLM.from_pretrained(model_path, dtype="auto", device_map="auto", trust_remote_code=True)
processor = AutoProcessor.from_pretrained(model_path, trust_remote_code=True)

image_path = "photo.png"  # an image of yours
image = Image.open(image_path)
{_question(prompt)}
messages = [
{system}\
    {{
        "role": "user",
        "content": [{{"type": "image", "image": image_path}}, {{"type": "text", "text": question}}],
    }}
]
text = processor.apply_chat_template(messages, add_generation_prompt=True)
inputs = processor(images=image, text=text, return_tensors="pt", padding=True).to(model.device)
generated_ids = model.generate(**inputs, max_new_tokens={facts.config.evaluation.max_new_tokens})
answer_ids = generated_ids[:, inputs["input_ids"].shape[1] :]
print(processor.batch_decode(answer_ids, skip_special_tokens=True)[0])
```

Or, with ThinkVL: `thinkvl chat {place} --image photo.png --question 'What is the result?'`
"""[:-1]


def _question(prompt: PromptConfig) -> str:
    """Python that puts a question in the template that the model was trained with."""
    if prompt.template is None:
        return 'question = "What is the result?"'
    return (
        f"template = {prompt.template!r}  # what it was trained with\n"
        'question = template.replace("{question}", "What is the result?")'
    )


def _data(all_data: Sequence[DataConfig]) -> str:
    lines = dict.fromkeys(f"- {_source(source)}, weight {source.weight:g}" for d in all_data for source in d.train)
    return "\n".join(lines) + "\n\nHeld-out tasks took no part in training."


def _source(source: SourceConfig) -> str:
    about = f" ({_BUILT_IN[source.use]})" if source.use in _BUILT_IN and source.split == "train" else ""
    return f"{_code(source.use)}, split {_code(source.split)}{about}"


def _limits(facts: CardFacts) -> str:
    lines = [
        "- It was trained and measured on the tasks above; on anything else its answers are untested.",
        "- Rewards judge the final answer, not the thinking: a right answer can stand after a wrong thought, and a "
        "wrong answer can sound sure.",
        "- It can be made to say anything a picture or a question leads to; put your own safeguards around it.",
    ]
    if facts.config.model.path == "tiny":
        lines.insert(0, "- It is a demonstration: a tiny model from random weights that knows nothing but these tasks.")
    return "\n".join(lines)


def public_recipe(config: RunConfig) -> str:
    """The whole recipe as YAML, without what describes the machine and without passwords."""
    return printable(_public_yaml(plain(config), config), keep="\n")


def _public_yaml(values: Mapping[str, Any], config: RunConfig) -> str:
    recipe = {**values, "output_dir": f"runs/{config.name}"}
    return yaml.safe_dump(_without_places(recipe), sort_keys=False, allow_unicode=True, width=110)


def _without_places(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_places(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_places(inner) for inner in value]
    return _public(value) if isinstance(value, str) else value


def _public(text: str) -> str:
    """`text`, but only the last part of an absolute path, since a model card is public."""
    return Path(text).name if text.startswith(("/", "~")) else text


def _is_hub_id(name: str) -> bool:
    return _HUB_ID.fullmatch(name) is not None and not Path(name).suffix and not Path(name).exists()
