"""`data.prompt`: what a template may hold, and that a recipe with prompts loads, changes and is written out."""

import pytest

from configs.errors import ConfigError
from configs.load import dump_recipe, load_recipe
from configs.prompt import PromptConfig

RECIPE = r"""
name: prompts
output_dir: runs/prompts
data:
  prompt: {system: You see a picture., template: "{question}\nPut the final answer in \\boxed{}."}
  prompt_by_verifier:
    choice: {template: "{question}\nAnswer with the letter."}
  train: [{use: digit_sums, prompt: {template: "Compute. {question}"}}]
stages: [{kind: sft, steps: 1}]
"""


@pytest.mark.parametrize(
    "template",
    [
        "{question}",
        "{question}\nPut the final answer in \\boxed{}.",
        "{question} Write \\frac{a}{b}, \\text{answer} and x^{n}_{i}, {} or {1}",
        'Answer in JSON, such as {"answer": 3}. {question}',
        "问题：{question}\n答案写在\\boxed{}里。",
    ],
)
def test_braces_other_than_the_questions_stay(template):
    assert PromptConfig(template=template).apply(r"\sqrt{question}?") == template.replace(
        "{question}", r"\sqrt{question}?"
    )


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("What is it?", r"must be a text that holds {question} once"),
        ("", r"must be a text that holds {question} once"),
        ("{question} {question}", r"must be a text that holds {question} once"),
        ("{question} {answer}", r"without fields other than {question}, which {answer} would be"),
        ("{Question} {question}", r"which {Question} would be"),
        ("{{question}}", r"which {{question}} would be"),
        ("{question} {choices} {image}", r"which {choices} and {image} would be"),
        ("{question}<|im_end|>", r"without control tokens, which <\|im_end\|> is"),
        ("<image>{question}", r"without <image>"),
    ],
)
def test_templates_that_are_refused(template, message):
    with pytest.raises(ValueError, match=message.replace("{", r"\{").replace("}", r"\}")):
        PromptConfig(template=template)


def test_a_system_text_is_no_template_but_holds_no_control_token_either():
    assert PromptConfig(system="Answer {briefly}.").system == "Answer {briefly}."
    with pytest.raises(ValueError, match="control token"):
        PromptConfig(system="<|im_user|>")
    with pytest.raises(ValueError, match="a text, or left out"):
        PromptConfig(system=" ")


def test_what_is_left_out_is_the_others():
    first, second = PromptConfig(template="1 {question}"), PromptConfig(template="2 {question}", system="two")
    assert first.over(second) == PromptConfig(template="1 {question}", system="two")
    assert PromptConfig().over(PromptConfig()) == PromptConfig()


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return path


def test_a_recipe_with_prompts(recipe):
    data = load_recipe(recipe).data
    assert data.prompt.apply("7 + 4?") == "7 + 4?\nPut the final answer in \\boxed{}."
    assert data.prompt_by_verifier == {"choice": PromptConfig(template="{question}\nAnswer with the letter.")}
    assert data.train[0].prompt == PromptConfig(template="Compute. {question}")
    recipe.write_text(dump_recipe(load_recipe(recipe)))
    assert load_recipe(recipe).data == data


def test_the_command_line_sets_prompts(recipe):
    data = load_recipe(
        recipe,
        [
            "data.prompt.template='Now: {question}'",
            "data.prompt_by_verifier.text.system=Read.",
            "data.train.0.prompt=null",
        ],
    ).data
    assert data.prompt == PromptConfig(system="You see a picture.", template="Now: {question}")
    assert data.prompt_by_verifier["text"] == PromptConfig(system="Read.")
    assert data.train[0].prompt is None


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.prompt_by_verifier.text.templat=x", r"did you mean data\.prompt_by_verifier\.text\.template"),
        ("data.prompt_by_verifier.text.template=x", r"data\.prompt_by_verifier\.text\.template = 'x': must be a text"),
        ("data.prompt.template='{question} {foo}'", r"data\.prompt\.template = .*which \{foo\} would be"),
        ("data.train.0.prompt.template=x", r"data\.train\.0\.prompt\.template = 'x': must be"),
        ("data.prompt.sytem=x", "did you mean data.prompt.system"),
        ("data.prompt_by_verifier.text.template=3", r"data\.prompt_by_verifier\.text\.template = 3: must be text"),
    ],
)
def test_mistakes_name_the_key(recipe, override, message):
    with pytest.raises(ConfigError, match=message):
        load_recipe(recipe, [override])
