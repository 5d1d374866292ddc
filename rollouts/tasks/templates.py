"""The system text and the template of a task: the one place where a recipe's prompts are chosen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from configs.data import DataConfig, recipe_verifiers
from configs.errors import UserError
from configs.prompt import PromptConfig
from configs.text import nearest_or_allowed
from rewards.types import Task
from rewards.verifiers.builtin import JUDGE, VERIFIERS
from rewards.verifiers.options import base_name


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptTemplates:
    """The prompt of all tasks, and those of single verifiers.

    A verifier's key is its name, for whatever options, or its name with options, which goes before.
    """

    prompt: PromptConfig = field(default_factory=PromptConfig)
    by_verifier: Mapping[str, PromptConfig] = field(default_factory=dict)

    @classmethod
    def from_config(cls, data: DataConfig) -> PromptTemplates:
        """The prompts of a recipe. Raises UserError for a verifier that is neither built in nor named in the recipe."""
        known = (*sorted(VERIFIERS), JUDGE, *recipe_verifiers(data))
        for name in data.prompt_by_verifier:
            if name not in known and base_name(name) not in (*VERIFIERS, JUDGE):
                raise UserError(f"data.prompt_by_verifier.{name}: no such verifier{nearest_or_allowed(name, known)}")
        return cls(prompt=data.prompt, by_verifier=data.prompt_by_verifier)

    def of(self, task: Task) -> PromptConfig:
        """The prompt of a task: its source's, then its verifier's, then that of all tasks, each key by itself."""
        prompt = PromptConfig(system=task.system, template=task.template)
        for name in dict.fromkeys((task.verifier, base_name(task.verifier))):
            prompt = prompt.over(self.by_verifier.get(name, PromptConfig()))
        return prompt.over(self.prompt)

    def text(self, task: Task) -> str:
        """The text of a task's prompt without the marks of turns: the system text, then the user's."""
        prompt = self.of(task)
        return "\n".join([*([prompt.system] if prompt.system else []), prompt.apply(task.question)])

    def texts(self) -> Iterator[tuple[str, str]]:
        """Every text with its key in a recipe."""
        places = {"data.prompt": self.prompt}
        places |= {f"data.prompt_by_verifier.{name}": prompt for name, prompt in self.by_verifier.items()}
        for place, prompt in places.items():
            for key, text in (("system", prompt.system), ("template", prompt.template)):
                if text is not None:
                    yield f"{place}.{key}", text


def prompt_of_typed_questions(data: DataConfig) -> PromptConfig:
    """The prompt of a question that somebody types: that of a row of the recipe's only source.

    Where there are several sources it is a row that names no verifier, and so one of `math`.
    """
    only = data.train[0] if len(data.train) == 1 else None
    own = (only.prompt if only else None) or PromptConfig()
    verifier = only.options.get("verifier", "math") if only else "math"
    task = Task(
        id="", source="", question="", answer="", verifier=str(verifier), system=own.system, template=own.template
    )
    return PromptTemplates(prompt=data.prompt, by_verifier=data.prompt_by_verifier).of(task)
