"""`configs.files`: a file is there in whole or not at all, and nobody else's file is written to."""

import pytest

from configs.files import atomic_write, write_text


def test_a_file_is_replaced_in_whole(tmp_path):
    path = tmp_path / "new" / "a.json"
    write_text(path, "1")
    with atomic_write(path) as file:
        file.write(b"22")
        assert path.read_text() == "1"
    assert path.read_text() == "22"
    assert [p.name for p in path.parent.iterdir()] == ["a.json"]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "a.json"
    write_text(path, "1")

    def fail():
        with atomic_write(path) as file:
            file.write(b"22")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_text() == "1"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_left_over_file_is_overwritten_and_a_planted_link_is_not_followed(tmp_path):
    other = tmp_path / "other"
    other.write_text("keep")
    path, partial = tmp_path / "a", tmp_path / "a.partial"
    partial.symlink_to(other)
    write_text(path, "1")
    partial.write_text("half")
    write_text(path, "2")
    assert (other.read_text(), path.read_text(), partial.exists()) == ("keep", "2", False)
