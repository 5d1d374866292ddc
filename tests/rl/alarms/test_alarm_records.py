"""The file of a run's alarms, and the line in the terminal."""

import json
from dataclasses import replace
from pathlib import Path

from rl.alarms.facts import RolloutPlace
from rl.alarms.records import FILE, AlarmRecords, alarm_line, read_alarms
from rl.alarms.watch import AlarmEvent

EVENT = AlarmEvent(
    step=7,
    alarm="stale",
    event="raised",
    title="the data are stale",
    evidence="30 % were dropped",
    advice="add workers",
    since=7,
    rollouts=(RolloutPlace(7, 3, 1), RolloutPlace(7, 0, 2)),
)
OVER = replace(EVENT, step=20, event="over", rollouts=())


def test_lines_of_later_steps_are_written_again_and_those_of_other_stages_stay(tmp_path):
    other, own = AlarmRecords(tmp_path, "first"), AlarmRecords(tmp_path, "rl")
    other.write([OVER])
    own.write([EVENT, OVER])
    whole = (tmp_path / FILE).read_bytes()
    own.forget_after(10)
    assert [(row["stage"], row["step"]) for row in read_alarms(tmp_path)] == [("first", 20), ("rl", 7)]
    own.write([OVER])
    assert (tmp_path / FILE).read_bytes() == whole
    assert read_alarms(tmp_path)[1]["rollouts"] == [[7, 3, 1], [7, 0, 2]]


def test_a_run_without_alarms_has_no_file(tmp_path):
    records = AlarmRecords(tmp_path, "rl")
    records.write([])
    records.forget_after(3)
    assert read_alarms(tmp_path) == []
    assert not [*tmp_path.iterdir()]


def test_other_lines_are_left_out(tmp_path):
    AlarmRecords(tmp_path, "rl").write([EVENT])
    (line,) = (tmp_path / FILE).read_text().splitlines()
    row = json.loads(line)
    bad = ["{cut", "[]", "1", json.dumps({**row, "step": "7"}), json.dumps({**row, "rollouts": [[1, 2]]})]
    bad += [json.dumps({**row, "rollouts": [[1, 2, "x"]]}), json.dumps({**row, "rollouts": None}), "\xff"]
    (tmp_path / FILE).write_text("\n".join([*bad, line]))
    assert read_alarms(tmp_path) == [row]


def test_one_plain_line_says_what_where_and_how_to_look():
    assert alarm_line("rl", EVENT, Path("runs/my run")) == (
        "ALARM (rl, step 7): the data are stale: 30 % were dropped; look: thinkvl book 'runs/my run' --stage rl "
        "--step 7, group/sample 3/1, 0/2"
    )
    assert alarm_line("rl", replace(OVER, evidence="a\n\x1b[31mb"), Path("x")) == (
        "alarm over (rl, step 20): the data are stale, since step 7; a ?[31mb"
    )
