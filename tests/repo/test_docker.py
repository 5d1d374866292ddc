"""The container files: linted, and with the versions that the project pins."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

HADOLINT = Path(sys.executable).with_name("hadolint")  # of the environment, which may not be on PATH
FILES = ("docker/Dockerfile.cpu", "docker/Dockerfile.gpu")


@pytest.mark.parametrize("name", FILES)
def test_docker_files_pass_the_linter(root, name):
    done = subprocess.run([HADOLINT, str(root / name)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_docker_files_install_what_the_makefile_does(root):
    makefile = (root / "Makefile").read_text(encoding="utf-8")
    cpu, gpu = ((root / name).read_text(encoding="utf-8") for name in FILES)
    [uv] = re.findall(r"uv==[\d.]+", makefile)
    assert uv in cpu
    assert "-c constraints.txt" in cpu
    assert "make vllm-env VLLM=gpu" in gpu
