"""`thinkvl audit`: checks data and its verifiers before training, without a GPU."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from configs.data import SourceConfig, recipe_verifiers
from configs.errors import UserError
from configs.load import load_recipe
from configs.schema import RunConfig
from configs.text import counted, shorten
from rewards.audit.check import Auditor
from rewards.audit.data import CODES, Duplicates, Finding
from rewards.audit.page import AuditReport, CheckedTask, SourceSummary, as_json, as_page
from rewards.images import BadImage, decode_image
from rewards.plugins.interface import PluginError
from rewards.scorer import Scorer
from rewards.types import Task, Verdict
from rewards.verifiers.options import base_name
from rl.run.console import PlainConsole
from rl.run.progress import StageProgress
from rollouts.tasks.documents import Example
from rollouts.tasks.source import TaskSource, build_source

ENDLESS = 1_000  # tasks of an endless source, where no limit is given
_SEED = 0
_SAMPLES = 3  # tasks of each source whose cases the page shows
_POOL = 40  # tasks from which references of other rows are taken
_STEPS = 200  # of the progress bar


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditOptions:
    """The options of `thinkvl audit`."""

    split: str | None = None
    limit: int | None = None  # tasks of each source
    ignore: Collection[str] = ()  # codes
    output: Path | None = None
    allowed: Collection[str] = ()  # plug-ins that rows may name as their verifier


def audit_command(data: str, *, overrides: Sequence[str], options: AuditOptions, console: PlainConsole) -> int:
    """Audit `data`, write `report.html` and `report.json`, print the counts; return 1 if there are findings, else 0.

    Raises UserError, ConfigError, PluginError or DataSetError where nothing can be audited.
    """
    unknown = sorted(set(options.ignore) - CODES.keys())
    if unknown:
        raise UserError(f"--ignore {', '.join(unknown)}: no such finding; there are {', '.join(CODES)}")
    began = time.monotonic()
    config = load_recipe(Path(data), overrides) if Path(data).suffix in (".yaml", ".yml") else None
    sources = list(_sources(data, config, overrides, options))
    allowed = (*options.allowed, *(recipe_verifiers(*config.all_data) if config else ()))
    with Scorer((), base=Path.cwd(), allowed=allowed) as scorer:
        run = _Run(scorer, options, console)
        for role, source in sources:
            run.source(source, role)
    report = run.report(data, seconds=time.monotonic() - began)
    folder = options.output or Path("audits") / (Path(data).stem.strip(".") or "data")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.html").write_text(as_page(report), encoding="utf-8", errors="replace")
    text = json.dumps(as_json(report), indent=1, ensure_ascii=True)
    (folder / "report.json").write_text(text + "\n", encoding="utf-8")
    _print(report, folder, console)
    return int(bool(report.findings))


def _sources(
    data: str, config: RunConfig | None, overrides: Sequence[str], options: AuditOptions
) -> Iterator[tuple[str, TaskSource]]:
    """The sources that `data` names, each with its role. Opening a file checks each of its rows."""
    if config is not None:
        if options.split:
            raise UserError(f"--split {options.split}: a recipe names its own splits; leave it out")
        roles = ("train", "validation", "held_out")
        named = [(role, entry) for role in roles for data in config.all_data for entry in getattr(data, role)]
        for index, (role, entry) in enumerate(named):
            if (role, entry) not in named[:index]:  # stages may share sources
                yield role, build_source(entry, base=Path.cwd())
        return
    if overrides:
        raise UserError(f"{' '.join(overrides)}: only a recipe takes changes, and {data} is none")
    entry = SourceConfig(use=data, split=options.split or "train")
    yield "", build_source(entry, base=Path.cwd())


class _Run:
    """One audit over several sources."""

    def __init__(self, scorer: Scorer, options: AuditOptions, console: PlainConsole) -> None:
        self._scorer, self._options, self._console = scorer, options, console
        self._auditor = Auditor(judge=self._judge)
        self._duplicates = Duplicates()
        self._findings: list[Finding] = []
        self._summaries: list[SourceSummary] = []
        self._samples: list[CheckedTask] = []
        self._warm = False
        self._images: set[bytes] = set()  # hashes of those that can be decoded

    def source(self, source: TaskSource, role: str) -> None:
        """Audit one source, with a progress bar."""
        whole = None if source.endless else len(source)
        wanted = self._options.limit or whole or ENDLESS
        count = min(wanted, len(source))
        rows = range(count) if source.endless else [at * len(source) // count for at in range(count)]
        size = min(_POOL, len(source))
        examples = [source.task(at * len(source) // size, _SEED) for at in range(size)]
        pool = [example for example in examples if isinstance(example, Task)]
        self._warm_up(pool)
        self._rejected(source)
        every = max(1, count // _STEPS)
        title = f"{source.name[:24]} ({role})" if role else source.name[:24]  # a source may play two roles
        with StageProgress(self._console, title, total=-(-count // every)) as bar:
            for done, row in enumerate(rows, 1):
                example = source.task(row, _SEED)
                if isinstance(example, Task):
                    self._task(example, role, pool, shown=done <= _SAMPLES)
                else:  # a document: nothing to verify
                    self._findings += self._broken_images(example)
                if done % every == 0 or done == count:
                    bar.advance({"findings": len(self._findings)})
        left_out = source.report.total
        summary = SourceSummary(name=source.name, role=role, checked=count, total=whole, left_out=left_out)
        self._summaries.append(summary)

    def _warm_up(self, pool: Sequence[Task]) -> None:
        """Start the worker process for algebra, if it is needed, so that its start-up slows no verification down."""
        if not self._warm and any(base_name(task.verifier) in ("math", "choice") for task in pool):
            self._warm = True
            self._scorer.score([r"\boxed{1+x}"], [Task(id="", source="", question="", answer="x+1")])

    def report(self, data: str, *, seconds: float) -> AuditReport:
        """The report on the sources so far, without the ignored findings."""
        ignore = set(self._options.ignore)
        return AuditReport(
            data=data,
            sources=self._summaries,
            findings=[finding for finding in self._findings if finding.code not in ignore],
            ignored=Counter(finding.code for finding in self._findings if finding.code in ignore),
            not_tried=self._auditor.not_tried,
            verifications=self._auditor.verifications,
            seconds=seconds,
            samples=self._samples,
        )

    def _task(self, task: Task, role: str, pool: Sequence[Task], *, shown: bool) -> None:
        golds = [other.answer for other in pool if other.verifier == task.verifier]
        self._findings += self._duplicates.check(task, role)
        self._findings += self._broken_images(task)
        self._findings += self._auditor.check(task, golds)
        if shown and task.verifier not in self._auditor.not_tried:
            self._samples.append(CheckedTask(task=task, tried=self._auditor.tried(task, golds)))

    def _broken_images(self, example: Example) -> list[Finding]:
        found = []
        for number, image in enumerate(example.images):
            digest = hashlib.sha256(image).digest()
            if digest in self._images:
                continue
            try:
                decode_image(image)
            except BadImage as error:
                message = f"image {number + 1}: {_plain(error)}"
                finding = Finding(code="bad-image", message=message, source=example.source)
                found.append(finding.on(example) if isinstance(example, Task) else finding)
            else:
                self._images.add(digest)
        return found

    def _rejected(self, source: TaskSource) -> None:
        for reason, row in source.report.rows(source.name):
            code = "bad-image" if reason.startswith("image") or "image that Pillow" in reason else "bad-row"
            self._findings.append(Finding(code=code, message=f"{reason}: {_plain(row)}", source=source.name))

    def _judge(self, responses: Sequence[str], task: Task) -> list[Verdict]:
        try:
            scores = self._scorer.score(responses, [task] * len(responses))
        except PluginError as error:
            raise UserError(str(error)) from error
        return [score.verdict for score in scores]


def _plain(message: object) -> str:
    """An error's text without memory addresses, so that two reports on the same data are equal."""
    return re.sub(r"\s*<_io\.[^>]*>", "", str(message))[:300]


def _print(report: AuditReport, folder: Path, console: PlainConsole) -> None:
    for source in report.sources:
        part = source.total not in (None, source.checked)
        checked = f"{source.checked:,} of {source.total:,} tasks" if part else counted(source.checked, "task")
        console.print(f"{source.title}: {checked}")
    for code, count in report.counts.items():
        first = next(finding for finding in report.findings if finding.code == code)
        example = f"{shorten(first.task_id or first.source, 60)}: {first.message}"
        console.print(f"  {count:>6,} {code:<19} {shorten(example, 160)}")
    for code, count in report.ignored.items():
        console.print(f"  {count:>6,} {code:<19} ignored")
    for verifier, count in report.not_tried.items():
        console.print(f"  {count:>6,} {verifier}: not tried")
    found = counted(len(report.findings), "finding") if report.findings else "clean"
    end = (
        f"{found}: {counted(report.verifications, 'verification')} in {report.seconds:.1f} s; see "
        f"{folder / 'report.html'}"
    )
    console.print(end)
