"""`thinkvl doctor` from its command line."""

import json

from rl.doctor import table


def test_a_fault_is_exit_code_1_and_json_has_every_check(thinkvl, monkeypatch):
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    code, output, _ = thinkvl("doctor", "--push", "--json")
    rows = {row["check"]: row for row in json.loads(output)}
    assert code == 1
    assert list(rows) == [check.name for check in table.MACHINE_CHECKS]
    assert rows["hub token"]["level"] == "fault"
    assert thinkvl("doctor", "nowhere")[0] == 2


def test_a_finished_run_has_no_fault(run_folder, thinkvl):
    code, output, _ = thinkvl("doctor", run_folder)
    assert code == 0, output
    assert f"{len(table.RUN_CHECKS)} checks in " in output
