"""Needle documents: where the needle stands, how long they are, and how found ones are counted."""

import numpy as np
import pytest

from kimi_vl import create_tiny_checkpoint, load_processor
from rl.run.needle import Cell, filler_sentences, find_needles, make_needles, needle_figures
from rl.run.needle_plot import needle_table, plot_needles
from rollouts.tasks.documents import Document
from rollouts.tasks.long_documents import IMAGE_LINE
from rollouts.types import Completion, Segment

CONTEXT = 1024
SENTENCES = [f"The {colour} bird sang near the old house." for colour in ("red", "blue", "green", "small", "grey")]


@pytest.fixture(scope="module")
def processor(tmp_path_factory):
    corpus = [*SENTENCES, "The password of Oslo is falcon.", "The number in the image is 47."] * 8
    return load_processor(create_tiny_checkpoint(tmp_path_factory.mktemp("tiny"), corpus=corpus))


@pytest.fixture(scope="module")
def needles(processor):
    return make_needles(processor, SENTENCES, context=CONTEXT, seed=0)


def test_a_needle_stands_at_its_depth_in_a_text_of_its_length(processor, needles):
    assert len(needles) == 2 * 5 * 4 * 3
    assert {needle.length for needle in needles} == {128, 256, 512, 1024}
    sentence = max(len(processor.tokenizer(f" {s}", add_special_tokens=False)["input_ids"]) for s in SENTENCES)
    for needle in needles:
        tokens = len(needle.prompt.input_ids) + len(
            processor.tokenizer(f" {needle.value}", add_special_tokens=False)["input_ids"]
        )
        assert needle.length - sentence - 2 <= tokens <= needle.length
        text = needle.prompt.task.question
        body, question = text.split("\n")
        assert not question.strip().endswith(needle.value), "the value is the model's to say"
        line = IMAGE_LINE if needle.kind == "image" else f"{question} {needle.value}."
        before, _, after = body.partition(line)
        sizes = [len(processor.tokenizer(part, add_special_tokens=False)["input_ids"]) for part in (before, after)]
        assert abs(sizes[0] - needle.depth * sum(sizes)) <= sentence / 2 + 2
        assert len(needle.prompt.image_grid_hws) == (needle.kind == "image")
        assert needle.value.isdigit() == (needle.kind == "image")


def test_a_prompt_is_the_document_up_to_the_value(processor, needles):
    decode = processor.tokenizer.decode
    for needle in needles[:3]:
        ids = needle.prompt.input_ids
        assert ids[0] == processor.tokenizer.bos_token_id
        assert decode(ids[1:]) == needle.prompt.task.question
        assert needle.prompt.task.question.endswith(" is")
    assert len({needle.prompt.id for needle in needles}) == len(needles)


def test_found_values_are_counted_by_depth_and_length(processor, needles):
    """A model that finds what stands in the first half, and no image."""
    asked = []

    def generate(requests, sampling):
        asked.append((sampling.temperature, sampling.max_new_tokens))
        found = []
        for request in requests:
            answer = request.prompt.task.answer
            known = "image" not in request.prompt.id and "/1.0/" not in request.prompt.id
            said = f" {answer if known else 'nothing like it'}. And so on"  # as far as it is asked to
            ids = processor.tokenizer(said, add_special_tokens=False)["input_ids"]
            ids = np.array(ids)
            zeros = np.zeros(len(ids), np.float32)
            found.append(
                [
                    Completion(
                        token_ids=ids,
                        policy_logprobs=zeros,
                        sampler_logprobs=zeros,
                        finish_reason="length",
                        segments=(Segment(start=0, stop=len(ids), version=0),),
                    )
                ]
            )
        return found

    cells = find_needles(needles, generate, processor.tokenizer.decode, processor)
    ((temperature, longest),) = asked
    assert temperature == 0
    assert longest == max(len(processor.tokenizer(f" {own.value}")["input_ids"]) for own in needles)
    assert len(cells) == 2 * 5 * 4
    values, depths, lengths = needle_table(cells, "text")
    assert (depths, lengths) == ([0.0, 0.25, 0.5, 0.75, 1.0], [128, 256, 512, 1024])
    assert values.tolist() == [[1.0] * 4] * 4 + [[0.0] * 4]
    figures = needle_figures(cells)
    assert figures["needles/text"] == pytest.approx(0.8)
    assert figures["needles/text/1024"] == pytest.approx(0.8)
    assert figures["needles/image"] == 0


def test_filler_is_the_documents_own_sentences_without_what_could_mislead():
    document = Document(
        id="a",
        source="s",
        text="One bird. It has 2 wings! Look: <image>. The password is falcon. Is it red?\nYes. One bird.",
        images=(b"",),
    )
    found = filler_sentences([document], seed=0)
    assert found[:3] == ["One bird.", "Is it red?", "Yes."]
    assert len(found) == 50, "plain sentences for the rest"
    assert not any(c.isdigit() for sentence in found for c in sentence)


def test_the_maps_are_drawn(tmp_path):
    cells = [
        Cell(kind=kind, depth=depth, length=length, accuracy=depth)
        for kind in ("text", "image")
        for depth in (0.0, 1.0)
        for length in (64, 128)
    ]
    plot_needles({"before": cells, "after": cells}, tmp_path / "needles.png")
    assert (tmp_path / "needles.png").read_bytes().startswith(b"\x89PNG")
