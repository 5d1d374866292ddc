"""A trained model gets the prompt of its training: in chat, in eval of an export, and as its card says."""

import json
import re

import pytest

from configs.load import dump_recipe, load_recipe
from rollouts.tasks.prompts import PromptRenderer

PROMPT = ["data.prompt.template='{question} Box it: \\boxed{}'", "data.prompt.system='Look.'"]
TEMPLATE = "{question} Box it: \\boxed{}"


@pytest.fixture
def asking_run(run_folder):
    """A finished run whose recipe has a prompt."""
    recipe = run_folder / "recipe.yaml"
    recipe.write_text(dump_recipe(load_recipe(recipe, PROMPT)))
    return run_folder


@pytest.fixture
def questions(monkeypatch):
    """Every prompt that is rendered, as text."""
    texts = []
    render = PromptRenderer.render

    def recording(self, task):
        prompt = render(self, task)
        texts.append(self.processor.tokenizer.decode(prompt.input_ids))
        return prompt

    monkeypatch.setattr(PromptRenderer, "render", recording)
    return texts


def has_template(text):
    return text.startswith("<|im_system|>system<|im_middle|>Look.<|im_end|>") and "Box it: \\boxed{}<|im_end|>" in text


def test_chat_asks_as_the_run_or_the_export_says(thinkvl, asking_run, questions):
    assert thinkvl("export", asking_run)[0] == 0
    for model in (asking_run, asking_run / "export"):
        code, _, error = thinkvl("chat", model, "--question", "7 + 4?", "--max-new-tokens", 2)
        assert (code, error) == (0, "")
        assert has_template(questions.pop())
    thinkvl("chat", asking_run / "rl" / "model", "--question", "7 + 4?", "--max-new-tokens", 2)
    assert not has_template(questions.pop())


def test_eval_asks_as_the_run_does(thinkvl, asking_run, questions):
    assert thinkvl("eval", asking_run, "--tasks", 2)[0] == 0
    assert questions
    assert all(map(has_template, questions))


def test_eval_of_an_export_by_a_recipe_that_says_nothing(thinkvl, asking_run, questions, tmp_path):
    assert thinkvl("export", asking_run)[0] == 0
    recipe = tmp_path / "plain.yaml"
    recipe.write_text(dump_recipe(load_recipe(asking_run / "recipe.yaml", ["data.prompt={}"])))
    code, output, _ = thinkvl("eval", asking_run / "export", "--recipe", recipe, "--tasks", 2)
    assert code == 0
    assert "the recipe has no prompt, so that of" in output
    assert all(map(has_template, questions))
    questions.clear()
    recipe.write_text(dump_recipe(load_recipe(recipe, ["data.prompt.template='{question} Now.'"])))
    assert thinkvl("eval", asking_run / "export", "--recipe", recipe, "--tasks", 2)[0] == 0
    assert all("Now.<|im_end|>" in text and not has_template(text) for text in questions)


def test_the_card_says_how_to_ask(thinkvl, asking_run):
    assert thinkvl("export", asking_run)[0] == 0
    card = (asking_run / "export" / "README.md").read_text()
    assert '{"role": "system", "content": \'Look.\'}' in card
    code = re.search(r"^template = .*\nquestion = .*$", card, re.MULTILINE)[0]
    names = {}
    exec(code, names)
    assert names["question"] == TEMPLATE.replace("{question}", "What is the result?")
    assert json.loads((asking_run / "export" / "prompt.json").read_text()) == {"system": "Look.", "template": TEMPLATE}


def test_an_export_without_prompts_has_no_file_of_them(thinkvl, asking_run, run_folder):
    assert thinkvl("export", asking_run, "--output", run_folder / "out")[0] == 0
    recipe = run_folder / "recipe.yaml"
    recipe.write_text(dump_recipe(load_recipe(recipe, ["data.prompt={}"])))
    assert thinkvl("export", run_folder, "--output", run_folder / "out")[0] == 0
    assert not (run_folder / "out" / "prompt.json").exists()
    assert 'question = "What is the result?"' in (run_folder / "out" / "README.md").read_text()


@pytest.mark.parametrize("content", ["[1]", "{", '{"template": 3}', '{"template": "none"}', '{"sytem": "x"}'])
def test_a_broken_file_is_told(thinkvl, asking_run, content):
    assert thinkvl("export", asking_run)[0] == 0
    (asking_run / "export" / "prompt.json").write_text(content)
    code, _, error = thinkvl("chat", asking_run / "export", "--question", "7 + 4?")
    assert code == 1
    assert "prompt.json holds no prompt" in error
