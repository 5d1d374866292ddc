"""What a run says of long-to-short stages: accuracy and tokens before and after."""

from pathlib import Path

from rl.run.folder import StageRecord
from rl.run.length_plot import plot_lengths, shortening_lines


def record(name, accuracy, tokens, **figures):
    return StageRecord(
        name=name,
        kind="sft",
        seconds=1.0,
        greedy_accuracy=accuracy,
        sampled_accuracy=0.5,
        thinking_share=1.0,
        mean_tokens=tokens,
        figures={name.replace("_", "/", 1): value for name, value in figures.items()},
    )


RECORDS = [
    record("long_cot", 0.95, 40.0),
    record("shorter", 0.94, 25.0, before_greedy_accuracy=0.95, before_mean_tokens=40.0),
]


def test_a_line_for_each_stage_that_measured_what_entered_it():
    assert shortening_lines(RECORDS) == ["shorter: greedy 0.950 -> 0.940, tokens 40.0 -> 25.0"]
    assert shortening_lines(RECORDS[:1]) == []


def test_the_picture_is_written(tmp_path: Path):
    plot_lengths(RECORDS, tmp_path / "lengths.png")
    assert (tmp_path / "lengths.png").read_bytes().startswith(b"\x89PNG")
