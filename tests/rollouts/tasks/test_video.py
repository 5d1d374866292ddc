"""Videos as frames: which ones, their times, and their way through rows, tasks and the processor."""

import json

import numpy as np
import pytest
from PIL import Image

from configs.errors import UserError
from kimi_vl import load_processor
from rewards.images import BadImage, decode_image
from rollouts.tasks.dataset import DataSetError, DatasetTasks
from rollouts.tasks.prompts import PromptRenderer
from rollouts.tasks.video import clock, frames_prompt, sample_frames

COLORS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255)]


def clip(path, colors=COLORS, milliseconds=1500, size=(56, 28), **options):
    frames = [Image.new("RGB", size, color) for color in colors]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=milliseconds, **options)
    return path


def shown(frame):
    """The colour in the middle of a frame, and its time."""
    image = decode_image(frame.image)
    return image.getpixel((image.width // 2, image.height // 2)), frame.seconds


@pytest.mark.parametrize(("name", "options"), [("a.gif", {}), ("a.webp", {"lossless": True})])
def test_frames_are_even_and_both_ends_are_among_them(tmp_path, name, options):
    path = clip(tmp_path / name, **options)
    every = [shown(frame) for frame in sample_frames(path, 9)]
    assert every == [(color, 1.5 * at) for at, color in enumerate(COLORS)]
    assert [shown(frame) for frame in sample_frames(path, 3)] == [every[0], every[2], every[4]]
    assert [shown(frame) for frame in sample_frames(path, 2)] == [every[0], every[4]]
    assert [shown(frame) for frame in sample_frames(path, 1)] == [every[0]]


def test_frames_of_different_lengths_keep_their_times(tmp_path):
    path = clip(tmp_path / "a.gif", milliseconds=[100, 2000, 300, 4000, 50])
    assert [round(frame.seconds, 3) for frame in sample_frames(path, 5)] == [0, 0.1, 2.1, 2.4, 6.4]


def test_a_still_image_is_one_frame(tmp_path):
    Image.new("RGB", (28, 28), "red").save(tmp_path / "a.webp", lossless=True)
    (frame,) = sample_frames(tmp_path / "a.webp", 8)
    assert shown(frame) == ((255, 0, 0), 0.0)


def test_times_are_written_as_a_player_shows_them(tmp_path):
    assert [clock(s) for s in (0, 3.9, 75, 3723)] == ["00:00", "00:03", "01:15", "1:02:03"]
    frames = sample_frames(clip(tmp_path / "a.gif"), 2)
    assert frames_prompt(frames) == "Frame at 00:00: <image>\nFrame at 00:06: <image>\n"


def test_what_is_no_video_says_so(tmp_path):
    (tmp_path / "a.txt").write_text("")
    (tmp_path / "broken.gif").write_bytes(clip(tmp_path / "a.gif").read_bytes()[:60])
    (tmp_path / "png.gif").write_bytes(b"GIF89a nothing")
    for name, reason in [
        ("a.txt", "video of an unknown format"),
        ("none.gif", "video file is missing"),
        ("broken.gif", "video is broken or cut short"),
        ("png.gif", "not an image that Pillow reads"),
    ]:
        with pytest.raises(BadImage) as error:
            sample_frames(tmp_path / name, 2)
        assert error.value.reason == reason
    with pytest.raises(ValueError, match="count = 0"):
        sample_frames(tmp_path / "a.gif", 0)


def test_other_formats_need_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    (tmp_path / "a.mp4").write_bytes(b"x")
    with pytest.raises(UserError, match=r"pip install 'thinkvl\[video\]'"):
        sample_frames(tmp_path / "a.mp4", 2)


def test_an_mp4_through_pyav(tmp_path):
    av = pytest.importorskip("av")
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for at in range(50):
            pixels = np.full((64, 64, 3), COLORS[at // 10], dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    frames = sample_frames(path, 5)
    assert (frames[0].seconds, len(frames)) == (0.0, 5)
    assert frames[-1].seconds == pytest.approx(4.9, abs=0.11)
    for frame, color in zip((frames[0], frames[-1]), (COLORS[0], COLORS[-1]), strict=True):
        assert np.abs(np.subtract(shown(frame)[0], color)).max() < 60


@pytest.fixture
def rows(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")

    def write(*rows, **options):
        lines = [json.dumps({"question": "Which colour is last?", "answer": "cyan"} | row) for row in rows]
        (tmp_path / "clips.jsonl").write_text("\n".join(lines) + "\n")
        return DatasetTasks("clips.jsonl", base=tmp_path, **options)

    return write


def test_a_row_with_a_video_becomes_frames_in_the_prompt(rows, tmp_path, tiny_folder):
    clip(tmp_path / "a.gif")
    source = rows({"video": "a.gif", "verifier": "text"}, frames=3)
    task = source.task(0, 0)
    lines = "Frame at 00:00: <image>\nFrame at 00:03: <image>\nFrame at 00:06: <image>\n"
    assert task.question == f"{lines}Which colour is last?"
    assert len(task.images) == 3
    processor = load_processor(tiny_folder)
    prompt = PromptRenderer(processor, max_prompt_tokens=2000).render(task)
    assert prompt.image_grid_hws.tolist() == [[2, 4]] * 3
    text = processor.tokenizer.decode(prompt.input_ids)
    assert text.index("00:00") < text.index("00:03") < text.index("00:06") < text.index("Which colour")


def test_bad_videos_are_counted_rows(rows, tmp_path):
    clip(tmp_path / "a.gif")
    source = rows({"video": "a.gif"}, {"video": "b.gif"}, {"video": "https://x/a.gif"}, {"video": "a.gif", "images": 3})
    assert len(source) == 1
    (tmp_path / "a.gif").unlink()
    assert source.task(0, 0).images == (b"",)
    assert set(source.report.by_reason) == {
        "video file is missing", "video is a URL: download it first",
        "image is neither a path, bytes nor a data URI",
    }  # fmt: skip
    clip(tmp_path / "a.gif")
    (tmp_path / "i.png").write_bytes(sample_frames(tmp_path / "a.gif", 1)[0].image)
    with pytest.raises(DataSetError, match="row has a video, and images too"):
        rows({"video": "a.gif", "images": ["i.png"]})
    with pytest.raises(DataSetError, match=r"options.frames = 0: must be 1 or more"):
        rows({"video": "a.gif"}, frames=0)
