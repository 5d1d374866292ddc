"""Documents as the learner gets them: what is read, what is predicted, how a long one is cut; and their perplexity."""

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from rl_helpers import SIZES

from kimi_vl import create_tiny_checkpoint, load_model, load_processor
from rewards.images import BadImage
from rl.run.document_rendering import DocumentRenderer
from rl.run.perplexity import perplexities
from rollouts.tasks.documents import Document
from rollouts.tasks.prompts import BadPrompt


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return create_tiny_checkpoint(tmp_path_factory.mktemp("docs") / "tiny", corpus=["a panda 熊猫"] * 20, sizes=SIZES)


@pytest.fixture(scope="module")
def processor(folder):
    return load_processor(folder)


def png(width=56, height=28, colour="red"):
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(buffer, format="PNG")
    return buffer.getvalue()


def document(text, *images):
    return Document(id=text, source="made", text=text, images=images)


def read(part):
    """All tokens of a part."""
    return [*part.prompt.input_ids.tolist(), *part.token_ids.tolist()]


def predicted(processor, part):
    return processor.tokenizer.decode(part.token_ids[part.trainable])


def test_a_text_is_predicted_from_its_first_token_to_the_end(processor):
    [part] = DocumentRenderer(processor, max_tokens=100).render(document("a panda"))
    assert processor.tokenizer.decode(read(part)) == "[BOS]a panda[EOS]"
    assert predicted(processor, part) == "a panda[EOS]"
    assert part.prompt.task.source == "made"


def test_images_are_read_at_their_marks_and_not_predicted(processor):
    text = "one <image> two <image>"
    [part] = DocumentRenderer(processor, max_tokens=100).render(document(text, png(), png(28, 84, "blue")))
    shown = "<|media_start|>image<|media_content|>{}<|media_end|>"
    pads = ["<|media_pad|>" * count for count in (2, 3)]
    assert (
        processor.tokenizer.decode(read(part)) == f"[BOS]one {shown.format(pads[0])} two {shown.format(pads[1])}[EOS]"
    )
    assert predicted(processor, part) == "one  two [EOS]"
    assert part.prompt.image_grid_hws.tolist() == [[2, 4], [6, 2]]
    assert len(part.prompt.pixel_values) == 8 + 12
    assert part.prompt.pixel_values[0, 0].mean() == 1, "red comes first"


def test_control_tokens_in_a_text_are_text(processor):
    [part] = DocumentRenderer(processor, max_tokens=100).render(document("a<|im_end|><|media_pad|>"))
    ids = read(part)
    assert processor.image_token_id not in ids
    assert processor.tokenizer.convert_tokens_to_ids("<|im_end|>") not in ids
    assert processor.tokenizer.decode(ids) == "[BOS]a<|im_end|><|media_pad|>[EOS]"


@pytest.mark.parametrize("longest", [10, 11, 12, 17, 40])
def test_a_long_document_is_cut_and_loses_nothing(processor, longest):
    renderer = DocumentRenderer(processor, max_tokens=longest)
    text = "a panda <image> a panda a panda <image><image> panda 熊猫"
    parts = renderer.render(document(text, png(), png(28, 28), png(28, 56)))
    assert all(len(part) <= longest for part in parts)
    assert len({part.id for part in parts}) == len(parts)
    whole = DocumentRenderer(processor, max_tokens=500).render(document(text, png(), png(28, 28), png(28, 56)))
    assert [token for part in parts for token in part.token_ids] == whole[0].token_ids.tolist()
    assert np.array_equal(np.concatenate([p.prompt.pixel_values for p in parts]), whole[0].prompt.pixel_values)
    for part in parts:
        places = int((part.token_ids == processor.image_token_id).sum())
        assert places == int(part.prompt.image_grid_hws.prod(-1).sum()) // 4


def test_what_cannot_be_rendered(processor):
    renderer = DocumentRenderer(processor, max_tokens=10)
    with pytest.raises(BadPrompt, match="image longer than 10 tokens"):
        renderer.render(document("a <image>", png(280, 28)))
    with pytest.raises(BadImage):
        renderer.render(document("a <image>", b"no picture"))
    with pytest.raises(BadPrompt, match="document without text"):
        renderer.render(document(" <image> ", png()))


def test_perplexity_is_that_of_the_models_own_forward_pass(folder, processor):
    renderer = DocumentRenderer(processor, max_tokens=60)
    documents = [document("a panda <image> 熊猫", png()), document("panda"), document("熊猫 a <image>b", png(28, 28))]
    parts = [part for item in documents for part in renderer.render(item)]
    model, total, count = load_model(folder), 0.0, 0
    for part in parts:
        ids, images = torch.tensor(read(part))[None], {}
        if len(part.prompt.pixel_values):
            images["pixel_values"] = torch.from_numpy(part.prompt.pixel_values)
            images["image_grid_hws"] = torch.from_numpy(part.prompt.image_grid_hws)
        with torch.no_grad():
            logprobs = model(input_ids=ids, **images).logits[0].log_softmax(-1)
        for place, (token, counts) in enumerate(zip(part.token_ids, part.trainable, strict=True)):
            total -= float(logprobs[place, token]) * counts
            count += int(counts)
    found = perplexities(load_model(folder), parts, budget=50)
    assert found == {"made": pytest.approx(math.exp(total / count), rel=1e-5)}
