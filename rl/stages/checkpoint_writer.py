"""The checkpoints of a stage, written while training goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from configs.errors import UserError
from rl.checkpoint import fresh_shards, load_checkpoint, random_state, restore_random_state, save_checkpoint, shards_of
from rl.learner.parallel import FinishCheckpoint, staged_copy
from rl.learner.protocol import ModelProtocol
from rl.run.stage_weights import weight_hashes


class CheckpointWriter:
    """Copies the state to CPU memory, then writes it in a thread. At most one checkpoint is on its way.

    A checkpoint has its name once it is complete, so a kill leaves the one before. An error of the thread is raised by
    the next call here. `base` is the folder or hub name of the model that the stage trains: checkpoints hold only what
    is trained, so the hashes of the base are in them. `on_written` is called in the thread after each checkpoint. As a
    context, it waits at the end, also after an error.
    """

    def __init__(self, folder: Path, *, base: str, on_written: Callable[[], None]) -> None:
        self._folder, self._base, self._on_written = folder, Path(base), on_written
        self._hashes: dict[str, str] | None = None  # of the base; hashing reads all of it, so it is done once
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._written: Future[None] | None = None

    def restore(self, learner: ModelProtocol, say: Callable[[str], None]) -> dict[str, Any] | None:
        """Give `learner` and the random generators the newest readable checkpoint; its state, or None without one.

        Raises UserError if the base is no longer the model that the checkpoint belongs to.
        """
        state, problems = load_checkpoint(self._folder)
        for problem in problems:
            say(problem)
        if state is not None:
            self._check_base(state["base"], int(state["step"]))
            learner.read_checkpoint(shards_of(self._folder, state["step"]), state["learner"])
            restore_random_state(state["random"])
        return state

    def save(self, step: int, learner: ModelProtocol, rest: Mapping[str, Any]) -> None:
        """Begin to write the state of `learner`, the random generators and `rest`; returns once all is copied."""
        self.wait()
        finish = learner.write_checkpoint(fresh_shards(self._folder, step))
        state = staged_copy({**rest, "random": random_state()})
        self._written = self._thread.submit(self._write, step, finish, state)

    def check(self) -> None:
        """Raise the error of a checkpoint that could not be written; does not wait for one on its way."""
        if self._written is not None and self._written.done():
            self.wait()

    def wait(self) -> None:
        """Wait until the checkpoint on its way is complete. Raises its error."""
        written, self._written = self._written, None
        if written is not None:
            written.result()

    def _write(self, step: int, finish: FinishCheckpoint, state: dict[str, Any]) -> None:
        if self._hashes is None:
            self._hashes = weight_hashes(self._base)
        state = {**state, "learner": finish(), "base": self._hashes}
        shards = fresh_shards(self._folder, step) if state["learner"] is None else None
        save_checkpoint(self._folder, step, state, shards=shards)
        self._on_written()

    def _check_base(self, known: Mapping[str, str], step: int) -> None:
        self._hashes = weight_hashes(self._base)
        changed = [name for name in sorted({**known, **self._hashes}) if known.get(name) != self._hashes.get(name)]
        if changed:
            raise UserError(
                f"{self._base}: {changed[0]} is not as it was when the checkpoint of step {step} was written, and the "
                f"checkpoint holds only what is trained; put it back, or delete {self._folder.parent} to train this "
                "stage again"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            self.wait()
        except Exception:
            if error is None:  # else the first error is the one to report
                raise
        finally:
            self._thread.shutdown()
