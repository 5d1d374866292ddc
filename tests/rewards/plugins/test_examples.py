"""The examples work as their texts say, in a process of their own; and importing rewards stays light."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

from configs.rewards import RewardConfig
from rewards import Scorer, Task

ROOT = Path(__file__).resolve().parents[3]
EXAMPLES = ROOT / "examples"


def run(body, *, path, cwd):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(body)],
        env=environment,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_the_file():
    terms = (RewardConfig(), RewardConfig(use="brevity.py:brevity", weight=0.1))
    task = Task(id="e", source="unit", question="?", answer="5")
    with Scorer(terms, base=EXAMPLES / "reward_file") as scorer:
        (score,) = scorer.score(["◁think▷ long thought ◁/think▷ 5"], [task])
    assert score.parts == {"verifier": 1.0, "brevity.py:brevity": 0.995}
    assert abs(score.reward - 1.0995) < 1e-12


def test_the_package(tmp_path):
    site = tmp_path / "site"
    copy = tmp_path / "package"
    subprocess.run(["cp", "-r", str(EXAMPLES / "reward_package"), str(copy)], check=True)
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index",
         "--target", str(site), str(copy)],
        check=True, timeout=120,
    )  # fmt: skip
    body = """
        from configs.rewards import RewardConfig
        from rewards import Scorer, Task
        tasks = [Task(id="e", source="unit", question="?", answer="123"),
                 Task(id="f", source="unit", question="?", answer="123", verifier="digit_distance")]
        with Scorer((RewardConfig(), RewardConfig(use="digit_distance", weight=2.0))) as scorer:
            scorer.check_tasks(tasks)
            for score in scorer.score(["\\\\boxed{129}"] * 2, tasks):
                print(round(score.reward, 6), score.parts["digit_distance/length"], score.verdict.kind.value)
        with Scorer((RewardConfig(use="shortest_right"),)) as scorer:
            texts = ["It is \\\\boxed{123}", "\\\\boxed{123}", "\\\\boxed{1}"]
            print(*(score.reward for score in scorer.score(texts, tasks[:1] * 3)))
    """
    words = run(body, path=[site, ROOT], cwd=tmp_path)
    assert words == ["1.666667", "0.5", "wrong", "2.5", "0.5", "correct", "0.0", "1.0", "0.0"]
    checked = (
        "import sys; sys.argv[1:] = ['check-reward', 'shortest_right']; from rl.cli import main as cli; cli.main()"
    )
    assert run(checked, path=[site, ROOT], cwd=tmp_path)[-4:] == ["shortest_right:", "can", "be", "used"]


def test_a_users_rewards_py_in_the_working_directory(tmp_path):
    (tmp_path / "rewards.py").write_text("def mine(response, reference, *, task):\n    return len(response) / 10\n")
    body = """
        from configs.rewards import RewardConfig
        from rewards import Scorer, Task
        with Scorer((RewardConfig(), RewardConfig(use="rewards.py:mine"))) as scorer:
            print(scorer.score(["1+x"], [Task(id="e", source="unit", question="?", answer="x+1")])[0].reward)
    """
    body = f"import sys; sys.path.remove('') if '' in sys.path else None\n{textwrap.dedent(body)}"
    assert run(body, path=[ROOT], cwd=tmp_path) == ["1.3"]


def test_importing_is_light(tmp_path):
    body = """
        import sys
        import rewards, configs, rewards.verifiers, rewards.math.symbolic
        heavy = ("torch", "ray", "transformers", "sympy", "math_verify", "pydantic", "numpy")
        print(*(m for m in heavy if m in sys.modules))
    """
    assert run(body, path=[ROOT], cwd=tmp_path) == []
