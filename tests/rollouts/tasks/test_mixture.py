"""Mixtures: the weights are kept, epochs cover every row once, and a step can be drawn again."""

import hashlib
import inspect
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from configs.data import SourceConfig
from rewards.types import Task
from rollouts.tasks import source as module
from rollouts.tasks.digit_sums import DigitSums
from rollouts.tasks.easy_vqa import EasyVQA
from rollouts.tasks.mixture import TaskMixture, held_out
from rollouts.tasks.rows import FIELDS
from rollouts.tasks.skip_report import SkipReport
from rollouts.tasks.source import build_source


class Numbers:
    """A source of bare tasks, for the arithmetic of mixtures; `size` None is endless."""

    def __init__(self, split, *, size=None):
        self.name, self.report, self.endless, self.size = "numbers", SkipReport(), size is None, size

    def __len__(self):
        return self.size or 2**31

    def task(self, index, seed):
        return Task(id=f"numbers/{self.size}/{index}", source=self.name, question="?", answer=str(index))


@pytest.fixture(autouse=True, scope="module")
def numbers():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BUILT_IN", {**module.BUILT_IN, "numbers": Numbers})
        yield


def source(size=None, weight=1.0, **more):
    return SourceConfig(use="numbers", weight=weight, options={"size": size}, **more)


def mix(tmp_path, *configs, seed=0):
    return TaskMixture(configs, seed=seed, base=tmp_path)


class TestWeights:
    @settings(max_examples=40, deadline=None)
    @given(st.lists(st.floats(0.05, 20), min_size=1, max_size=5), st.integers(1, 60), st.integers(1, 20))
    def test_every_source_has_its_share_at_any_time(self, weights, n, steps):
        mixture = TaskMixture(
            [source(weight=w, split=f"s{i}") for i, w in enumerate(weights)],
            seed=0,
            base=Path(),
        )
        counts = Counter()
        for step in range(steps):
            counts.update(task.source for task in mixture.draw(step, n))
        for name, weight in zip(mixture.names, weights, strict=True):
            assert abs(counts[name] - n * steps * weight / sum(weights)) < 1.5

    def test_three_to_one(self, tmp_path):
        mixture = mix(tmp_path, source(weight=3), source(50, weight=1))
        for step in range(10):
            assert Counter(task.source for task in mixture.draw(step, 16)) == {"numbers": 12, "numbers-2": 4}

    def test_the_order_within_a_step_is_mixed(self, tmp_path):
        names = [task.source for task in mix(tmp_path, source(), source(50)).draw(0, 40)]
        assert names != sorted(names)


class TestEpochs:
    @settings(max_examples=60, deadline=None)
    @given(size=st.integers(1, 70), n=st.integers(1, 40), seed=st.integers(0, 3))
    def test_every_row_once_an_epoch_and_none_twice_in_a_step(self, size, n, seed):
        mixture = TaskMixture([source(size)], seed=seed, base=Path())
        steps = [[int(task.answer) for task in mixture.draw(step, n)] for step in range(3 * size // n + 2)]
        if n <= size * 7 // 8:
            assert all(len(set(step)) == n for step in steps)
        walked = Counter()
        for k, step in enumerate(steps, 1):
            walked.update(step)
            low, high = (k * n) // size, -(-(k * n) // size)
            assert all(low <= walked[row] <= high for row in range(size))

    def test_epochs_differ_in_order(self, tmp_path):
        mixture = mix(tmp_path, source(40))
        first, second = ([task.id for task in mixture.draw(step, 40)] for step in (0, 1))
        assert sorted(first) == sorted(second)
        assert first != second

    def test_seeds_differ(self, tmp_path):
        draws = [[task.id for task in mix(tmp_path, source(100), seed=seed).draw(0, 20)] for seed in (0, 1)]
        assert draws[0] != draws[1]

    def test_an_endless_source_never_repeats(self, tmp_path):
        mixture = mix(tmp_path, source(), source(9))
        ids = [task.id for step in range(30) for task in mixture.draw(step, 8) if task.source == "numbers"]
        assert len(set(ids)) == len(ids) == 120

    def test_a_limit_makes_an_endless_source_one_with_epochs(self, tmp_path):
        mixture = mix(tmp_path, source(limit=10))
        ids = [task.id for step in range(4) for task in mixture.draw(step, 5)]
        assert Counter(ids) == {f"numbers/None/{i}": 2 for i in range(10)}

    def test_a_source_smaller_than_a_step_repeats_itself_evenly(self, tmp_path):
        assert set(Counter(task.id for task in mix(tmp_path, source(3)).draw(0, 9)).values()) == {3}


class TestSolutions:
    def test_a_source_without_solutions_trains_bare_answers_beside_one_with_them(self, tmp_path):
        bare = SourceConfig(use="digit_sums", solutions=False, options={"scans": [3]})
        worked = SourceConfig(use="digit_sums", options={"scans": [2]})
        tasks = mix(tmp_path, bare, worked).draw(0, 20)
        assert {task.source: task.solution is None for task in tasks} == {"digit_sums": True, "digit_sums-2": False}
        with_solutions = mix(tmp_path, SourceConfig(use="digit_sums", options={"scans": [3]}), worked).draw(0, 20)
        assert [task.answer for task in tasks] == [task.answer for task in with_solutions]


class TestResume:
    def test_a_step_can_be_drawn_again_in_any_order_and_by_a_new_mixture(self, tmp_path):
        configs = (source(weight=2), source(31), SourceConfig(use="digit_sums"), SourceConfig(use="easy_vqa"))
        mixture = mix(tmp_path, *configs, seed=5)
        steps = [mixture.draw(step, 13) for step in range(12)]
        for step in (11, 3, 7, 0):
            assert mixture.draw(step, 13) == steps[step]
            assert mix(tmp_path, *configs, seed=5).draw(step, 13) == steps[step]


class TestFixed:
    def test_it_is_the_same_list_of_different_tasks(self, tmp_path):
        configs = (SourceConfig(use="digit_sums", split="held_out"), SourceConfig(use="easy_vqa", split="held_out"))
        tasks = held_out(configs, 60, 3, base=tmp_path)
        assert tasks == held_out(configs, 60, 3, base=tmp_path)
        assert len({task.id for task in tasks}) == 60
        assert Counter(task.source for task in tasks) == {"digit_sums": 30, "easy_vqa": 30}
        assert held_out(configs, 20, 3, base=tmp_path) == tasks[:20]

    def test_what_a_small_source_lacks_comes_from_the_others(self, tmp_path):
        tasks = held_out((source(5), source(80)), 50, 0, base=tmp_path)
        assert Counter(task.source for task in tasks) == {"numbers": 5, "numbers-2": 45}
        assert len({task.id for task in tasks}) == 50

    def test_it_ends_where_all_sources_end(self, tmp_path):
        assert len(held_out((source(5), source(limit=7)), 50, 0, base=tmp_path)) == 12


class TestBuilding:
    def write(self, folder, rows):
        folder.mkdir(exist_ok=True)
        (folder / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))

    @pytest.fixture
    def files(self, tmp_path, monkeypatch):
        monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
        rows = [{"question": "?", "label": str(i), "n": i} for i in range(6)]
        self.write(tmp_path / "a", [*rows, {"question": "", "label": "1"}])
        self.write(tmp_path / "b", rows)
        return tmp_path

    def test_files_are_relative_to_the_base_and_columns_are_mapped(self, files):
        config = SourceConfig(use="a/train.jsonl", columns={"answer": "label"}, options={"verifier": "text"})
        built = build_source(config, base=files)
        assert [(built.task(i, 0).answer, built.task(i, 0).verifier) for i in range(len(built))] == [
            (str(i), "text") for i in range(6)
        ]

    def test_two_files_of_one_name_stay_apart_in_metrics_and_ids(self, files):
        columns = {"answer": "label"}
        configs = [SourceConfig(use=f"{folder}/train.jsonl", columns=columns) for folder in "ab"]
        tasks = TaskMixture(configs, seed=0, base=files).fixed(12)
        assert Counter(task.source for task in tasks) == {"train": 6, "train-2": 6}
        assert len({task.id for task in tasks}) == 12

    def test_the_report_names_source_and_reason(self, files):
        mixture = TaskMixture([SourceConfig(use="a/train.jsonl", columns={"answer": "label"})], seed=0, base=files)
        assert mixture.report.lines() == ["train: 1 skipped, question is empty (row 6)"]
        assert (mixture.report.total, mixture.report.by_reason) == (1, {"question is empty": 1})

    @pytest.mark.parametrize(
        ("config", "named"),
        [
            (SourceConfig(use="digit_sum"), "did you mean digit_sums"),
            (SourceConfig(use="digit_sums", options={"scan": [2]}), r"options\.scan: unknown; the options are scans"),
            (SourceConfig(use="easy_vqa", columns={"answer": "a"}), "a built-in has no columns"),
            (SourceConfig(use="digit_sums", split="test"), "train or held_out"),
            (SourceConfig(use="a/train.jsonl", options={"form": "open"}), "the options are verifier, subset"),
            (SourceConfig(use="a/trai.jsonl"), r"did you mean train\.jsonl"),
        ],
    )
    def test_mistakes_in_an_entry_are_named(self, files, config, named):
        with pytest.raises(ValueError, match=named):
            build_source(config, base=files)

    def test_one_entry_twice_is_refused(self, tmp_path):
        with pytest.raises(ValueError, match="listed twice"):
            mix(tmp_path, source(5, weight=1), source(5, weight=2))


class TestDocumentation:
    """The examples of docs/data.md do what the page says."""

    TEXT = (Path(__file__).parents[3] / "docs" / "data.md").read_text(encoding="utf-8")

    def example(self, language):
        return self.TEXT.split(f"```{language}\n")[1].split("```")[0]

    def test_its_recipe_and_its_row_make_tasks(self, tmp_path, monkeypatch):
        monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
        (tmp_path / "data" / "figures").mkdir(parents=True)
        Image.new("RGB", (9, 9)).save(tmp_path / "data" / "figures" / "17.png")
        row = json.loads(self.example("json"))
        names = {"question": "problem", "answer": "label", "images": "figure"}
        rows = [{names.get(field, field): value for field, value in {**row, "id": i}.items()} for i in range(10)]
        (tmp_path / "data" / "geometry.jsonl").write_text("\n".join(map(json.dumps, rows)))
        data = yaml.safe_load(self.example("yaml"))["data"]
        train, held = ([SourceConfig(**entry) for entry in data[part]] for part in ("train", "held_out"))
        drawn = TaskMixture(train, seed=0, base=tmp_path).draw(0, 8)
        assert Counter(task.source for task in drawn) == {"digit_sums": 6, "geometry": 2}
        fixed = held_out(held, 5, 0, base=tmp_path)
        assert {task.id for task in fixed if task.source == "geometry"} == {"data/geometry.jsonl:train[90%:]/9"}

    @pytest.mark.parametrize("made", [DigitSums, EasyVQA])
    def test_it_lists_every_option_of_the_built_ins(self, made):
        for option in set(inspect.signature(made).parameters) - {"split"}:
            assert f"`{option}`" in self.TEXT

    def test_it_lists_every_field(self):
        for field in FIELDS:
            assert f"| `{field}` |" in self.TEXT


class TestReport:
    def test_merging_adds_counts_and_keeps_the_first_examples(self):
        reports = [SkipReport(), SkipReport()]
        for i, report in enumerate(reports):
            for row in range(2):
                report.add("file", "answer is empty", f"row {row} of {i}")
        reports[1].add("other", "line is not JSON", "row 9")
        reports[0].merge(reports[1])
        assert reports[0].lines() == [
            "file: 4 skipped, answer is empty (row 0 of 0; row 1 of 0; row 0 of 1, ...)",
            "other: 1 skipped, line is not JSON (row 9)",
        ]

    def test_nothing_skipped_is_no_line(self):
        assert SkipReport().lines() == []


def test_importing_tasks_loads_no_heavy_library():
    code = "import sys, rollouts.tasks.mixture; print(*{m.partition('.')[0] for m in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "ray", "datasets", "sklearn", "transformers"} & set(loaded)


class TestPartSetApart:
    @pytest.mark.parametrize("size", [2, 7, 400])
    def test_a_row_is_trained_on_or_set_apart_for_every_seed_and_every_limit(self, tmp_path, size):
        def ids(part, seed, **more):
            mixture = TaskMixture([source(size, **more)], seed=seed, base=tmp_path, part=part)
            return {task.id for step in range(3) for task in mixture.draw(step, size)}

        apart, trained = ids("validation", 2), ids("train", 0)
        assert apart | trained == {f"numbers/{size}/{i}" for i in range(size)}
        assert not apart & trained
        assert len(apart) == max(1, sum(_key(i) < 0.05 * 2**64 for i in range(size)))
        assert (ids("validation", 9), ids("train", 5)) == (apart, trained)
        if size == 400:
            assert not ids("validation", 2, limit=300) & trained, "a limit moves no row to the other part"

    def test_an_endless_source_gives_validation_tasks_of_another_seed(self, tmp_path):
        config = SourceConfig(use="digit_sums")
        apart = TaskMixture([config], seed=2, base=tmp_path, part="validation").fixed(50)
        trained = TaskMixture([config], seed=7, base=tmp_path, part="train").draw(0, 50)
        assert not {task.id for task in apart} & {task.id for task in trained}
        assert len({task.images for task in (*apart, *trained)}) == 100


def _key(row):
    return int.from_bytes(hashlib.sha256(f"numbers/{row}".encode()).digest()[:8])
