"""Uploads a folder to the Hugging Face Hub, private unless `public`. A repeated upload sends only what is missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
from huggingface_hub.utils import validate_repo_id

from configs.errors import UserError
from configs.text import counted, one_line

_TRANSPORT = {"httpx", "httpx2", "httpcore", "httpcore2", "hf_xet"}  # packages whose errors are the network's
# what an earlier upload may have and this one has not; git keeps it
_STALE = ["model*.safetensors", "model.safetensors.index.json", "prompt.json"]
_AGAIN = "Uploaded files are not sent again: run the same command again"
_NO_TOKEN = (
    "the hub wants to know who you are, and there is no token. Make one with the right to write at "
    "https://huggingface.co/settings/tokens, then set the environment variable HF_TOKEN, or run: hf auth login"
)


class Hub:
    """One model repository, `ORG/NAME`. `endpoint` is the Hub's address (HF_ENDPOINT by default)."""

    def __init__(self, repo_id: str, *, private: bool = True, endpoint: str | None = None) -> None:
        self.repo_id, self.private = repo_id, private
        if repo_id.count("/") != 1:
            raise UserError(f"--push {repo_id}: must be ORG/NAME or USER/NAME, such as my-team/thinking-kimi")
        try:
            validate_repo_id(repo_id)
        except HFValidationError as error:
            raise UserError(f"--push {repo_id}: the hub does not take this name: {error}") from error
        self._api = HfApi(endpoint=endpoint, library_name="thinkvl")

    def check_access(self) -> None:
        """Raise UserError if there is no token, or one that cannot write; nothing is changed on the Hub."""
        if get_token() is None:
            raise UserError(f"--push {self.repo_id}: {_NO_TOKEN}")
        with self._explained():
            who = self._api.whoami()
        if who.get("auth", {}).get("accessToken", {}).get("role") == "read":
            raise UserError(
                f"--push {self.repo_id}: the token of {who.get('name')} may only read; make one with the right to "
                "write at https://huggingface.co/settings/tokens"
            )

    def upload(self, folder: Path, *, message: str, say: Callable[[str], None] = print) -> str:
        """Create the repository if it does not exist, upload what it lacks in one commit, and return its address.

        Weights of an earlier upload that `folder` does not have are deleted in the same commit.
        """
        files = [path for path in folder.rglob("*") if path.is_file()]
        size = sum(path.stat().st_size for path in files)
        say(f"uploading {counted(len(files), 'file')}, {size / 1e6:.1f} MB, to {self.repo_id}")
        with self._explained():
            self._create(say)
            self._api.upload_folder(
                repo_id=self.repo_id, folder_path=folder, commit_message=message, delete_patterns=list(_STALE)
            )
        return f"{self._api.endpoint}/{self.repo_id}"

    def _create(self, say: Callable[[str], None]) -> None:
        """Create the repository. An existing one keeps its visibility; UserError if a private one is public."""
        self._api.create_repo(self.repo_id, private=self.private, exist_ok=True)
        found: Any = self._api.model_info(self.repo_id)
        if self.private and not found.private:
            raise UserError(
                f"--push {self.repo_id}: this repository exists and everyone can read it; add --public if that is "
                "meant, or choose another name"
            )
        if found.private and not self.private:
            say(f"{self.repo_id} exists and stays private; it can be made public in its settings on the hub")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn errors of the Hub and the network into a UserError; raise all others unchanged."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            text = self._explain(error)
            if text is None:
                raise
            raise UserError(f"--push {self.repo_id}: {text}") from error

    def _explain(self, error: BaseException) -> str | None:
        """How to fix `error` or its cause; None if it is not an error of the Hub."""
        if isinstance(error, OfflineModeIsEnabled):
            return "HF_HUB_OFFLINE is set, so nothing is sent; unset it"
        if isinstance(error, HfHubHTTPError):
            return self._refusal(error)
        network = isinstance(error, ConnectionError | TimeoutError)
        if network or type(error).__module__.split(".")[0] in _TRANSPORT:
            return f"no answer from {self._api.endpoint} ({one_line(error)}); check the network. {_AGAIN}"
        if isinstance(error, ValueError) and "LFS batch API returned errors" in str(error):
            return f"the hub refuses the weights: {one_line(error)}"
        if error.__cause__ is not None:
            return self._explain(error.__cause__)
        return f"the upload broke off ({one_line(error)}). {_AGAIN}" if isinstance(error, RuntimeError) else None

    def _refusal(self, error: HfHubHTTPError) -> str:
        status = error.response.status_code if error.response is not None else 0
        owner, reason = self.repo_id.split("/")[0], error.server_message or one_line(error)
        if status == 401:
            return f"the hub does not accept the token ({reason}); correct HF_TOKEN, or run: hf auth login --force"
        if status == 403:
            return (
                f"the token may not write there ({reason}); it needs the right to write, and its user must be "
                f"{owner} or a member of {owner} with that right"
            )
        if status == 404:
            return f"the hub knows no user or organization {owner!r}, or does not show it to this token ({reason})"
        if status == 429:
            return f"too many requests ({reason}); wait some minutes. {_AGAIN}"
        if status >= 500:
            return f"the hub has trouble (status {status}). {_AGAIN} in some minutes"
        return f"the hub refuses (status {status}): {reason}"
