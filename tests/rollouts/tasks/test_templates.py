"""Prompts of a recipe: which one a task gets, and what the model then sees."""

from dataclasses import replace

import pytest
from PIL import Image

from configs.data import DataConfig, SourceConfig
from configs.errors import UserError
from configs.prompt import PromptConfig
from kimi_vl import create_tiny_checkpoint, load_processor
from rewards.types import Task
from rollouts.tasks.mixture import TaskMixture
from rollouts.tasks.prompts import BadPrompt, PromptRenderer
from rollouts.tasks.templates import PromptTemplates, prompt_of_typed_questions

BOXED = PromptConfig(template="{question}\nPut the final answer in \\boxed{}.")
LETTER = PromptConfig(template="{question}\nAnswer with the letter.")
SYSTEM = PromptConfig(system="You look closely.")


@pytest.fixture(scope="module")
def processor(tmp_path_factory):
    return load_processor(create_tiny_checkpoint(tmp_path_factory.mktemp("tiny"), corpus=["What is the result?"] * 4))


def task(question="What is it?", **more):
    return Task(**{"id": "t/0", "source": "t", "question": question, "answer": "red", **more})


def png():
    import io

    file = io.BytesIO()
    Image.new("RGB", (28, 28), "red").save(file, "PNG")
    return file.getvalue()


def seen(processor, data, given):
    """What the model reads before its turn, without the marks of images."""
    ids = PromptRenderer.from_config(processor, data).render(given).input_ids
    image = "<|media_start|>image<|media_content|><|media_pad|><|media_end|>"
    return processor.tokenizer.decode(ids).replace(image, "[image]")


def turns(user, system="You are a helpful assistant"):
    return (
        f"<|im_system|>system<|im_middle|>{system}<|im_end|><|im_user|>user<|im_middle|>{user}<|im_end|>"
        "<|im_assistant|>assistant<|im_middle|>"
    )


class TestChoice:
    data = DataConfig(prompt=PromptConfig(system="all", template="all {question}"), prompt_by_verifier={"math": BOXED})

    def test_a_verifier_goes_before_all_tasks(self):
        templates = PromptTemplates.from_config(self.data)
        assert templates.of(task(verifier="math")) == replace(BOXED, system="all")
        assert templates.of(task(verifier="text")) == self.data.prompt

    def test_a_source_goes_before_a_verifier_key_by_key(self):
        templates = PromptTemplates.from_config(self.data)
        assert templates.of(task(system="own")) == replace(BOXED, system="own")
        assert templates.of(task(template="own {question}")).template == "own {question}"

    def test_a_verifier_with_options(self):
        close = PromptConfig(template="{question} About?")
        by_verifier = {"numeric": BOXED, "numeric(rel=0.1)": close}
        templates = PromptTemplates.from_config(DataConfig(prompt_by_verifier=by_verifier))
        assert templates.of(task(verifier="numeric(abs=2)")) == BOXED
        assert templates.of(task(verifier="numeric(rel=0.1)")) == close

    @pytest.mark.parametrize(
        ("name", "hint"),
        [
            ("maths", "did you mean math"),
            ("x.py:f", "allowed are box, choice"),
            ("numerc(rel=1)", "did you mean numeric"),
        ],
    )
    def test_an_unknown_verifier_is_refused(self, name, hint):
        with pytest.raises(UserError, match=hint):
            PromptTemplates.from_config(DataConfig(prompt_by_verifier={name: BOXED}))

    def test_verifiers_that_the_recipe_names_are_known(self):
        source = SourceConfig(use="rows.jsonl", options={"verifier": "mine.py:near"})
        data = DataConfig(train=(source,), verifiers=("mine.py:far",), prompt_by_verifier={})
        for name in ("mine.py:near", "mine.py:far", "judge"):
            assert PromptTemplates.from_config(replace(data, prompt_by_verifier={name: BOXED}))


class TestWhatTheModelSees:
    def test_nothing_changes_without_prompts(self, processor):
        plain = PromptRenderer(processor, max_prompt_tokens=400).render(task(images=(png(),))).input_ids
        asked = PromptRenderer.from_config(processor, DataConfig()).render(task(images=(png(),))).input_ids
        assert asked.tolist() == plain.tolist()

    def test_the_template_is_around_the_question_and_the_system_text_in_front(self, processor):
        data = DataConfig(prompt=replace(BOXED, system="You look closely."))
        given = task("Where is {question}?", images=(png(),))
        assert seen(processor, data, given) == turns(
            "[image]Where is {question}?\nPut the final answer in \\boxed{}.", "You look closely."
        )

    def test_images_stand_where_the_question_says(self, processor):
        data = DataConfig(prompt=PromptConfig(template="Look: {question} Be brief."))
        given = task("<image>\nWhat is it, beside <image>?", images=(png(), png()))
        assert seen(processor, data, given) == turns("Look: [image]What is it, beside [image]? Be brief.")

    def test_options_are_part_of_the_question(self, processor):
        data = DataConfig(prompt_by_verifier={"choice": LETTER})
        given = task("Which?\nA. cat\nB. dog", verifier="choice", choices=("cat", "dog"))
        assert seen(processor, data, given) == turns("Which?\nA. cat\nB. dog\nAnswer with the letter.")

    def test_the_limit_counts_the_prompt(self, processor):
        length = len(PromptRenderer(processor, max_prompt_tokens=400).render(task()).input_ids)
        data = DataConfig(prompt=BOXED, max_prompt_tokens=length)
        with pytest.raises(BadPrompt, match="longer than"):
            PromptRenderer.from_config(processor, data).render(task())

    def test_special_tokens_of_the_tokenizer_are_refused(self, processor):
        for data in (
            DataConfig(prompt=PromptConfig(system="[EOS]")),
            DataConfig(prompt_by_verifier={"math": PromptConfig(template="{question}[EOS]")}),
        ):
            with pytest.raises(UserError, match=r"(system|template): holds the control token '\[EOS\]'"):
                PromptRenderer.from_config(processor, data)
        with pytest.raises(BadPrompt, match="control token in the prompt of the source"):
            PromptRenderer.from_config(processor, DataConfig()).render(task(template="{question}[EOS]"))


class TestSources:
    def test_a_sources_prompt_travels_with_its_tasks(self, tmp_path):
        options = {"scans": [2]}
        sources = (
            SourceConfig(use="digit_sums", options=options, prompt=BOXED),
            SourceConfig(use="easy_vqa"),
        )
        tasks = TaskMixture(sources, seed=0, base=tmp_path).draw(0, 8)
        assert {t.source: t.template for t in tasks} == {"digit_sums": BOXED.template, "easy_vqa": None}

    def test_one_source_may_be_asked_in_two_ways(self, tmp_path):
        sources = (SourceConfig(use="digit_sums", prompt=BOXED), SourceConfig(use="digit_sums", prompt=LETTER))
        tasks = TaskMixture(sources, seed=0, base=tmp_path).draw(0, 4)
        assert {t.source: t.template for t in tasks} == {
            "digit_sums": BOXED.template,
            "digit_sums-2": LETTER.template,
        }


class TestTypedQuestions:
    def test_they_are_asked_as_the_only_source(self):
        source = SourceConfig(use="rows.jsonl", prompt=SYSTEM, options={"verifier": "choice"})
        data = DataConfig(train=(source,), prompt_by_verifier={"choice": LETTER, "math": BOXED})
        assert prompt_of_typed_questions(data) == PromptConfig(system=SYSTEM.system, template=LETTER.template)

    def test_of_several_sources_they_are_mathematics(self):
        sources = (SourceConfig(use="digit_sums", prompt=SYSTEM), SourceConfig(use="easy_vqa"))
        data = DataConfig(train=sources, prompt_by_verifier={"choice": LETTER, "math": BOXED})
        assert prompt_of_typed_questions(data) == BOXED
        assert prompt_of_typed_questions(DataConfig()) == PromptConfig()
