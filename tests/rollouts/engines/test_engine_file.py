"""An engine of the user's own: found, checked against the protocol, and built from its source."""

from pathlib import Path

import pytest

from rollouts.engines.driver import EngineDriver
from rollouts.engines.engine_spec import EngineSpec, choose_engine
from rollouts.engines.protocol import EngineError

EXAMPLE = Path(__file__).parents[3] / "examples" / "engine" / "openai_engine.py"
WHOLE = """
from rollouts.engines.protocol import Engine

class Mine(Engine):
    def __init__(self, spec, *, size=1, name="x"):
        self.spec, self.size = spec, size

    def add(self, index, request, sampling): ...
    def step(self): return []
    def cancel(self, indices): return []
    def start_load(self, shapes): ...
    def load_weights(self, weights): ...
    def finish_load(self, version): ...
    version = 0
"""


def choose(folder, text, *, use="mine.py:Mine", trains=True, **options):
    (folder / "mine.py").write_text(text, encoding="utf-8")
    return choose_engine(use, options, base=folder, trains=trains)


def spec_with(engine):
    return EngineSpec(model_path="nowhere", dtype="float32", stop_ids=(1,), barred_ids=(2,), engine=engine)


def test_it_is_built_with_the_spec_and_the_options(tmp_path):
    spec = spec_with(choose(tmp_path, WHOLE, size=3))
    (tmp_path / "mine.py").unlink()  # a worker on another node has no such file
    driver = spec.build()
    assert isinstance(driver, EngineDriver)
    assert (driver.engine.spec, driver.engine.size) == (spec, 3)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            ("    def step(self): return []\n", ""),
            ["mine.py:4: class Mine cannot be used:", "it lacks step; an engine has"],
        ),
        (("    version = 0\n", ""), ["it lacks version"]),
        (("class Mine(Engine)", "class Mine"), ["it must derive from rollouts.engines.protocol.Engine"]),
        (
            ("add(self, index, request, sampling)", "add(self, index)"),
            ["line 8: add(self, index): too many positional"],
        ),
        (
            ("load_weights(self, weights)", "load_weights(self, weights, *, version)"),
            ["missing a required argument: 'version'; it is called as load_weights(weights)"],
        ),
        (("def step(self): return []", "step = 3"), ["step is no method"]),
        (("def __init__(self, spec, *, size=1, name", "def __init__(self, *, spec, name"), ["must be the EngineSpec"]),
        (("size=1", "size"), ["rl.engine_options.size is missing; the class has no default for it"]),
        (("class Mine", "import no_such_package\nclass Mine"), ["mine.py:4 failed: ModuleNotFoundError"]),
        (("class Mine", "class Mine!"), ["mine.py:4 failed: SyntaxError"]),
        (("class Mine", "raise SystemExit(3)\nclass Mine"), ["mine.py:4 failed: SystemExit: 3"]),
        (("class Mine", "class Mina"), ["has no 'Mine' (did you mean 'Mina'?); it defines Mina"]),
        (("class Mine", "Mine = 3\nclass Other"), ["defines 3, which is no class"]),
    ],
)
def test_what_is_wrong_is_said_with_file_and_line(tmp_path, change, expected):
    with pytest.raises(EngineError) as caught:
        choose(tmp_path, WHOLE.replace(*change))
    assert str(caught.value).startswith("rl.engine 'mine.py:Mine': ")
    for part in expected:
        assert part in str(caught.value)


def test_everything_is_said_at_once(tmp_path):
    text = WHOLE.replace("    version = 0\n", "").replace("cancel(self, indices)", "cancel(self)")
    with pytest.raises(EngineError) as caught:
        choose(tmp_path, text, sise=3)
    assert [line.strip().split(":")[0] for line in str(caught.value).splitlines()[1:]] == [
        "it lacks version; an engine has add, step, cancel, start_load, load_weights, finish_load, version",
        "line 10",
        "rl.engine_options.sise",
    ]
    assert "did you mean size?" in str(caught.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(EngineError, match=r"rl.engine 'lost.py:Mine': no such file; looked for .*lost.py"):
        choose_engine("lost.py:Mine", {}, base=tmp_path, trains=True)


def test_fixed_weights_measure_and_do_not_train():
    use, options = f"{EXAMPLE}:OpenAIEngine", {"url": "http://localhost:1/v1", "model": "m"}
    with pytest.raises(EngineError, match=r"weights of this engine are fixed .* run `thinkvl eval RUN_OR_MODEL"):
        choose_engine(use, options, base=Path(), trains=True)
    assert choose_engine(use, options, base=Path(), trains=False).fixed_weights
