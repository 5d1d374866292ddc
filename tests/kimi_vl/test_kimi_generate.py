"""Several sequences or beams for a batch of rows with unlike images: each row keeps its own images."""

import pytest
import torch
from kimi_helpers import picture

ROWS = [["red", "blue"], [], ["green"]]
SIZES = {"red": (84, 56), "blue": (56, 56), "green": (140, 28)}


@pytest.fixture(scope="module")
def inputs(processor):
    texts, images = [], []
    for row in ROWS:
        content = [{"type": "image"} for _ in row] + [{"type": "text", "text": "1 + 2"}]
        messages = [{"role": "user", "content": content}]
        texts.append(processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False))
        images.append([picture(*SIZES[name], seed=number) for number, name in enumerate(row)])
    return texts, images


def encode(processor, texts, images):
    return processor(text=texts, images=images, padding=True, return_tensors="pt")


@pytest.mark.parametrize("options", [{"num_return_sequences": 3, "num_beams": 3}, {"num_beams": 3}])
def test_rows_with_beams_are_those_of_one_row_at_a_time(model, processor, inputs, options):
    options |= {"max_new_tokens": 4, "do_sample": False, "return_dict_in_generate": True, "output_scores": True}
    count = options.get("num_return_sequences", 1)
    together = model.generate(**encode(processor, *inputs), **options)
    for row, (text, images) in enumerate(zip(*inputs, strict=True)):
        alone = model.generate(**encode(processor, [text], [images] if images else None), **options)
        mine = slice(row * count, (row + 1) * count)
        assert torch.allclose(together.sequences_scores[mine], alone.sequences_scores, atol=1e-4)
        assert together.sequences[mine, -4:].tolist() == alone.sequences[:, -4:].tolist()


def test_every_sequence_of_a_row_starts_from_the_same_images(model, processor, inputs):
    given = encode(processor, *inputs)
    one = model.generate(**given, max_new_tokens=1, do_sample=False, return_dict_in_generate=True, output_logits=True)
    options = {"do_sample": True, "return_dict_in_generate": True, "output_logits": True}
    three = model.generate(**given, max_new_tokens=1, num_return_sequences=3, **options)
    assert torch.allclose(three.logits[0], one.logits[0].repeat_interleave(3, 0), atol=1e-4)
