"""`thinkvl compare`: runs side by side, as a table here and as one HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from configs.errors import UserError
from configs.load import load_recipe
from rl.pages.compare import ComparedRun, figure_rows, group_by_recipe, title_of, write_comparison
from rl.run.console import PlainConsole
from rl.run.folder import RunFolder
from rl.run.trackers.jsonl_tracker import read_metrics


def compare_command(names: Sequence[str], *, output: Path, console: PlainConsole) -> Path:
    """Write the page of the runs `names`, print their final figures, and return the page's path.

    Raises UserError for a folder without a run, and for fewer than two different runs.
    """
    folders: dict[Path, str] = {}
    for name in names:
        path = Path(name).expanduser()
        if not (path / "recipe.yaml").is_file():
            raise UserError(f"{name}: no run is there (no recipe.yaml); name the folder of a run, its output_dir")
        if path.resolve() in folders:
            console.print(f"{name}: is the same run as {folders[path.resolve()]} and is shown once")
        folders.setdefault(path.resolve(), name)
    if len(folders) < 2:
        raise UserError(f"{' '.join(names)}: is one run; name at least two different ones")
    groups = group_by_recipe([_read(name, path) for path, name in folders.items()])
    write_comparison(groups, output)
    for group in groups:
        for run in group:
            console.print(f"{title_of(group)}: {run.name}, seed {run.config.seed}, {run.state}")
    rows = figure_rows(groups)
    if rows:
        table = Table(*rows[0])
        for row in rows[1:]:
            table.add_row(*row)
        console.print(table)
    else:
        console.print("no run has held-out figures yet")
    console.print(f"curves and recipes: {output}")
    return output


def _read(name: str, path: Path) -> ComparedRun:
    metrics: dict[str, list[dict[str, Any]]] = {}
    for row in read_metrics(path / "metrics.jsonl"):
        metrics.setdefault(str(row["stage"]), []).append(row)
    return ComparedRun(
        name=name,
        config=load_recipe(path / "recipe.yaml"),
        metrics=metrics,
        records={record.name: record for record in RunFolder(path).records()},
        finished=(path / "summary.json").exists(),
    )
