"""What a person sees of a run in progress: on a terminal, on one that is resized, and where there is none."""

import io
import itertools
import re

import pytest
from terminal_stand_in import Terminal

from rl.run.console import PlainConsole
from rl.run.live_view import ROWS, LiveView, duration, sparkline
from rl.run.progress import StageProgress, working

STEP = {
    "reward": 0.5,
    "accuracy": 0.41,
    "validation/greedy_accuracy": 0.55,
    "tokens_mean": 46.1,
    "thinking_share": 0.9,
    "seconds/step": 3.2,
    "seconds/generate": 2.1,
    "idle/workers": 0.3,
    "idle/learner": 0.62,
    "discarded/filtered": 0.2,
    "discarded/stale": 0.0,
    "tokens_per_second/rollouts": 2130.4,
    "memory/driver": 1.5,
}


def terminal_console(columns=100, lines=30, **environment):
    file = io.StringIO()
    environ = {"TERM": "xterm-256color", **environment}
    return PlainConsole(file=file, width=columns, height=lines, force_terminal=True, _environ=environ), file


def drawn(view, columns=112, lines=30):
    console, _ = terminal_console(columns, lines)
    with console.capture() as capture:
        console.print(view)
    return re.sub(r"\x1b\[[\d;]*m", "", capture.get()).rstrip("\n").split("\n")


def view_of(*steps, total=10, seconds=2.0, **options):
    clock = itertools.count(step=seconds)
    view = LiveView("rl", total=total, clock=lambda: next(clock), **options)
    for values in steps:
        view.step(values)
    return view


def test_every_quantity_of_a_step_has_a_row():
    lines = drawn(view_of(STEP, {**STEP, "reward": 0.7}, where="stage 2 of 3"))
    assert lines[0] == "rl  stage 2 of 3"
    assert "2/10" in lines[1]
    found = {line.split("  ")[0]: line for line in lines[2:]}
    assert "▁█" in found["reward"]
    assert "0.7" in found["reward"]
    assert "41 %" in found["accuracy"]
    assert "validation, greedy 55 %" in found["accuracy"]
    assert "46.1 tokens" in found["length"]
    assert "thinks 90 %" in found["length"]
    assert "3.2 s" in found["step"]
    assert "generate 2.1 s" in found["step"]
    assert found["idle"].split()[1:] == ["workers", "30", "%", "learner", "62", "%"]
    assert found["not trained"].endswith("filtered 20 %  stale 0 %")
    assert found["tokens/s"].endswith("rollouts 2,130")
    assert "memory" not in "".join(lines)


def test_a_quantity_that_is_not_measured_has_no_row():
    lines = drawn(view_of({"loss": 1.5, "grad_norm": 0.2}, where="stage 1 of 1"))
    assert [line.split()[0] for line in lines[2:]] == ["loss"]


def test_every_row_is_of_a_metric_that_runs_write():
    from rl import metrics_table
    from rl.metric_entries import Metric

    tables = [table for table in vars(metrics_table).values() if isinstance(table, tuple) and table]
    names = {entry.name for table in tables for entry in table if isinstance(entry, Metric)}
    for metric in (metric for row in ROWS for metric in (row.metric, *(name for _, name in row.beside)) if metric):
        known = metric.removeprefix("validation/")
        assert known in names or any(known.endswith("/") and name.startswith(known) for name in names), metric


def test_values_of_other_work_stand_in_the_first_line():
    assert drawn(view_of({"pairs": 12.0}))[0].split() == ["rl", "pairs", "12"]


def test_the_time_that_is_left_comes_with_an_interval_and_runs_down():
    now = [0.0]
    view = LiveView("rl", total=30, clock=lambda: now[0])
    assert "the first steps show" in drawn(view)[1]
    for _ in range(10):
        now[0] += 10
        view.step({})
    assert "3:20 min left" in drawn(view)[1]
    assert re.search(r"\d:\d\d min to \d:\d\d min in 9 of 10 runs", drawn(view)[1])
    now[0] += 5
    assert "3:15 min left" in drawn(view)[1]
    now[0] += 500
    assert "3:10 min left" in drawn(view)[1], "a step that hangs does not count as several"
    for _ in range(20):
        view.step({})
    assert "left" not in drawn(view)[1]


@pytest.mark.parametrize(("columns", "lines"), [(112, 30), (60, 30), (40, 6), (20, 3), (200, 50)])
def test_lines_fit_every_terminal(columns, lines):
    found = drawn(view_of(STEP, STEP, where="stage 2 of 3"), columns, lines)
    assert len(found) < lines
    assert max(map(len, found)) <= min(columns, 112)


def test_numbers_that_are_not_finite_leave_gaps():
    nan = float("nan")
    assert sparkline([nan, 1.0, 2.0], 5) == " ▁█  "
    assert sparkline([nan], 3) == "   "
    assert len(sparkline(list(range(1000)), 24)) == 24
    assert "nan" in drawn(view_of({"reward": nan}))[2]


def test_durations():
    assert [duration(s) for s in (41, 185, 7800, 273_600)] == ["41 s", "3:05 min", "2:10 h", "3 d 4 h"]


def screen_of(console, file, terminal):
    file.seek(0)
    terminal.feed(file.read())
    file.seek(0)
    file.truncate()
    return terminal.text


def test_messages_scroll_above_the_view():
    console, file = terminal_console()
    terminal = Terminal(100)
    with StageProgress(console, "rl", total=3, where="stage 1 of 1") as bar:
        bar.advance(STEP)
        console.print("worker 1 was replaced")
        bar.advance(STEP)
        assert not screen_of(console, file, terminal).endswith("worker 1 was replaced")
        assert not terminal.cursor_shown
        bar.advance(STEP)
    text = screen_of(console, file, terminal)
    assert text.startswith("worker 1 was replaced\nrl  stage 1 of 1\n")
    assert text.count("accuracy") == 1
    assert "3/3" in text
    assert terminal.cursor_shown


def test_a_terminal_that_becomes_narrower_shows_one_view():
    console, file = terminal_console(112)
    terminal = Terminal(112)
    with StageProgress(console, "rl", total=3, where="stage 1 of 1") as bar:
        bar.advance(STEP)
        console.print("before")
        screen_of(console, file, terminal)
        terminal.resize(50)
        console.size = (50, 30)
        console.print("after")
        bar.advance(STEP)
    text = screen_of(console, file, terminal)
    assert text.startswith("before\nafter\nrl  stage 1 of 1\n")
    assert text.count("stage 1 of 1") == text.count("reward") == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_error_leaves_the_terminal_as_it_was(error):
    console, file = terminal_console()
    terminal = Terminal(100)

    def fail():
        with StageProgress(console, "rl", total=3) as bar:
            bar.advance(STEP)
            raise error

    with pytest.raises(error):
        fail()
    assert "1/3" in screen_of(console, file, terminal)
    assert terminal.cursor_shown


def test_between_stages_a_terminal_says_what_is_going_on():
    """While it goes on, below what is printed meanwhile; nothing of it is left at the end, or after an error."""
    console, file = terminal_console()
    terminal = Terminal(100)

    def stopped():
        with working(console, "reading: evaluating"):
            console.print("a line of the run")
            assert screen_of(console, file, terminal) == "a line of the run\nreading: evaluating ... 0 s"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert screen_of(console, file, terminal) == "a line of the run"
    assert terminal.cursor_shown


def test_a_file_is_not_told_what_goes_on_between_stages():
    file = io.StringIO()
    with working(PlainConsole(file=file), "starting Ray"):
        pass
    assert file.getvalue() == ""


def lines_of(console, file):
    with StageProgress(console, "rl", total=2, shown=("accuracy", "thinking_share", "tokens_mean")) as bar:
        bar.advance(STEP)
        bar.advance(STEP)
    return file.getvalue()


PLAIN = "rl           1/2             accuracy 0.41  thinking_share 0.9  tokens_mean 46.1\n"
LAST = "rl           2/2  eta 0 s    accuracy 0.41  thinking_share 0.9  tokens_mean 46.1\n"


@pytest.mark.parametrize("environment", [{}, {"FORCE_COLOR": "1"}, {"TERM": "dumb"}, {"NO_COLOR": "1"}])
def test_a_file_gets_plain_lines(environment):
    file = io.StringIO()
    assert lines_of(PlainConsole(file=file, _environ=environment), file) == PLAIN + LAST


def test_a_dumb_terminal_gets_plain_lines():
    console, file = terminal_console(TERM="dumb")
    assert lines_of(console, file) == PLAIN + LAST


def test_no_colour_where_none_is_wanted():
    console, file = terminal_console(NO_COLOR="1")
    text = lines_of(console, file)
    assert "46.1 tokens" in text
    assert not re.search(r"\x1b\[[\d;]*3[0-7]m", text)
