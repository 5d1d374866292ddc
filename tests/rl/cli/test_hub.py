"""Uploads against a stand-in for the Hub: every byte, who may read it, broken connections, refusals."""

import hashlib
import os
import types

import pytest
from hub_stand_in import HubStandIn
from huggingface_hub import constants
from huggingface_hub.utils import _http

from configs.errors import UserError
from rl.cli.hub import Hub

CARD = "---\nlicense: mit\n---\n\n# A model\n"


@pytest.fixture
def hub(monkeypatch):
    """The stand-in, with a token in the environment and no waiting between retries."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(_http, "time", types.SimpleNamespace(sleep=lambda _: None))
    monkeypatch.setenv("HF_TOKEN", "hf_write")
    server = HubStandIn().start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def folder(tmp_path):
    """Two large files and three small ones, one of them empty."""
    path = tmp_path / "export"
    path.mkdir()
    for number in (1, 2):
        (path / f"model-0000{number}-of-00002.safetensors").write_bytes(os.urandom(200_000))
    (path / "README.md").write_text(CARD)
    (path / "config.json").write_text("{}")
    (path / "empty.txt").write_text("")
    return path


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def push(hub, folder, name="team/model", private=True):
    said = []
    target = Hub(name, private=private, endpoint=hub.endpoint)
    target.check_access()
    url = target.upload(folder, message="Upload", say=said.append)
    return url, said


class TestUpload:
    def test_every_byte_arrives_in_a_private_repository(self, hub, folder):
        url, said = push(hub, folder)
        assert url == f"{hub.endpoint}/team/model"
        assert said == ["uploading 5 files, 0.4 MB, to team/model"]
        assert hub.repositories["team/model"].files == content(folder)
        assert hub.repositories["team/model"].private is True
        assert hub.repositories["team/model"].commits == 1

    def test_public_if_asked(self, hub, folder):
        push(hub, folder, private=False)
        assert hub.repositories["team/model"].private is False

    def test_a_second_upload_sends_nothing(self, hub, folder):
        push(hub, folder)
        push(hub, folder)
        assert len(hub.uploads) == 2
        assert hub.count("POST", "/commit/") == 1

    def test_a_changed_file_is_all_that_is_sent(self, hub, folder):
        push(hub, folder)
        (folder / "model-00002-of-00002.safetensors").write_bytes(b"new" * 1000)
        push(hub, folder)
        assert [len(data) for data in hub.uploads[2:]] == [3000]
        assert hub.repositories["team/model"].files == content(folder)

    def test_weights_of_an_earlier_upload_go_and_other_files_stay(self, hub, folder):
        push(hub, folder)
        hub.repositories["team/model"].files["notes.txt"] = b"by hand"
        for path in folder.glob("model-*"):
            path.unlink()
        (folder / "model.safetensors").write_bytes(b"w" * 100)
        push(hub, folder)
        assert hub.repositories["team/model"].files == content(folder) | {"notes.txt": b"by hand"}


class TestInterruption:
    def test_a_connection_that_breaks_in_the_middle_is_tried_again(self, hub, folder):
        oid, broken = sha256(folder / "model-00002-of-00002.safetensors"), []

        def once(found):
            broken.append(found) if found == oid else None
            return found == oid and len(broken) == 1

        hub.break_off = once
        push(hub, folder)
        assert len(broken) == 2
        assert hub.repositories["team/model"].files == content(folder)

    def test_after_an_interruption_the_same_call_sends_what_is_missing(self, hub, folder):
        oid = sha256(folder / "model-00002-of-00002.safetensors")
        hub.break_off = lambda found: found == oid
        with pytest.raises(UserError, match=r"no answer from http://127.0.0.1.*run the same command again"):
            push(hub, folder)
        assert hub.repositories["team/model"].files == {}  # nobody sees half a model
        assert len(hub.uploads) == 1
        hub.break_off = lambda found: False
        push(hub, folder)
        assert len(hub.uploads) == 2
        assert hub.uploads[1] == (folder / "model-00002-of-00002.safetensors").read_bytes()
        assert hub.repositories["team/model"].files == content(folder)
        assert hub.repositories["team/model"].commits == 1


class TestRefusals:
    def test_no_token_says_where_to_get_one_and_asks_nobody(self, hub, folder, monkeypatch):
        monkeypatch.setattr("rl.cli.hub.get_token", lambda: None)
        with pytest.raises(UserError, match=r"there is no token.*settings/tokens.*HF_TOKEN.*hf auth login"):
            push(hub, folder)
        assert hub.requests == []

    def test_a_token_that_the_hub_does_not_know(self, hub, folder, monkeypatch):
        monkeypatch.setenv("HF_TOKEN", "hf_old")
        with pytest.raises(UserError, match="does not accept the token") as caught:
            push(hub, folder)
        assert "hf_old" not in str(caught.value)

    def test_a_token_that_may_only_read(self, hub, folder, monkeypatch):
        monkeypatch.setenv("HF_TOKEN", "hf_read")
        with pytest.raises(UserError, match="the token of ann may only read"):
            push(hub, folder)
        assert hub.count("POST", "/api/repos/create") == 0

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("model", "must be ORG/NAME or USER/NAME"),
            ("a/b/c", "must be ORG/NAME or USER/NAME"),
            ("team/my model", "does not take this name"),
            ("team/-model-", "does not take this name"),
        ],
    )
    def test_a_wrong_name_asks_nobody(self, hub, name, message):
        with pytest.raises(UserError, match=message):
            Hub(name, endpoint=hub.endpoint)
        assert hub.requests == []

    def test_no_permission(self, hub, folder):
        with pytest.raises(UserError, match=r"the token may not write there.*member of others"):
            push(hub, folder, "others/model")

    def test_no_such_organization(self, hub, folder):
        with pytest.raises(UserError, match="no user or organization 'nobody'"):
            push(hub, folder, "nobody/model")

    def test_a_private_upload_does_not_go_into_a_public_repository(self, hub, folder):
        push(hub, folder, private=False)
        (folder / "config.json").write_text('{"secret": 1}')
        with pytest.raises(UserError, match="everyone can read it; add --public"):
            push(hub, folder, private=True)
        assert hub.repositories["team/model"].files["config.json"] == b"{}"

    def test_a_private_repository_stays_private(self, hub, folder):
        push(hub, folder)
        _, said = push(hub, folder, private=False)
        assert hub.repositories["team/model"].private is True
        assert any("stays private" in text for text in said)

    def test_nobody_answers(self, hub, folder, monkeypatch):
        target = Hub("team/model", endpoint="http://127.0.0.1:9")
        with pytest.raises(UserError, match=r"no answer from http://127.0.0.1:9.*check the network"):
            target.check_access()

    def test_offline(self, hub, folder, monkeypatch):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(UserError, match="HF_HUB_OFFLINE is set"):
            push(hub, folder)

    @pytest.mark.parametrize(
        ("status", "message"),
        [(500, "the hub has trouble"), (429, "too many requests"), (413, r"refuses \(status 413\): made to fail")],
    )
    def test_a_hub_that_cannot(self, hub, folder, status, message):
        hub.fail_with = {"/api/models/team/model/preupload": status}
        with pytest.raises(UserError, match=message):
            push(hub, folder)

    def test_a_card_without_a_licence(self, hub, folder):
        (folder / "README.md").write_text("---\ntags: [a]\n---\n")
        with pytest.raises(UserError, match="license is missing"):
            push(hub, folder)

    def test_our_own_mistakes_pass(self, hub, folder, monkeypatch):
        target = Hub("team/model", endpoint=hub.endpoint)
        monkeypatch.setattr(target, "_create", lambda say: {}["ours"])
        with pytest.raises(KeyError):
            target.upload(folder, message="Upload")
