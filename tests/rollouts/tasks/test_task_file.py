"""A function of the user's as a source of tasks."""

from pathlib import Path

import pytest

from configs.data import SourceConfig
from rewards.images import decode_image
from rollouts.tasks.dataset import DataSetError
from rollouts.tasks.mixture import TaskMixture
from rollouts.tasks.source import build_source

EXAMPLES = Path(__file__).parents[3] / "examples" / "task_file"

TASKS = """
from PIL import Image

def tasks(split, count=3, picture=None):
    for number in range(count):
        row = {"question": f"{split} {number}?", "answer": number}
        if picture:
            row["images"] = Image.new("L", (28, 28), 7) if picture == "pillow" else picture
        yield row

def bad(split):
    yield {"question": "1?", "answer": "1", "id": "a"}
    yield {"question": "2?", "answer": "2", "id": "a"}
    yield {"question": "3?"}
    yield {"question": "4?", "answer": "4", "image": "x.png"}
    yield {"question": "5?", "answer": "5", "images": ["missing.png"]}
    yield "6?"

def none(split):
    return []

def fails(split):
    yield {"question": "1?", "answer": "1"}
    raise KeyError("colour")

def endless(split):
    number = 0
    while True:
        yield {"question": f"{number}?", "answer": number}
        number += 1

def blind(count):
    return []

def needy(split, folder):
    return []
"""


@pytest.fixture
def base(tmp_path):
    (tmp_path / "mine.py").write_text(TASKS, encoding="utf-8")
    return tmp_path


def source(base, function="tasks", **config):
    return build_source(SourceConfig(use=f"mine.py:{function}", **config), base=base)


def test_rows_become_tasks(base):
    made = source(base, split="held_out", options={"count": 2})
    tasks = [made.task(i, seed=0) for i in range(len(made))]
    assert [(t.question, t.answer, t.verifier, t.source) for t in tasks] == [
        ("held_out 0?", "0", "math", "mine"),
        ("held_out 1?", "1", "math", "mine"),
    ]
    assert tasks == [made.task(i, seed=9) for i in range(len(made))]


def test_images_may_be_pillow_images_or_paths_beside_the_file(base):
    [data] = source(base, options={"picture": "pillow"}).task(0, seed=0).images
    assert decode_image(data).getpixel((0, 0)) == 7
    (base / "one.png").write_bytes(data)
    assert source(base, options={"picture": "one.png"}).task(0, seed=0).images == (data,)


def test_bad_rows_are_counted(base):
    made = source(base, "bad")
    assert len(made) == 1
    report = "\n".join(made.report.lines())
    for reason in (
        "id was seen before",
        "answer is empty",
        "unknown field 'image'; did you mean images?",
        "image file is missing",
        "row is not a mapping (row 5: str)",
    ):
        assert reason in report


def test_a_limit_also_ends_an_endless_function(base):
    assert len(source(base, "endless", limit=4)) == 4


@pytest.mark.parametrize(
    ("function", "config", "message"),
    [
        ("taskz", {}, r"tasks 'mine.py:taskz': .*mine.py has no 'taskz'.*tasks"),
        ("none", {}, "no row of split 'train' is a task"),
        ("fails", {}, "fails failed: KeyError: 'colour'"),
        ("blind", {}, r"must take the split: `def blind\(split, ...\):`"),
        ("needy", {}, "options.folder is missing"),
        ("tasks", {"options": {"cuont": 2}}, r"options.cuont: unknown; did you mean count\?"),
        ("tasks", {"columns": {"question": "q"}}, "a task file has no columns"),
    ],
)
def test_mistakes_say_what_to_do(base, function, config, message):
    with pytest.raises(DataSetError, match=message):
        source(base, function, **config)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(DataSetError, match=r"tasks 'mine\.py:tasks': no such file; looked for"):
        source(tmp_path)


def test_the_files_name_shadows_nothing(tmp_path):
    (tmp_path / "rewards.py").write_text(TASKS, encoding="utf-8")
    assert len(build_source(SourceConfig(use="rewards.py:tasks"), base=tmp_path)) == 3
    import rewards

    assert hasattr(rewards, "Scorer")


def test_the_example(tmp_path):
    config = SourceConfig(use="clocks.py:clocks", options={"count": 50})
    mixture = TaskMixture([config, SourceConfig(use="digit_sums")], seed=0, base=EXAMPLES)
    assert mixture.names == ["clocks", "digit_sums"]
    [task, *_] = [t for t in mixture.draw(0, 8) if t.source == "clocks"]
    assert decode_image(task.images[0]).size == (84, 84)
    held_out = build_source(SourceConfig(use="clocks.py:clocks", split="held_out"), base=EXAMPLES)
    train = {mixture.sources[0].task(i, 0).images for i in range(50)}
    assert not train & {held_out.task(i, 0).images for i in range(len(held_out))}
