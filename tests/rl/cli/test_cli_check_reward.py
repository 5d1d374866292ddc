"""`thinkvl check-reward`: what is printed, the exit codes, and how little is loaded for it."""

import subprocess
import sys

REWARDS = """
def fit(response, reference, *, task):
    return 0.5

def frail(response, reference, *, task):
    if "١" in response:
        raise ValueError("red: \\x1b[31m")
    return float(bool(response[0]))
"""


def test_lines_and_exit_codes(thinkvl, tmp_path):
    (tmp_path / "mine.py").write_text(REWARDS)
    code, output, _ = thinkvl("check-reward", "mine.py:fit")
    assert code == 0
    assert output.splitlines()[-1] == "mine.py:fit: can be used"
    code, output, _ = thinkvl("check-reward", "mine.py:frail")
    assert code == 1
    assert "FAILED empty                             crash: IndexError: string index out of range" in output
    assert "\x1b" not in output
    assert output.splitlines()[-1].startswith("mine.py:frail: 2 of ")


def test_mistakes_are_one_text(thinkvl, tmp_path):
    (tmp_path / "mine.py").write_text(REWARDS)
    code, _, text = thinkvl("check-reward", "mine.py:fits")
    assert code == 1
    assert text.startswith("error: reward 'mine.py:fits': ")
    assert "did you mean 'fit'" in text
    assert thinkvl("check-reward")[0] == 2
    code, _, text = thinkvl("check-reward", "mine.py:fit", "--env", "NO_SUCH_KEY")
    assert (code, "NO_SUCH_KEY, which is not set" in text) == (1, True)


def test_it_loads_neither_torch_nor_ray(tmp_path):
    (tmp_path / "mine.py").write_text(REWARDS)
    code = (
        "import sys; sys.argv = ['thinkvl', 'check-reward', 'mine.py:fit']\n"
        "from rl.cli import main as cli\n"
        "try: cli.main()\n"
        "except SystemExit as end: assert not end.code\n"
        "assert not {'torch', 'ray', 'transformers', 'sympy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=tmp_path)
