"""Leaks and repetitions, found in re-encoded images and reworded questions, and not found where there are none."""

import io
import itertools

import pytest
from PIL import Image, ImageDraw

from configs.data import SourceConfig
from rewards.images import BadImage
from rewards.types import Task
from rl.curation.duplicates import LEAKED_IMAGE, LEAKED_TEXT, REPEATED, EvaluationIndex, SeenTasks, prints_of
from rl.curation.image_prints import ImageIndex, image_print
from rl.curation.text_prints import TextIndex, units
from rollouts.tasks.source import build_source

LONG = "A train leaves the station at nine and travels for {} hours at sixty kilometres an hour; how far does it go?"


def picture(shape="ellipse", colour="red", *, at=10, size=(120, 80), back="white"):
    image = Image.new("RGB", size, back)
    getattr(ImageDraw.Draw(image), shape)((at, 12, at + 40, 60), fill=colour)
    return image


def encoded(image, kind="PNG", scale=1.0, **options):
    buffer = io.BytesIO()
    image.resize((round(image.width * scale), round(image.height * scale))).save(buffer, kind, **options)
    return buffer.getvalue()


def task(name, question="What is shown?", answer="1", images=()):
    return Task(id=name, source="s", question=question, answer=answer, images=tuple(images))


def alike(one, other):
    index = ImageIndex()
    index.add(image_print(one), "one")
    return index.find(image_print(other)) == ["one"]


@pytest.mark.parametrize(
    ("kind", "scale", "options"),
    [
        ("JPEG", 1, {"quality": 40}),
        ("JPEG", 0.5, {"quality": 75}),
        ("WEBP", 2, {"quality": 60}),
        ("GIF", 1.3, {}),
        ("BMP", 1, {}),
        ("TIFF", 0.75, {}),
    ],
)
def test_an_image_is_found_after_re_encoding_and_resizing(kind, scale, options):
    assert alike(encoded(picture()), encoded(picture(), kind, scale, **options))


def test_metadata_and_transparency_make_no_other_image():
    clear = Image.new("RGBA", (120, 80), (0, 0, 0, 0))
    ImageDraw.Draw(clear).ellipse((10, 12, 50, 60), fill="red")
    assert alike(encoded(picture()), encoded(clear))
    turned = picture().rotate(90, expand=True)
    exif = turned.getexif()
    exif[0x0112] = 6  # shown turned by a quarter clockwise
    assert alike(encoded(picture()), encoded(turned, "JPEG", exif=exif))


@pytest.mark.parametrize(
    "other",
    [picture(colour="blue"), picture("rectangle"), picture(at=40), picture(back="black"), Image.new("RGB", (120, 80))],
    ids=["colour", "shape", "place", "background", "blank"],
)
def test_another_picture_is_another_image(other):
    assert not alike(encoded(picture()), encoded(other))


@pytest.mark.parametrize("use", ["digit_sums", "easy_vqa"])
def test_images_of_built_in_tasks_do_not_look_alike(use, tmp_path):
    source = build_source(SourceConfig(use=use), base=tmp_path)
    images = dict.fromkeys(source.task(i * 37, 0).images[0] for i in range(120))
    prints = [image_print(image) for image in images]
    index = ImageIndex()
    for number, found in enumerate(prints):
        index.add(found, str(number))
    assert [index.find(found) for found in prints] == [[str(i)] for i in range(len(prints))]


def test_an_index_grows_past_its_first_room():
    index, found = ImageIndex(), image_print(encoded(picture()))
    for number in range(600):
        index.add(found, str(number))
    assert len(index) == 600
    assert index.find(found) == [str(number) for number in range(600)]


@pytest.mark.parametrize("data", [b"", b"no image", encoded(picture())[:60]])
def test_a_broken_image_has_no_print(data):
    with pytest.raises(BadImage):
        image_print(data)


def test_words_numbers_and_operators_are_compared():
    assert units("What IS 3+4, ｘ?") == ("what", "is", "3", "+", "4", "x")
    assert units("图中有 3 只猫。") == ("图", "中", "有", "3", "只", "猫")
    assert units("3-4") != units("3+4")
    assert units("<image>\nWhat is shown in <image>?") == ("what", "is", "shown", "in")


class TestText:
    def test_a_long_question_overlaps_by_13_words(self):
        index = TextIndex()
        index.add(LONG.format(7), "eval")
        assert index.overlapping(f"Think! {LONG.format(7).upper()} Give kilometres.") == "eval"
        words = LONG.format(7).split()
        assert index.overlapping(" ".join(words[:13])) == "eval"
        assert index.overlapping(" ".join(words[:12])) is None

    def test_a_question_of_8_words_is_found_whole(self):
        index = TextIndex()
        index.add("How many red apples are on the table?", "eval")
        assert index.overlapping("Look: how many red apples are on the table, please") == "eval"
        assert index.overlapping("How many red apples are on the tray?") is None

    def test_a_shorter_question_must_be_equal(self):
        index = TextIndex()
        index.add("What is 3+4?", "eval")
        assert index.overlapping("So what is 3+4*5 in the end?") is None
        assert (index.equal("what is 3 + 4"), index.equal("What is 3-4?")) == ("eval", None)

    def test_the_wording_of_a_template_proves_nothing(self):
        index = TextIndex()
        for hours in range(1, 5):
            index.add(LONG.format(hours), f"eval/{hours}")
        assert index.overlapping(LONG.format(9)) is None
        assert index.overlapping(LONG.format(2)) == "eval/2"


class TestEvaluation:
    def find(self, evaluation, wanted):
        index = EvaluationIndex()
        for known in evaluation:
            index.add(known)
        return index.find(wanted, prints_of(wanted))

    def test_an_image_leaks_whatever_is_asked(self):
        leak = task("a", "How many?", images=[encoded(picture(), "JPEG", 0.8)])
        found = self.find([task("e0"), task("e1", images=[encoded(picture())])], leak)
        assert (found.reason, found.like) == (LEAKED_IMAGE, "e1")

    def test_a_short_question_about_another_image_is_no_leak(self):
        other = task("a", images=[encoded(picture(colour="blue"))])
        assert self.find([task("e", images=[encoded(picture())])], other) is None

    def test_a_long_question_about_another_image_is_one(self):
        other = task("a", LONG.format(3), images=[encoded(picture(colour="blue"))])
        found = self.find([task("e", LONG.format(3), images=[encoded(picture())])], other)
        assert (found.reason, found.like) == (LEAKED_TEXT, "e")

    def test_a_long_question_about_many_images_is_a_template(self):
        evaluation = [task(f"e{at}", LONG.format(3), images=[encoded(picture(at=at))]) for at in (0, 20, 40, 60)]
        other = task("a", LONG.format(3), images=[encoded(picture("rectangle", "green", at=70))])
        assert self.find(evaluation, other) is None

    def test_text_alone_leaks_where_it_is_equal(self):
        found = self.find([task("e", "7 * 8 = ?")], task("a", "7*8=?"))
        assert (found.reason, found.like) == (LEAKED_TEXT, "e")

    def test_a_broken_evaluation_image_is_passed_over(self):
        assert self.find([task("e", images=[b"broken"])], task("a", images=[encoded(picture())])) is None


class TestSeen:
    def find_all(self, tasks):
        seen = SeenTasks()
        return [(found.reason, found.like) if (found := seen.find(t, prints_of(t))) else None for t in tasks]

    def test_words_reference_and_images_must_be_the_same(self):
        red, blue = encoded(picture()), encoded(picture(colour="blue"))
        tasks = [
            task("a", images=[red]),
            task("b", "what is shown", images=[encoded(picture(), "JPEG", 0.7)]),
            task("c", images=[blue]),
            task("d", answer="2", images=[red]),
            task("e", "What is hidden?", images=[red]),
            task("f", images=[red, blue]),
            task("g", images=[blue, red]),
            task("h", images=[red, blue]),
            task("i"),
            task("j", "What is shown"),
        ]
        expected = {"b": "a", "h": "f", "j": "i"}
        names = [t.id for t in tasks]
        found = dict(zip(names, self.find_all(tasks), strict=True))
        assert found == {name: (REPEATED, expected[name]) if name in expected else None for name in names}

    def test_the_first_of_many_stays(self):
        found = self.find_all([task(name, images=[encoded(picture())]) for name in "abc"])
        assert list(itertools.compress("abc", [row is None for row in found])) == ["a"]
