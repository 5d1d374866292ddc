"""`thinkvl book`: the rollouts of a run as one HTML file."""

from __future__ import annotations

import time
from pathlib import Path

from configs.errors import UserError
from configs.load import load_recipe
from configs.schema import RunConfig
from configs.text import counted
from rl.pages.book import BookOptions, write_book
from rl.run.console import PlainConsole


def book_command(
    name: str, *, stage: str | None, output: Path | None, options: BookOptions, console: PlainConsole
) -> Path:
    """Write the book of a stage of the run `name`, by default the last that has rollouts; the file.

    Raises UserError for a folder without a run, and for a stage, step or task without rollouts.
    """
    run = Path(name).expanduser()
    if not (run / "recipe.yaml").is_file():
        raise UserError(f"{name}: no run is there (no recipe.yaml); name the folder of a run, its output_dir")
    began = time.monotonic()
    config = load_recipe(run / "recipe.yaml")
    chosen = _stage(name, run, config, stage)
    output = output or run / f"book-{chosen}.html"
    summary = write_book(
        run / chosen / "rollouts",
        output,
        title=f"{config.name}, {chosen}",
        tokenizers=_tokenizers(run, config, chosen),
        options=options,
    )
    size = output.stat().st_size / 2**20
    console.print(
        f"{counted(summary.rollouts, 'rollout')} of {counted(summary.groups, 'question')} in {len(summary.steps)} of "
        f"{counted(summary.steps_in_log, 'step')}, {counted(summary.images, 'image')}, {size:.1f} MB, "
        f"{time.monotonic() - began:.1f} s"
    )
    console.print(f"book in {output}  (open it in a browser)")
    return output


def _stage(name: str, run: Path, config: RunConfig, wanted: str | None) -> str:
    """The stage whose rollouts the book shows. Raises UserError where it has none."""
    having = [s.name for s in config.stages if any((run / s.name / "rollouts").glob("step-*.parquet"))]
    if wanted is None and having:
        return having[-1]
    if wanted in having:
        return wanted
    known = f"the stages with rollouts are {', '.join(having)}" if having else "no stage of this run has rollouts yet"
    raise UserError(f"{name}: {known}" if wanted is None else f"--stage {wanted}: has no rollouts; {known}")


def _tokenizers(run: Path, config: RunConfig, stage: str) -> list[Path]:
    """Folders that may hold the tokenizer of the stage's rollouts, the best first."""
    names = [s.name for s in config.stages]
    before = names[names.index(stage) :: -1]
    folders = [run / stage / "best", *(run / name / "model" for name in before), run / "base"]
    return [*folders, Path(config.model.path).expanduser()]
