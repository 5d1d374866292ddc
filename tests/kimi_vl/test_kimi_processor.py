"""Text and images together: the chat template to the letter, one placeholder per image token, errors that help."""

import pytest
from kimi_helpers import picture

from kimi_vl import KimiVLProcessor

SYSTEM = "<|im_system|>system<|im_middle|>You are a helpful assistant<|im_end|>"
IMAGE = "<|media_start|>image<|media_content|><|media_pad|><|media_end|>"
ASK = "<|im_assistant|>assistant<|im_middle|>"

TEMPLATES = [
    ([{"role": "user", "content": "Hi"}], f"{SYSTEM}<|im_user|>user<|im_middle|>Hi<|im_end|>"),
    (
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
        "<|im_system|>system<|im_middle|>Be brief.<|im_end|><|im_user|>user<|im_middle|>Hi<|im_end|>",
    ),
    (
        [
            {"role": "user", "content": [{"type": "image", "image": "a.png"}, {"type": "text", "text": "What?\n\n"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "◁think▷A cat.◁/think▷ Cat"}]},
            {"role": "user", "content": [{"type": "text", "text": "And "}, {"type": "image_url", "image_url": "b"}]},
        ],
        f"{SYSTEM}<|im_user|>user<|im_middle|>{IMAGE}What?\n\n<|im_end|>"
        "<|im_assistant|>assistant<|im_middle|>◁think▷A cat.◁/think▷ Cat<|im_end|>"
        f"<|im_user|>user<|im_middle|>And {IMAGE}<|im_end|>",
    ),
    (
        [{"role": "user", "content": " {{ x }} {% if y %} "}, {"role": "system", "content": "later"}],
        f"{SYSTEM}<|im_user|>user<|im_middle|> {{{{ x }}}} {{% if y %}} <|im_end|>"
        "<|im_system|>system<|im_middle|>later<|im_end|>",
    ),
]


@pytest.mark.parametrize(("messages", "wanted"), TEMPLATES)
def test_chat_template_to_the_letter(processor, messages, wanted):
    assert processor.apply_chat_template(messages) == wanted
    assert processor.apply_chat_template(messages, add_generation_prompt=True) == wanted + ASK
    assert processor.tokenizer.apply_chat_template(messages, tokenize=False) == wanted


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([{"role": "tool", "content": "x"}], "unknown role tool"),
        ([{"role": "user", "content": [{"type": "audio"}]}], "unknown content type audio"),
    ],
)
def test_chat_template_refuses_what_kimi_vl_does_not_know(processor, messages, message):
    with pytest.raises(Exception, match=message):
        processor.apply_chat_template(messages)


def ids_of(processor, text):
    return processor.tokenizer(text)["input_ids"]


def test_each_placeholder_becomes_the_images_tokens_in_order(processor):
    first, second = picture(90, 40), picture(28, 28)  # 4 x 8 and 2 x 2 patches: 8 tokens and 1
    out = processor(images=[first, second], text="a<|media_pad|>b<|media_pad|>c")
    pad = processor.image_token_id
    wanted = [*ids_of(processor, "a"), *[pad] * 8, *ids_of(processor, "b"), pad, *ids_of(processor, "c")]
    assert out["input_ids"] == [wanted]
    assert out["attention_mask"] == [[1] * len(wanted)]
    assert out["image_grid_hws"].tolist() == [[4, 8], [2, 2]]
    assert out["pixel_values"].shape == (36, 3, 14, 14)


def test_rows_are_padded_on_the_left_unless_asked(processor):
    texts = ["one", "one two three four"]
    left = processor(text=texts, padding=True, return_tensors="pt")
    right = processor(text=texts, padding=True, padding_side="right", return_tensors="pt")
    assert left["attention_mask"][0].tolist() == sorted(left["attention_mask"][0].tolist())
    assert right["attention_mask"][0].tolist() == left["attention_mask"][0].tolist()[::-1]
    assert left["input_ids"][0, 0] == processor.tokenizer.pad_token_id
    assert 0 in left["attention_mask"][0]
    assert set(left) == {"input_ids", "attention_mask"}


def test_text_alone_and_images_alone(processor):
    assert processor(text="Hi")["input_ids"] == [ids_of(processor, "Hi")]
    assert processor(images=picture(28, 28))["image_grid_hws"].tolist() == [[2, 2]]
    assert processor(images=[[], []], text=["a", "b"])["input_ids"] == [ids_of(processor, "a"), ids_of(processor, "b")]
    with pytest.raises(ValueError, match="nothing to process"):
        processor()
    with pytest.raises(ValueError, match="takes no videos: pass the frames"):
        processor(text="a", videos=[1])


@pytest.mark.parametrize(
    ("images", "text", "message"),
    [
        (1, "no place", "the text holds 0 image placeholders .* but 1 images"),
        (0, "<|media_pad|>", "the text holds 1 image placeholders .* but 0 images"),
        (2, "<|media_pad|>", "the text holds 1 .* but 2 images"),
        ([1, 1], ["<|media_pad|><|media_pad|>", ""], "text 0 holds 2 .* but 1 images"),
        ([1], ["<|media_pad|>", ""], "2 texts but 1 lists of images"),
    ],
)
def test_images_and_placeholders_that_differ_are_an_error(processor, images, text, message):
    if isinstance(images, list):
        images = [[picture(28, 28)] * count for count in images]
    else:
        images = [picture(28, 28)] * images or None
    with pytest.raises(ValueError, match=message):
        processor(images=images, text=text)


def test_a_cut_through_an_image_is_an_error(processor):
    with pytest.raises(ValueError, match=r"truncation left 5 of 8 image tokens: raise max_length"):
        processor(images=picture(90, 40), text="<|media_pad|>", truncation=True, max_length=5)
    out = processor(images=picture(90, 40), text="<|media_pad|>abcdef", truncation=True, max_length=9)
    assert len(out["input_ids"][0]) == 9


def test_templates_with_images_tokenize_in_one_go(processor, tmp_path):
    picture(90, 40).save(tmp_path / "a.png")
    content = [{"type": "image", "image": str(tmp_path / "a.png")}, {"type": "text", "text": "What?"}]
    messages = [{"role": "user", "content": content}]
    at_once = processor.apply_chat_template(
        messages, tokenize=True, add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )
    text = processor.apply_chat_template(messages, add_generation_prompt=True)
    apart = processor(images=picture(90, 40), text=text, return_tensors="pt")
    assert at_once.keys() == apart.keys()
    assert all((at_once[key] == apart[key]).all() for key in apart)


def test_the_files_are_the_hubs(processor, tmp_path):
    processor.save_pretrained(tmp_path)
    names = {
        "chat_template.jinja",
        "preprocessor_config.json",
        "tiktoken.model",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert {path.name for path in tmp_path.iterdir()} == names
    again = KimiVLProcessor.from_pretrained(tmp_path)
    text = again.apply_chat_template(TEMPLATES[2][0])
    assert text == TEMPLATES[2][1]
    images = [picture(60, 90), picture(20, 20)]
    wanted = processor(images=images, text=text)
    out = again(images=images, text=text)
    assert out["input_ids"] == wanted["input_ids"]
    assert (out["pixel_values"] == wanted["pixel_values"]).all()
