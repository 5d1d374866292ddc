"""What is sent to a cluster, and that no file of the user can stand in for a package of ours."""

import json
import os
import subprocess
import sys
import zipfile

import pytest
from datasets import Dataset, Features, Value
from datasets import Image as ImageFeature

from configs.data import SourceConfig
from configs.errors import UserError
from configs.load import load_recipe
from configs.version import VERSION
from rl.cli.cluster import bundle as bundles
from rl.cli.cluster.bundle import fingerprint, make_bundle, read_packages
from rl.cli.cluster.user_files import images_in_rows, is_inside, path_rows, walk

PLAIN = "name: a\noutput_dir: out\nstages:\n- {kind: sft, steps: 1}\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory; `write(name, text)` makes a file in it."""
    monkeypatch.chdir(tmp_path)

    class Folder:
        path = tmp_path

        def write(self, name, text=""):
            file = tmp_path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
            return file

        def bundle(self, name, text, *overrides, working_dir=None):
            recipe = self.write(name, text)
            config = load_recipe(recipe, overrides)
            return make_bundle(recipe, config, working_dir=working_dir, with_packages=False)

    return Folder()


def test_the_recipe_alone(folder):
    bundle = folder.bundle("mine.yaml", PLAIN)
    assert (bundle.folder, bundle.recipe) == ("job", "mine.yaml")
    assert dict(bundle.files) == {"job/mine.yaml": folder.path / "mine.yaml"}


def test_plugins_and_data_with_their_images(folder):
    rows = [
        {"question": "?", "answer": "1", "figure": "pictures/1.png"},
        {"question": "?", "answer": "1", "figure": ["pictures/2.png", "data:image/png;base64,AA==", "lost.png"]},
        {"question": "?", "answer": "1", "figure": "https://example.org/3.png", "verifier": "checks/own.py:check"},
        {"question": "?", "answer": "1", "verifier": "unnamed.py:check"},
        {"question": "?", "answer": "1", "figure": "/there/4.png", "verifier": "math"},
        ["no row"],
    ]
    folder.write("data/rows.jsonl", "\n".join([*map(json.dumps, rows), "{no json", ""]))
    for name in (
        "data/pictures/1.png",
        "data/pictures/2.png",
        "checks/own.py",
        "brief.py",
        "other.py",
        "unnamed.py",
        "e.py",
    ):
        folder.write(name)
    source = "{use: data/rows.jsonl, columns: {images: figure}, options: {verifier: 'other.py:check'}}"
    stage = "- {kind: rl, steps: 1, engine: 'e.py:Mine', "
    stage += "rewards: [{use: verifier}, {use: 'brief.py:f'}, {use: '/shared/there.py:f'}]}\n"
    recipe = f"{PLAIN}{stage}data: {{train: [{source}], held_out: [{{use: /shared/held.parquet}}, {{use: org/name}}], "
    recipe += "verifiers: ['checks/own.py:check']}\n"
    bundle = folder.bundle("mine.yaml", recipe)
    names = ["brief.py", "checks/own.py", "data/pictures/1.png", "data/pictures/2.png", "data/rows.jsonl", "e.py"]
    assert sorted(bundle.files) == [f"job/{name}" for name in [*names, "mine.yaml", "other.py"]]


def test_what_code_imports_and_names_and_what_options_name(folder):
    """A task file's own data: in its options, or as a text in its code; its modules; an engine's configuration."""
    text = "from helper import rows\nfrom pathlib import Path\nTABLE = Path(__file__).with_name('table.csv')\n"
    folder.write("code/tasks.py", text + "LOST, SECRET, UP = 'lost.csv', '.env', '../above.txt'\n")
    folder.write("code/helper.py", "from pack import inner\nnames = open('names.txt').read()\n")
    folder.write("code/pack/__init__.py", "NOTHING = '/etc/passwd' + '~/x' + 'https://a/b'\n")
    folder.write("reward.py", "import numpy, side\n")
    folder.write("engine.py", "import adapter\n")
    for name in ("code/pack/inner.py", "code/table.csv", "code/.env", "code/unused.py", "side.py", "adapter.py"):
        folder.write(name)
    for name in (
        "names.txt",
        "above.txt",
        "scans/a.png",
        "scans/deep/b.png",
        "scans/.git/x",
        "code/near.json",
        "e.json",
    ):
        folder.write(name)
    folder.write("code/near.json")
    folder.write("e.json")
    folder.write("loaded/train.jsonl")
    folder.write("unnamed/x.txt")
    options = (
        "{scans: scans, nested: [{file: near.json}], split: held, n: 3, here: ., up: .., none: '', url: 'https://a'}"
    )
    stage = "- {kind: rl, steps: 1, engine: 'engine.py:Mine', engine_options: {config: e.json, far: /shared/x}, "
    stage += "rewards: [{use: 'trl:reward.py:f'}]}\n"
    recipe = f"{PLAIN}{stage}data: {{train: [{{use: 'code/tasks.py:tasks', options: {options}}}, {{use: loaded}}]}}\n"
    sent = sorted(folder.bundle("mine.yaml", recipe).files)
    assert sent == sorted(
        f"job/{name}"
        for name in (
            *("mine.yaml", "code/tasks.py", "code/helper.py", "code/pack/__init__.py", "code/pack/inner.py"),
            *("code/table.csv", "names.txt", "code/near.json", "scans/a.png", "scans/deep/b.png"),
            *("reward.py", "side.py", "engine.py", "adapter.py", "e.json", "loaded/train.jsonl"),
        )
    )


def test_a_text_in_code_that_happens_to_be_a_file_moves_no_base(folder):
    folder.write("README.md")
    folder.write("recipes/brief.py", "WORDS = ['README.md']\n")
    recipe = f"{PLAIN}- {{kind: rl, steps: 1, rewards: [{{use: 'brief.py:f'}}]}}\n"
    bundle = folder.bundle("recipes/mine.yaml", recipe, working_dir=folder.path)
    assert (bundle.folder, bundle.recipe) == ("job/recipes", "mine.yaml")


def test_files_above_the_recipe_keep_their_place(folder):
    folder.write("data/rows.jsonl", '{"question": "?", "answer": "1"}')
    folder.write("plugs/brief.py")
    recipe = PLAIN + "- {kind: rl, steps: 1, rewards: [{use: '../../plugs/brief.py:f'}]}\n"
    recipe += "data: {train: [{use: ../../data/rows.jsonl}]}\n"
    bundle = folder.bundle("a/b/mine.yaml", recipe)
    assert (bundle.folder, bundle.recipe) == ("job/here/here", "mine.yaml")
    assert sorted(bundle.files) == ["job/data/rows.jsonl", "job/here/here/mine.yaml", "job/plugs/brief.py"]


def test_a_whole_folder(folder):
    for name in (
        ".git/HEAD",
        ".env",
        ".venv/bin/python",
        "runs/a/x.pt",
        "rewards.py",
        "figures/1.png",
        "a/__pycache__/x",
    ):
        folder.write(name)
    bundle = folder.bundle("recipes/mine.yaml", PLAIN, working_dir=folder.path)
    assert (bundle.folder, bundle.recipe) == ("job/recipes", "mine.yaml")
    assert sorted(bundle.files) == ["job/figures/1.png", "job/recipes/mine.yaml", "job/rewards.py"]
    reward = f"{PLAIN}- {{kind: rl, steps: 1, rewards: [{{use: 'rewards.py:f'}}]}}\n"
    bundle = folder.bundle("recipes/mine.yaml", reward, working_dir=folder.path)
    assert (bundle.folder, bundle.recipe) == ("job", "recipes/mine.yaml")


def test_what_would_not_be_there(folder):
    folder.write("model/config.json")
    with pytest.raises(UserError, match=rf"model.path = 'model' .* such as model.path={folder.path}/model"):
        folder.bundle("mine.yaml", PLAIN, "model.path=model")
    with pytest.raises(UserError, match=r"names 'lost.jsonl', but there is no such file in"):
        folder.bundle("mine.yaml", PLAIN, "data.train.0.use=lost.jsonl")
    folder.write("outside.py")
    reward = f"{PLAIN}- {{kind: rl, steps: 1, rewards: [{{use: '../outside.py:f'}}]}}\n"
    with pytest.raises(UserError, match=r"^\.\./outside.py lies outside --working-dir"):
        folder.bundle("in/mine.yaml", reward, working_dir=folder.path / "in")
    with pytest.raises(UserError, match=r"^the recipe .*mine.yaml lies outside --working-dir"):
        folder.bundle("mine.yaml", PLAIN, working_dir=folder.path / "in")
    with pytest.raises(UserError, match="no such folder"):
        folder.bundle("mine.yaml", PLAIN, working_dir=folder.path / "nowhere")


def test_too_much_to_send(folder, monkeypatch):
    monkeypatch.setattr(bundles, "MOST_BYTES", 2**20)
    with folder.write("big.jsonl").open("wb") as file:
        file.truncate(2**21)
    bundle = folder.bundle("mine.yaml", PLAIN, "data.train.0.use=big.jsonl")
    with pytest.raises(UserError, match=r"hold 2 MiB \(the largest is .*big.jsonl\), at most 1 MiB"):
        bundle.write(folder.path / "job.zip")


def test_the_same_contents_are_the_same_archive(folder):
    bundle = folder.bundle("mine.yaml", PLAIN)
    bundle.write(folder.path / "1.zip")
    os.utime(folder.path / "mine.yaml", (1, 10**9))
    bundle.write(folder.path / "2.zip")
    assert (folder.path / "1.zip").read_bytes() == (folder.path / "2.zip").read_bytes()


def test_the_packages_import_from_the_archive_and_are_told_from_others(folder):
    """A fresh interpreter with the archive on its path, as on the cluster; then with a `rewards.py` before it."""
    recipe = folder.write("mine.yaml", PLAIN)
    bundle = make_bundle(recipe, load_recipe(recipe), working_dir=None, with_packages=True)
    bundle.write(folder.path / "job.zip")
    with zipfile.ZipFile(folder.path / "job.zip") as archive:
        archive.extractall(folder.path / "sent")
    code = (
        "import importlib.metadata as m, rewards; from rl.cli.cluster.bundle import *; "
        "print(fingerprint(read_packages()), package_folder('rewards'), m.version('thinkvl'), rewards.__file__)"
    )

    def run(*path):
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, path))}
        command = [sys.executable, "-P", "-c", code]
        return subprocess.run(command, env=environment, cwd=folder.path, capture_output=True, text=True)

    sent = folder.path / "sent"
    digest, place, number, imported = run(sent).stdout.split()
    assert (digest, place, imported) == (fingerprint(bundle.packages), f"{sent}/rewards", f"{sent}/rewards/__init__.py")
    assert number == VERSION
    assert "configs/recipes/quickstart.yaml" in bundle.packages


def test_a_file_that_shadows_a_package_is_found(folder, monkeypatch):
    folder.write("rewards.py")
    monkeypatch.syspath_prepend(str(folder.path))
    monkeypatch.delitem(sys.modules, "rewards")
    with pytest.raises(
        UserError, match=rf"`import rewards` finds {folder.path}/rewards.py instead of ThinkVL's package"
    ):
        read_packages()


def test_one_changed_letter_is_other_code():
    packages = {"rl/a.py": b"x = 1", "rl/b.py": b"", "configs/recipes/q.yaml": b"a"}
    assert fingerprint(packages) == fingerprint(dict(reversed(packages.items())))
    assert fingerprint(packages) != fingerprint(packages | {"rl/a.py": b"x = 2"})
    assert fingerprint(packages) != fingerprint(packages | {"rl/c.py": b""})
    assert fingerprint({"a.py": b"bc.py", "c.py": b""}) != fingerprint({"a.py": b"", "c.py": b"bc.py"})


def test_a_row_sends_files_of_its_data_folder_only(tmp_path, monkeypatch):
    """However they are spelled; what lies elsewhere stays here, whether named by `..`, absolutely or by a link."""
    data = tmp_path / "work" / "data"
    data.mkdir(parents=True)
    monkeypatch.chdir(data.parent)
    (tmp_path / "work" / ".env").write_text("secret")
    for name in ("a.png", "at 10:30.png", "b.png"):
        (data / name).write_bytes(b"image")
    (data / "link.png").symlink_to("/etc/passwd")
    (data / ".env").write_text("secret")
    images = [
        ".env",
        "a.png",
        "at 10:30.png",
        {"path": "b.png"},
        "../.env",
        "/etc/passwd",
        "link.png",
        {"path": "../.env"},
    ]
    rows = [json.dumps({"question": "?", "answer": "1", "images": [image]}) for image in images]
    (data / "rows.jsonl").write_text("\n".join(rows))
    source = SourceConfig(use="data/rows.jsonl")
    assert images_in_rows(data / "rows.jsonl", source) >= {"a.png", "at 10:30.png", "b.png"}
    inside = {name for name in images_in_rows(data / "rows.jsonl", source) if is_inside(data, name)}
    assert inside == {"a.png", "at 10:30.png", "b.png"}


def test_a_whole_folder_is_sent_without_links_out_of_it(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (root / "a.txt").write_text("a")
    (root / "out.txt").symlink_to("/etc/passwd")
    (root / "in.txt").symlink_to(root / "a.txt")
    assert set(walk(root)) == {"a.txt", "in.txt"}


COLUMNS = [("images", ["a.png"]), ("image", "a.png"), ("image_1", "a.png"), ("image_7", {"path": "a.png"})]
COLUMNS += [("image", {"image": "a.png"}), ("images", '["a.png"]'), ("video", "a.png")]


@pytest.mark.parametrize(("column", "value"), COLUMNS, ids=[name for name, _ in COLUMNS])
@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_images_of_every_column_that_a_run_reads_are_sent(folder, column, value, suffix):
    (folder.path / "data").mkdir()
    (folder.path / "data" / "a.png").write_bytes(b"image")
    row = {"question": "?", "answer": "1", column: value, "other": "b.png"}
    if suffix == "jsonl":
        folder.write("data/rows.jsonl", json.dumps(row))
    else:
        Dataset.from_list([row]).to_parquet(str(folder.path / "data" / "rows.parquet"))
    bundle = folder.bundle("mine.yaml", f"{PLAIN}data: {{train: [{{use: data/rows.{suffix}}}]}}\n")
    assert sorted(bundle.files) == ["job/data/a.png", f"job/data/rows.{suffix}", "job/mine.yaml"]


def test_images_as_bytes_are_not_read_to_find_paths(folder):
    features = Features({"question": Value("string"), "answer": Value("string"), "image": ImageFeature(decode=False)})
    (folder.path / "data").mkdir()
    (folder.path / "data" / "a.png").write_bytes(b"image")
    rows = [{"question": "?", "answer": "1", "image": {"bytes": b"here", "path": "a.png"}}]
    Dataset.from_list(rows, features=features).to_parquet(str(folder.path / "data" / "rows.parquet"))
    source = SourceConfig(use="data/rows.parquet")
    assert list(path_rows(folder.path / "data" / "rows.parquet", source)) == [{"image": {"path": "a.png"}}]
