"""Video-MMMU: three questions on each of 300 lectures; the model sees sampled frames with their times.

Columns: id, question, options, answer, question_type (EvolvingLMMs-Lab/VideoMMMU, data/adaptation_video.json, and
EvolvingLMMs-Lab/lmms-eval, lmms_eval/tasks/videommmu/utils.py); the subset is Perception, Comprehension or Adaptation.
The video is ID.mp4 in a folder of the data, ID the question's; the picture of an adaptation question is its last
frame, so the last frame is always sampled. Prompts: lmms_eval/tasks/videommmu/_default_template_yaml. Rule: as MMMU's,
with more phrases in front of an open answer.
"""

from __future__ import annotations

import functools
from pathlib import Path

from rollouts.tasks.benchmarks.layout import (
    Place,
    Question,
    Row,
    lettered,
    options_of,
    text_of,
)
from rollouts.tasks.benchmarks.mmmu import accepted, subject_of
from rollouts.tasks.rows import LETTERS, BadRow
from rollouts.tasks.video import SUFFIXES, frames_prompt, sample_frames

_PRE = "You should watch and learn the video content. Then apply what you learned to "
_CHOICE = "answer the following multi-choice question. The image for this question is at the end of the video.\n"
_OPEN = "answer the following open-ended question. The image for this question is at the end of the video.\n"
_POST = "\nPlease ignore the Quiz question in last frame of the video."
TRACKS = ("Perception", "Comprehension", "Adaptation")


def read(row: Row, place: Place) -> Question:
    """A row of Video-MMMU."""
    row_id, question = text_of(row, "id"), text_of(row, "question")
    options = tuple(
        option.removeprefix(f"{letter}.").strip()
        for letter, option in zip(LETTERS, options_of(row.get("options")), strict=False)
    )
    text = f"{question}\n{lettered(options)}" if options else question
    adapts = place.subset == "Adaptation"
    prompt = f"{_PRE}{_CHOICE if options else _OPEN}{text}" if adapts else text + _POST
    frames = sample_frames(_video(row_id, place.folder), place.frames)
    return Question(
        id=f"{place.subset}/{row_id}",
        prompt=frames_prompt(frames) + prompt,
        question=question,
        answer=text_of(row, "answer") if options else accepted(text_of(row, "answer")),
        images=[frame.image for frame in frames],
        choices=options,
        verifier="choice" if options else "mmmu_open(video=true)",
        groups={"track": place.subset, "subject": subject_of(row_id)},
        columns={
            "id": row_id,
            "category": place.subset,
            "options": repr(list(options)),
            "question_type": text_of(row, "question_type"),
        },
    )


def _video(row_id: str, folder: Path | None) -> Path:
    """The video of a question, without those of the track `question_only`. Raises BadRow."""
    if folder is None:
        raise BadRow("videos are not among the rows of the hub: download them and give the folder, NAME=FOLDER")
    found = _videos(folder).get(row_id)
    if found is None:
        raise BadRow("video is missing", row_id[:80])
    return found


@functools.lru_cache(maxsize=8)
def _videos(folder: Path) -> dict[str, Path]:
    """Every video by its name, below the folder that the questions lie in; of a track's folder, the one above."""
    root = folder.parent if folder.name in TRACKS else folder
    files = [path for path in sorted(root.rglob("*")) if path.suffix.lower() in SUFFIXES]
    return {path.stem: path for path in reversed(files) if "question_only" not in path.parts}
