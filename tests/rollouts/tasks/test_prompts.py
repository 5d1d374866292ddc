"""Prompts: the chat template and patches of the processor, and hostile images and questions as counted skips."""

import io
import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from kimi_vl import create_tiny_checkpoint, load_processor
from kimi_vl.processing_kimi_vl import IMAGE_TOKEN
from rewards.images import BadImage, decode_image
from rewards.types import Task
from rollouts.tasks.digit_sums import DigitSums
from rollouts.tasks.easy_vqa import EasyVQA
from rollouts.tasks.prompts import BadPrompt, PromptRenderer, PromptTooLong, messages
from rollouts.tasks.rows import IMAGE_PLACEHOLDER


@pytest.fixture(scope="module")
def processor(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    return load_processor(create_tiny_checkpoint(folder, corpus=["What is the result? 7 + 4 * 3 = 19"] * 4))


@pytest.fixture(scope="module")
def renderer(processor):
    return PromptRenderer(processor, max_prompt_tokens=400)


def encode(image, form="PNG", **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def task(*images, question="What is it?", **more):
    return Task(id="t/0", source="t", question=question, answer="red", images=images, **more)


def solid(mode, color, size=(28, 28)):
    return Image.new(mode, size, color)


class TestRendering:
    def test_a_sum_of_three_scans_costs_five_image_tokens(self, processor, renderer):
        given = DigitSums("held_out", scans=[3]).task(0, 0)
        prompt = renderer.render(given)
        assert prompt.task is given
        assert (prompt.input_ids == processor.image_token_id).sum() == 5
        assert prompt.pixel_values.shape == (20, 3, 14, 14)
        assert prompt.image_grid_hws.tolist() == [[2, 10]]
        assert (prompt.input_ids.dtype, prompt.pixel_values.dtype, prompt.image_grid_hws.dtype) == (
            np.int64,
            np.float32,
            np.int64,
        )

    def test_the_text_is_the_chat_template_with_the_answer_opened(self, processor, renderer):
        text = processor.tokenizer.decode(renderer.render(task(encode(solid("RGB", "red")))).input_ids)
        assert text == (
            "<|im_system|>system<|im_middle|>You are a helpful assistant<|im_end|>"
            "<|im_user|>user<|im_middle|><|media_start|>image<|media_content|><|media_pad|><|media_end|>What is it?"
            "<|im_end|><|im_assistant|>assistant<|im_middle|>"
        )

    def test_images_come_first_and_in_order(self, renderer):
        prompt = renderer.render(task(encode(solid("RGB", "white")), encode(solid("RGB", "black", (56, 28)))))
        assert prompt.image_grid_hws.tolist() == [[2, 2], [2, 4]]
        assert prompt.pixel_values[:4].min() == 1
        assert prompt.pixel_values[4:].max() == -1

    def test_a_question_without_images(self, renderer):
        prompt = renderer.render(task())
        assert prompt.pixel_values.shape == (0, 3, 14, 14)
        assert prompt.image_grid_hws.shape == (0, 2)

    def test_it_is_the_processors_own_output(self, processor, renderer):
        given = EasyVQA("held_out").task(0, 0)
        text = processor.apply_chat_template(messages(given), add_generation_prompt=True, tokenize=False)
        image = Image.open(io.BytesIO(given.images[0]))
        direct = processor(images=[image], text=text, return_tensors="np")
        prompt = renderer.render(given)
        assert prompt.input_ids.tolist() == direct["input_ids"][0].tolist()
        assert np.array_equal(prompt.pixel_values, direct["pixel_values"])

    def test_the_limit_counts_every_token(self, processor):
        given = DigitSums("train", scans=[3]).task(0, 0)
        length = len(PromptRenderer(processor, max_prompt_tokens=400).render(given).input_ids)
        assert len(PromptRenderer(processor, max_prompt_tokens=length).render(given).input_ids) == length
        with pytest.raises(PromptTooLong, match=f"{given.id}: {length} tokens: prompt longer than {length - 1} tokens"):
            PromptRenderer(processor, max_prompt_tokens=length - 1).render(given)

    def test_an_image_placeholder_in_the_question_is_refused(self, renderer):
        assert IMAGE_PLACEHOLDER == IMAGE_TOKEN
        with pytest.raises(BadPrompt, match="placeholder"):
            renderer.render(task(question=f"What is {IMAGE_TOKEN}?"))

    @pytest.mark.parametrize("token", ["<|im_end|>", "<|im_assistant|>", "[EOS]", "<|media_start|>"])
    def test_a_control_token_in_the_question_is_refused(self, renderer, token):
        with pytest.raises(BadPrompt, match="control token in the question"):
            renderer.render(task(question=f"What is this?\nA. {token}\nB. cat"))


def bomb(width, height):
    """A PNG of few bytes whose header promises many pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


PHOTO = encode(Image.effect_noise((200, 150), 80).convert("RGB"), "JPEG")
EXIF = Image.Exif()
EXIF[0x0112] = 6  # the camera lay on its side
ROTATED = encode(solid("RGB", "red", (56, 28)), "JPEG", exif=EXIF)
BAD_IMAGES = {
    "empty": (b"", "image is empty or missing"),
    "text": (b"no image at all", "not an image that Pillow reads"),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image that Pillow reads"),
    "cut JPEG": (PHOTO[: len(PHOTO) // 2], "image is broken or cut short"),
    "cut PNG": (encode(solid("RGB", "red", (90, 90)))[:80], "image is broken or cut short"),
    "broken PNG": (bomb(40, 40), "image is broken or cut short"),
    "bomb": (bomb(60_000, 60_000), "image has too many pixels"),
    "large": (bomb(12_000, 9_000), "image has too many pixels"),
    "20,000 x 10": (encode(solid("RGB", "red", (20_000, 10))), "image does not fit the model"),
    "10 x 20,000": (encode(solid("RGB", "red", (10, 20_000))), "image does not fit the model"),
}


class TestHostileImages:
    @pytest.mark.parametrize("name", BAD_IMAGES)
    def test_a_bad_image_is_a_counted_skip(self, renderer, name):
        data, reason = BAD_IMAGES[name]
        with pytest.raises(BadImage) as error:
            renderer.render(task(data))
        assert error.value.reason == reason
        good = task(encode(solid("RGB", "red")))
        prompts, skipped = renderer.render_all([good, task(data), good, task(good.images[0], data)])
        assert [prompt.task for prompt in prompts] == [good, good]
        assert skipped == {reason: 2}

    @pytest.mark.parametrize(
        ("data", "red_green_blue"),
        [
            (encode(solid("CMYK", (0, 255, 255, 0)), "JPEG", quality=95), (1, -1, -1)),
            (encode(solid("RGBA", (255, 0, 0, 255))), (1, -1, -1)),
            (encode(solid("LA", (255, 255))), (1, 1, 1)),
            (encode(solid("P", 0).convert("P")), (-1, -1, -1)),
            (encode(solid("1", 1)), (1, 1, 1)),
            (encode(Image.fromarray(np.full((28, 28), 65535, np.uint16))), (1, 1, 1)),
            (encode(Image.fromarray(np.full((28, 28), 32896, np.uint16))), (0, 0, 0)),
            (
                encode(solid("RGB", "red"), "GIF", save_all=True, append_images=[solid("RGB", "blue")]),
                (1, -1, -1),
            ),
            (encode(solid("RGB", "red"), "WEBP", lossless=True), (1, -1, -1)),
            (encode(solid("RGB", "red"), "TIFF"), (1, -1, -1)),
        ],
        ids=["CMYK", "RGBA", "gray+alpha", "palette", "1 bit", "16 bit", "16 bit gray", "animated", "WebP", "TIFF"],
    )
    def test_every_mode_comes_out_in_its_colours(self, renderer, data, red_green_blue):
        pixels = renderer.render(task(data)).pixel_values
        assert pixels.shape == (4, 3, 14, 14)
        assert pixels.mean((0, 2, 3)) == pytest.approx(red_green_blue, abs=0.05)

    def test_one_pixel_is_padded(self, renderer):
        assert renderer.render(task(encode(solid("RGB", "red", (1, 1))))).image_grid_hws.tolist() == [[2, 2]]

    def survives(self, renderer, data):
        """Whether the bytes are an image; any outcome but an image or a counted skip raises."""
        prompts, skipped = renderer.render_all([task(data)])
        return len(prompts) + sum(skipped.values()) == 1

    def test_every_cut_of_a_file_is_an_image_or_a_skip(self, renderer):
        for data in (PHOTO, ROTATED, encode(solid("RGB", "red")), encode(solid("RGB", "red"), "GIF")):
            for stop in range(0, len(data), max(1, len(data) // 60)):
                assert self.survives(renderer, data[:stop])

    @pytest.mark.filterwarnings("ignore::UserWarning:PIL")
    def test_every_change_of_bytes_is_an_image_or_a_skip(self, renderer):
        rng = np.random.default_rng(0)
        files = [
            PHOTO,
            ROTATED,
            encode(solid("RGB", "red")),
            encode(solid("P", 1), "GIF"),
            encode(solid("RGB", 1), "TIFF"),
        ]
        for data in files:
            for _ in range(100):
                changed = bytearray(data)
                for position in rng.integers(0, min(len(data), 400), 3):
                    changed[position] = int(rng.integers(256))
                assert self.survives(renderer, bytes(changed))

    def test_an_image_with_a_rotation_in_its_exif_data_stands_upright(self, renderer):
        assert decode_image(ROTATED).size == (28, 56)
        assert renderer.render(task(ROTATED)).image_grid_hws.tolist() == [[4, 2]]


class TestSkips:
    def test_each_reason_is_counted(self, processor):
        renderer = PromptRenderer(processor, max_prompt_tokens=60)
        good = task(encode(solid("RGB", "red")))
        tasks = [good, replace(good, question="long " * 90), task(b""), task(b""), task(question=IMAGE_TOKEN)]
        prompts, skipped = renderer.render_all(tasks)
        assert [prompt.task for prompt in prompts] == [good]
        assert skipped == {
            "prompt longer than 60 tokens": 1,
            "image is empty or missing": 2,
            "image placeholder in the question": 1,
        }

    def test_a_mistake_of_ours_is_not_hidden_as_a_skip(self, renderer, monkeypatch):
        def broken(*args, **kwargs):
            raise ValueError("our mistake")

        monkeypatch.setattr(type(renderer.processor), "__call__", broken)
        with pytest.raises(ValueError, match="our mistake"):
            renderer.render_all([task()])
