"""docs/walkthrough.md is what its script prints."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_page_is_what_the_script_prints():
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "docs/make_walkthrough.py"]
    printed = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert printed.returncode == 0, printed.stderr
    page = (ROOT / "docs" / "walkthrough.md").read_text(encoding="utf-8")
    assert printed.stdout == page, "run: python docs/make_walkthrough.py > docs/walkthrough.md"
