"""What a reader sees while tokens come, and `thinkvl chat` on a tiny model."""

import io
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_vl import load_model, load_processor
from rl.cli.chat_text import AnswerPrinter, TextStream, ThinkingSplitter
from rl.run.console import PlainConsole

MARKS = ("◁think▷", "◁/think▷", "<think>", "</think>")


def split(pieces):
    """Thinking and answer of streamed pieces, each joined."""
    splitter = ThinkingSplitter()
    found = [part for piece in pieces for part in splitter.feed(piece)] + list(splitter.finish())
    return "".join(t for thinking, t in found if thinking), "".join(t for thinking, t in found if not thinking)


def shown(pieces, **options):
    file = io.StringIO()
    printer = AnswerPrinter(PlainConsole(file=file, width=20, **options))
    for piece in pieces:
        printer.feed(piece)
    printer.close()
    return file.getvalue()


class TestThinkingSplitter:
    def test_marks_may_come_in_pieces(self):
        assert split(["◁thi", "nk▷ 7 +", " 4◁", "/think▷", "11"]) == (" 7 + 4", "11")

    def test_what_only_looks_like_a_mark_is_text(self):
        assert split(["a ◁th", "is ◁", "b"]) == ("", "a ◁this ◁b")
        assert split(["◁think▷ 1 <", " 2 ◁/thin"]) == (" 1 < 2 ◁/thin", "")

    def test_what_is_certain_does_not_wait(self):
        splitter = ThinkingSplitter()
        assert list(splitter.feed("seven ◁")) == [(False, "seven ")]
        assert list(splitter.feed("think▷so")) == [(True, "so")]

    @given(st.lists(st.sampled_from([*MARKS, "a", "◁", "think", "▷", "/", "<", "\n", "é"])), st.randoms())
    def test_the_pieces_do_not_matter(self, words, rng):
        text = "".join(words)
        cuts = sorted(rng.randrange(len(text) + 1) for _ in range(6))
        pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        assert split(pieces) == split([text])

    @given(st.lists(st.sampled_from([*MARKS, "a", "b c", "◁"])))
    def test_nothing_but_marks_is_lost(self, words):
        thinking, answer = split(["".join(words)])
        left = "".join(words)
        for mark in MARKS:
            left = left.replace(mark, "")
        kept = thinking + answer
        for mark in MARKS:  # an opening mark inside thinking is text
            kept = kept.replace(mark, "")
        assert sorted(kept) == sorted(left)


class TestTextStream:
    @pytest.mark.parametrize("text", ["7 + 4 = 11", "思考 → é 🙂 done", "ends open 🙂", ""])
    def test_the_sum_of_the_pieces_is_the_text(self, tiny_checkpoint, text):
        tokenizer = load_processor(tiny_checkpoint).tokenizer
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        stream = TextStream(tokenizer.decode)
        pieces = [stream.add(i) for i in ids]
        assert "".join([*pieces, stream.finish()]) == text
        assert not any("�" in piece for piece in pieces)

    def test_any_tokens_at_all(self, tiny_checkpoint):
        tokenizer = load_processor(tiny_checkpoint).tokenizer
        rng = random.Random(1)
        for _ in range(50):
            ids = [rng.randrange(256) for _ in range(20)]
            stream = TextStream(tokenizer.decode)
            assert "".join([*(stream.add(i) for i in ids), stream.finish()]) == tokenizer.decode(ids)


class TestAnswerPrinter:
    def test_plain_where_there_is_no_terminal(self):
        assert shown(["◁think▷", "7 + 4", "\n= 11", "◁/think▷", "\n11"]) == "7 + 4\n= 11\n\n11\n"

    def test_thinking_is_dimmed_on_a_terminal(self):
        text = shown(["◁think▷hm◁/think▷11"], force_terminal=True, color_system="standard")
        assert text == "\x1b[2mhm\x1b[0m\n\n11\n"

    def test_long_lines_are_not_broken_and_markup_is_text(self):
        long = "[bold]" + "x" * 50
        assert shown([long]) == long + "\n"

    def test_an_answer_cannot_drive_the_terminal(self):
        assert "\x1b" not in shown(["a\x1b]0;title\x07b\x1b[2Jc\rd"])


class TestCommand:
    def test_one_question_about_two_pictures(self, thinkvl, run_folder, picture):
        arguments = ["chat", run_folder, "--image", picture, "--image", picture, "--question", "What is the result?"]
        code, output, _ = thinkvl(*arguments, "--max-new-tokens", 8)
        assert code == 0
        assert output.splitlines()[-1].startswith(("8 tokens in", "1 token ", "2 tokens", "3 tokens"))
        assert thinkvl(*arguments, "--max-new-tokens", 8)[1].splitlines()[:-1] == output.splitlines()[:-1]

    def test_the_text_is_what_the_model_generates(self, thinkvl, run_folder):
        import torch

        code, output, _ = thinkvl("chat", run_folder, "--question", "What is 7 + 4?", "--max-new-tokens", 12)
        model, processor = load_model(run_folder / "rl" / "model"), load_processor(run_folder / "rl" / "model")
        message = [{"role": "user", "content": [{"type": "text", "text": "What is 7 + 4?"}]}]
        inputs = processor(text=processor.apply_chat_template(message, add_generation_prompt=True), return_tensors="pt")
        first = model(**inputs).logits[0, -1]
        size = len(processor.tokenizer)
        stops = model.generation_config.eos_token_id
        first[[i for i in range(size - 256, size) if i not in stops]] = -torch.inf
        word = processor.tokenizer.decode([int(first.argmax())], skip_special_tokens=True).strip()
        assert code == 0
        assert output.lstrip().startswith(word) or "�" in word

    def test_lines_of_questions(self, thinkvl, run_folder, picture, monkeypatch):
        monkeypatch.setattr("sys.stdin", io.StringIO("What?\n\nWhy?\n"))
        code, output, _ = thinkvl("chat", run_folder, "--image", picture, "--max-new-tokens", 3, "--temperature", 1)
        assert code == 0
        assert output.count(" tokens in ") == 2

    @pytest.mark.parametrize(
        ("data", "message"),
        [(None, "cannot be read (No such file"), (b"", "image is empty"), (b"no picture", "not an image that Pillow")],
    )
    def test_bad_pictures(self, thinkvl, run_folder, tmp_path, data, message):
        path = tmp_path / "bad.png"
        if data is not None:
            path.write_bytes(data)
        code, _, text = thinkvl("chat", run_folder, "--image", path, "--question", "?")
        assert (code, message in text, "Traceback" in text) == (1, True, False)
        assert text.startswith(f"error: --image {path}: ")

    def test_a_picture_cut_short(self, thinkvl, run_folder, picture):
        from PIL import Image

        Image.effect_noise((90, 90), 60).save(picture)
        picture.write_bytes(picture.read_bytes()[:2000])
        code, _, text = thinkvl("chat", run_folder, "--image", picture, "--question", "?")
        assert code == 1
        assert "broken or cut short" in text

    def test_no_model_and_no_room(self, thinkvl, run_folder):
        code, _, text = thinkvl("chat", "runs/tinny", "--question", "?")
        assert code == 1
        assert "did you mean runs/tiny?" in text
        assert "room for 512 tokens" in thinkvl("chat", run_folder, "--question", "?", "--max-new-tokens", 600)[2]
        code, _, text = thinkvl("chat", run_folder, "--question", "long " * 600, "--max-new-tokens", 100)
        assert code == 1
        assert "longer than 412 tokens" in text

    def test_without_a_limit_the_answer_fills_the_room(self, thinkvl, run_folder):
        note = thinkvl("chat", run_folder, "--question", "What is 7 + 4?")[1].splitlines()[-1]
        assert "the model has room for 512" in note or int(note.split()[0]) < 512

    def test_a_question_with_an_image_placeholder(self, thinkvl, run_folder):
        code, _, text = thinkvl("chat", run_folder, "--question", "<|media_pad|>?")
        assert code == 1
        assert "image placeholder in the question" in text


def test_a_temperature_that_nothing_can_be_drawn_at(thinkvl, tiny_checkpoint):
    code, _, text = thinkvl("chat", tiny_checkpoint, "--question", "What?", "--temperature", "1e-38")
    assert code == 1
    assert "--temperature = 1e-38: must be 0 (greedy), or 0.01 or more" in text
