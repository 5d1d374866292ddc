"""The copy of a run under a URL: complete or absent, whatever fails on the way."""

import json
import shutil
import uuid

import fsspec
import pytest

from configs.errors import UserError
from rl.run.mirror import Mirror


@pytest.fixture(params=["memory", "file"])
def url(request, tmp_path):
    if request.param == "memory":
        return f"memory://{uuid.uuid4().hex}/run"
    return f"file://{tmp_path}/there/run"


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "runs" / "mine"
    write(folder, "recipe.yaml", "name: mine")
    write(folder, "rl/checkpoints/step-000002.pt", "two")
    write(folder, "rl/checkpoints/step-000004.pt.partial", "half")
    write(folder, "rl/best/model.safetensors", "weights")
    write(folder, "sft/model/model.safetensors", "weights")
    write(folder, "lock", "123")
    write(folder, "metrics.jsonl", "{}\n")
    return folder


def write(folder, name, text):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_name("writing").write_text(text)
    path.with_name("writing").rename(path)


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_text() for p in sorted(folder.rglob("*")) if p.is_file()}


def complete(folder):
    return {n: text for n, text in contents(folder).items() if n != "lock" and not n.endswith(".partial")}


def objects(url):
    fs, root = fsspec.core.url_to_fs(url)
    return fs.ls(f"{root}/objects", detail=False)


def test_a_run_comes_back_on_an_empty_machine(run, url, tmp_path):
    Mirror(url).push(run)
    assert len(objects(url)) == 5, "equal files are one object, and the run's id is another"
    expected = complete(run)
    shutil.rmtree(run)
    assert Mirror(url).pull(run) == 6
    assert contents(run) == expected
    assert Mirror(f"{url}/nothing").pull(tmp_path / "other") == 0
    assert not (tmp_path / "other").exists()


def test_only_what_is_new_is_sent_and_what_is_gone_is_deleted(run, url, monkeypatch):
    mirror = Mirror(url)
    mirror.push(run)
    sent, put = [], mirror._fs.put_file
    monkeypatch.setattr(mirror._fs, "put_file", lambda here, there: (sent.append(here), put(here, there)))
    write(run, "rl/checkpoints/step-000004.pt", "four")
    (run / "rl/checkpoints/step-000002.pt").unlink()
    with (run / "metrics.jsonl").open("a") as file:
        file.write("{}\n")
    mirror.push(run)
    assert sorted(name.rsplit("/", 1)[1] for name in sent) == ["metrics.jsonl", "step-000004.pt"]
    assert len(objects(url)) == 5
    expected = complete(run)
    shutil.rmtree(run)
    Mirror(url).pull(run)
    assert contents(run) == expected


@pytest.mark.parametrize("fails", ["put_file", "pipe_file", "mv"])
def test_a_half_upload_leaves_the_copy_before(run, url, monkeypatch, fails):
    """The file system breaks in the middle of an object, of the list, or before its rename; the next push is whole."""
    Mirror(url).push(run)
    before = complete(run)
    write(run, "rl/checkpoints/step-000004.pt", "four and more")
    mirror = Mirror(url)

    def broken(*args):
        if fails == "put_file":
            mirror._fs.pipe_file(args[1], b"four")
        raise ConnectionError("the line is dead")

    with monkeypatch.context() as patch:
        patch.setattr(mirror._fs, fails, broken)
        with pytest.raises(UserError, match=r"cannot be written \(ConnectionError: the line is dead\)"):
            mirror.push(run)
    expected = complete(run)
    shutil.move(run, run.with_name("aside"))
    Mirror(url).pull(run)
    assert contents(run) == before
    shutil.rmtree(run)
    Mirror(url).push(run.with_name("aside"))
    Mirror(url).pull(run)
    assert contents(run) == expected, "the half of an object was not taken for the whole"


def test_a_damaged_copy_is_refused_and_nothing_is_left(run, url, tmp_path):
    Mirror(url).push(run)
    fs, root = fsspec.core.url_to_fs(url)
    damaged = json.loads(fs.cat_file(f"{root}/run.json"))["rl/checkpoints/step-000002.pt"]["xxh3_128"]
    fs.pipe_file(f"{root}/objects/{damaged}", b"two?")
    with pytest.raises(UserError, match=r"step-000002.pt is not as it was written"):
        Mirror(url).pull(tmp_path / "new" / "mine")
    assert not (tmp_path / "new" / "mine").exists()
    fs.pipe_file(f"{root}/run.json", json.dumps({"../../out": {"size": 1, "xxh3_128": damaged}}).encode())
    with pytest.raises(UserError, match="outside the run's folder"):
        Mirror(url).pull(tmp_path / "new" / "mine")


def test_two_runs_cannot_share_a_url(run, url, tmp_path):
    Mirror(url).push(run)
    expected, other = complete(run), tmp_path / "runs" / "other"
    write(other, "recipe.yaml", "name: other")
    for act in (Mirror(url).check, Mirror(url).push):
        with pytest.raises(UserError, match=r"holds another run than .*other; give each run a URL of its own"):
            act(other)
    Mirror(url).push(run)
    shutil.rmtree(run)
    Mirror(url).pull(run)
    assert contents(run) == expected
    Mirror(url).push(run)


def test_an_unknown_url_is_refused():
    with pytest.raises(UserError, match="mirror = 'nope://x'"):
        Mirror("nope://x")
