"""A finished run made of a tiny checkpoint, a picture, and the command in this process."""

import pytest
from cli_helpers import SIZES, write_run
from PIL import Image

from kimi_vl import create_tiny_checkpoint
from rl.cli import data_commands, doctor_commands, model_commands, run_commands
from rl.cli import main as cli
from rl.run.console import PlainConsole


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory):
    text = ["What is the result? ◁think▷7 + 4 = 11◁/think▷11", "3 * 4 = 12; 12 - 5 = 7"]
    return create_tiny_checkpoint(tmp_path_factory.mktemp("cli") / "tiny", corpus=text, sizes=SIZES)


@pytest.fixture
def run_folder(tiny_checkpoint, tmp_path):
    return write_run(tmp_path / "runs" / "tiny", tiny_checkpoint)


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "demo.png"
    Image.new("RGB", (84, 28), "white").save(path)
    return path


@pytest.fixture
def thinkvl(monkeypatch, capsys, tmp_path):
    """`thinkvl("eval", ...)` runs the command in this process and gives (exit code, output, errors)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["thinkvl", *map(str, arguments)])
        for commands in (data_commands, doctor_commands, model_commands, run_commands):
            monkeypatch.setattr(commands, "console", PlainConsole(width=200))
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        output = capsys.readouterr()
        return code, output.out, output.err

    return call
