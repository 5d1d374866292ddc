"""Boxes and points: formats, units, several of them, and numbers worked out by hand."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from rewards.types import Task, VerdictKind
from rewards.verifiers.geometry import Region, agreement, iou, matches, point_fits, read_regions
from rewards.verifiers.regions import BoxVerifier, PointVerifier

C, W, N, B = VerdictKind.CORRECT, VerdictKind.WRONG, VerdictKind.NO_ANSWER, VerdictKind.BAD_REFERENCE
GOLD = "[10, 20, 110, 70]"


def picture(width=200, height=100):
    file = io.BytesIO()
    Image.new("RGB", (width, height)).save(file, "PNG")
    return file.getvalue()


def judge(verifier, response, gold=GOLD, images=None):
    images = (picture(),) if images is None else images
    return verifier(response, gold, task=Task(id="t", source="unit", question="", answer=gold, images=images))


@pytest.mark.parametrize(
    "response",
    [
        GOLD, "\\boxed{[10,20,110,70]}", "(10,20),(110,70)", "<box>(10,20),(110,70)</box>", "<box>10 20 110 70</box>",
        "<|box_start|>(10,20),(110,70)<|box_end|>", '{"bbox_2d": [10,20,110,70]}', "10 20 110 70",
        '```json\n[\n {"bbox_2d": [12, 20, 110, 70], "label": "cat"}\n]\n```', "[0.05, 0.2, 0.55, 0.7]",
        "The box is [10, 20, 110, 70].", "<answer>[10.0, 20.0, 110.0, 70.0]</answer>", "[[10, 20, 110, 70]]",
        "◁think▷ [0, 0, 1, 1] ◁/think▷ [10, 20, 110, 70]",
    ],
)  # fmt: skip
def test_formats(response):
    assert judge(BoxVerifier(), response).kind is C


@pytest.mark.parametrize(
    ("response", "kind"),
    [
        ("[0, 0, 200, 100]", W), ("[10, 20, 110, 70], [0, 0, 9, 9]", W), ("[10,20,110,70] or [0,0,1,1]", W),
        ("The box is [10,20,110,70] or so", N), ("[110, 70, 10, 20]", N), ("(10, 20)", N), ("10", N), ("", N),
        ("{}", N),
        ("[10, 20, 110]", N), ("[1e9, 20, 110, 70]", N), ("[NaN, 0, 1, 1]", N), ('{"bbox_2d": [true, 0, 1, 1]}', N),
        ('{"bbox_2d": [10,20,110,70], "box": [1,2,3,4]}', N), ('{"box_2d": [20,10,70,110]}', N), ("[" * 50_000, N),
        ("(10,20)," * 20_000, N), ("<box>" * 20_000, N), ("[10,20,110,70]" * 150, N), ("◁think▷ [10, 20, 110, 70]", N),
    ],
)  # fmt: skip
def test_what_earns_nothing(response, kind):
    found = judge(BoxVerifier(), response)
    assert (found.kind, found.score) == (kind, 0.0)


def test_iou_by_hand():
    assert iou((0, 0, 10, 10), (5, 0, 15, 10)) == pytest.approx(50 / 150)
    assert iou((0, 0, 10, 10), (10, 10, 20, 20)) == 0
    assert iou((0, 0, 0, 0), (0, 0, 0, 0)) == 0
    verifier = BoxVerifier(iou=0.33)
    assert judge(verifier, "[5, 0, 15, 10]", "[0, 0, 10, 10]").kind is C
    assert judge(BoxVerifier(iou=0.34), "[5, 0, 15, 10]", "[0, 0, 10, 10]").kind is W
    found = judge(BoxVerifier(partial=True), "[5, 0, 15, 10]", "[0, 0, 10, 10]")
    assert (found.kind, found.score) == (W, pytest.approx(1 / 3))


def test_several_pair_up_one_to_one():
    golds = "[[0, 0, 10, 10], [20, 20, 30, 30]]"
    assert judge(BoxVerifier(), "[[20, 20, 30, 30], [0, 0, 10, 10]]", golds).kind is C
    assert judge(BoxVerifier(), "[[0, 0, 10, 10], [0, 0, 10, 10]]", golds).kind is W
    assert judge(BoxVerifier(), "[0, 0, 10, 10]", golds).kind is W
    assert judge(BoxVerifier(partial=True), "[0, 0, 10, 10]", golds).score == 0.5
    labelled = '[{"bbox_2d": [0, 0, 10, 10], "label": "Cat"}]'
    assert judge(BoxVerifier(), '{"bbox_2d": [0, 0, 10, 10], "label": "dog"}', labelled).kind is W
    assert judge(BoxVerifier(), '{"bbox_2d": [0, 0, 10, 10], "label": "cat"}', labelled).kind is C
    assert judge(BoxVerifier(), "[0, 0, 10, 10]", labelled).kind is C


def test_units():
    assert judge(BoxVerifier(coordinates="thousand"), "[50, 200, 550, 700]").kind is C
    assert judge(BoxVerifier(), "[50, 200, 550, 700]").kind is W
    assert judge(BoxVerifier(), GOLD, "[0.05, 0.2, 0.55, 0.7]").kind is C
    assert judge(BoxVerifier(), "[0.05, 0.2, 0.55, 0.7]", images=()).rule.endswith("/units")
    assert judge(BoxVerifier(), "[0.05, 0.2, 0.55, 0.7]", images=(b"broken",)).kind is N
    assert judge(BoxVerifier(), "[0.05, 0.2, 0.55, 0.7]", images=(picture(), picture())).kind is N
    with pytest.raises(ValueError, match="must be one of auto, thousand"):
        BoxVerifier(coordinates="pixels")
    with pytest.raises(ValueError, match="greater than 0"):
        BoxVerifier(iou=0)


@pytest.mark.parametrize("gold", ["", "cat", "[1, 2]", "[5, 5, 5, 5]", "[9, 9, 1, 1]", "[1, 2, 3]"])
def test_references_that_are_no_boxes(gold):
    assert judge(BoxVerifier(), "[1, 2, 3, 4]", gold).kind is B


@pytest.mark.parametrize(
    "response",
    [
        "(50, 40)", "[50, 40]", '<point x="50" y="40" alt="cat">cat</point>', '{"point_2d": [50, 40]}', "[0.25, 0.4]",
        "<point>50 40</point>", "The point is (50, 40).",
    ],
)  # fmt: skip
def test_points(response):
    assert judge(PointVerifier(), response).kind is C, "inside the box"
    assert judge(PointVerifier(radius=5), response, "[53, 44]").kind is C, "3-4-5: just within the radius"
    assert judge(PointVerifier(radius=4.9), response, "[53, 44]").kind is W


def test_points_that_miss_and_several():
    assert judge(PointVerifier(), "(9, 40)").kind is W
    assert judge(PointVerifier(), GOLD).kind is N, "a box is no point"
    assert judge(PointVerifier(), "(50, 40), (60, 40)").kind is W
    two = "[[0, 0, 9, 9], [20, 20, 29, 29]]"
    assert judge(PointVerifier(), "(25, 25), (5, 5)", two).kind is C
    assert judge(PointVerifier(), "(5, 5), (6, 6)", two).kind is W
    assert judge(PointVerifier(), "(5, 5)", "nowhere").kind is B
    assert point_fits((1, 1), (0, 0, 1, 1), 0.0)
    with pytest.raises(ValueError, match="radius = -1"):
        PointVerifier(radius=-1)


def test_matching_needs_a_detour():
    assert matches([[True, True], [True, False]]) == 2
    assert matches([[True, False], [True, False]]) == 1
    assert matches([]) == 0
    boxes = [Region(coordinates=(0, 0, 1, 1)), Region(coordinates=(5, 5, 6, 6))]
    assert agreement(boxes, boxes[:1], lambda a, b: iou(a.coordinates, b.coordinates)) == 0.5


@given(st.text(alphabet='0123456789.,-()[]{}<>boxpint=" /', max_size=80))
def test_any_text_is_survived(text):
    regions = read_regions(text)
    assert regions is None or all(len(region.coordinates) in (2, 4) for region in regions)
    judge(BoxVerifier(), text)
    judge(PointVerifier(), text)
