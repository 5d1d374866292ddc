"""Videos as sampled frames: images with their time in the prompt, `Frame at 00:03: <image>`.

Animated GIF and WebP files are read by Pillow. Other formats need PyAV (the extra `video`).
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from configs.errors import UserError
from configs.files import read_bytes
from configs.prompt import IMAGE_MARK
from rewards.images import BadImage, open_image

ANIMATED = (".gif", ".webp")
SUFFIXES = (*ANIMATED, ".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v")
_MOST_BYTES = 8 * 2**30
_MOST_FRAMES = 100_000  # of an animated image, all of which are decoded
_DEFAULT_SECONDS = 0.1  # a frame without a duration, as browsers show it


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """A picture of a video: `image` is a PNG file, `seconds` the time since the start."""

    seconds: float
    image: bytes


def sample_frames(path: Path, count: int) -> list[Frame]:
    """At most `count` different frames, evenly spaced from the first to the last.

    Raises BadImage for a file that cannot be read, and UserError where PyAV is needed and missing.
    """
    if count < 1:
        raise ValueError(f"count = {count}: must be 1 or more")
    if path.suffix.lower() not in SUFFIXES:
        raise BadImage("video of an unknown format", f"{path.name[:80]}; give {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise BadImage("video file is missing", path.name[:80])
    return _animated(path, count) if path.suffix.lower() in ANIMATED else _with_av(path, count)


def frames_prompt(frames: Sequence[Frame]) -> str:
    """One line for each frame, with its time and the place of its image."""
    return "".join(f"Frame at {clock(frame.seconds)}: {IMAGE_MARK}\n" for frame in frames)


def clock(seconds: float) -> str:
    """`00:03`, or `1:02:03` from an hour on; fractions of a second are cut off."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes:02}:{rest:02}"


def _places(total: int, count: int) -> list[int]:
    """At most `count` different indices from 0 to `total - 1`, evenly spaced, both ends among them."""
    return sorted({round(float(place)) for place in np.linspace(0, total - 1, min(count, total))})


def _animated(path: Path, count: int) -> list[Frame]:
    try:
        image = open_image(read_bytes(path))
    except OSError as error:
        raise BadImage("video cannot be read", f"{path.name[:80]} {error.strerror}") from error
    total = getattr(image, "n_frames", 1)
    if total > _MOST_FRAMES:
        raise BadImage("video has too many frames", f"{total:,} of at most {_MOST_FRAMES:,}")
    wanted, frames, seconds = set(_places(total, count)), [], 0.0
    try:
        for index in range(total):
            image.seek(index)
            image.load()
            if index in wanted:
                frames.append(Frame(seconds=seconds, image=_png(image)))
            seconds += (image.info.get("duration") or 1000 * _DEFAULT_SECONDS) / 1000
    except Exception as error:  # Pillow's format plug-ins raise anything on hostile bytes
        raise BadImage("video is broken or cut short", f"{path.name[:80]}: {error}") from error
    return frames


def _with_av(path: Path, count: int) -> list[Frame]:
    """Seek to each wanted time: a lecture of an hour is not decoded as a whole."""
    try:
        import av  # an optional extra
        from av.error import FFmpegError
    except ImportError as error:
        raise UserError(
            f"{path}: reading {path.suffix} needs PyAV: pip install 'thinkvl[video]' (GIF and WebP need nothing more)"
        ) from error
    if path.stat().st_size > _MOST_BYTES:
        raise BadImage("video is too large", f"{path.name[:80]}: more than {_MOST_BYTES >> 30} GiB")
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            tick = stream.time_base or 1
            ticks = stream.duration or (container.duration or 0) / av.time_base / tick
            end = float(ticks * tick)
            times = np.linspace(0.0, end, count) if count > 1 else np.zeros(1)
            found = [_frame_at(container, stream, float(time)) for time in times]
    except (FFmpegError, IndexError, ValueError) as error:
        raise BadImage("video is broken or cut short", f"{path.name[:80]}: {error}") from error
    frames = {frame.seconds: frame for frame in found if frame is not None}  # a short clip repeats none
    if not frames:
        raise BadImage("video has no frames", path.name[:80])
    return [frames[seconds] for seconds in sorted(frames)]


def _frame_at(container: Any, stream: Any, seconds: float) -> Frame | None:
    """The last frame that starts at `seconds` or before, decoded from the key frame in front of it."""
    container.seek(int((stream.start_time or 0) + seconds / stream.time_base), stream=stream)
    chosen, start = None, float((stream.start_time or 0) * stream.time_base)
    for frame in container.decode(stream):
        if chosen is not None and frame.time is not None and frame.time - start > seconds:
            break
        chosen = frame
    if chosen is None:
        return None
    return Frame(seconds=max(0.0, (chosen.time or 0.0) - start), image=_png(chosen.to_image()))


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()
