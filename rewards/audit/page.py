"""An audit as a page for people and as JSON for programs."""

from __future__ import annotations

import base64
import html
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from configs.text import counted, printable
from rewards.audit.check import Tried
from rewards.audit.data import CODES, Finding
from rewards.types import Task, VerdictKind

_SHOWN = 50  # findings of a kind on the page; the JSON has all
_LARGEST = 300_000  # bytes of an image that the page takes in
_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;width:100%;margin:.6rem 0 1.6rem}th,td{border-bottom:1px solid #ddd;padding:.3rem .6rem;
text-align:left;vertical-align:top}td{overflow-wrap:anywhere}th{background:#f5f5f5;white-space:nowrap}
td.n,th.n{text-align:right;white-space:nowrap;width:8rem}
code{white-space:pre-wrap;background:#f6f6f6;padding:0 .2rem}.bad{color:#b02a2a;font-weight:600}.good{color:#1d7a46}
.muted{color:#777}img{image-rendering:pixelated;max-height:112px;border:1px solid #ddd}
h1 small{font-weight:400;color:#777;font-size:60%}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSummary:
    """One source of tasks and how much of it was looked at."""

    name: str
    role: str  # train, validation, held_out, or "" outside a recipe
    checked: int
    total: int | None  # None where it is endless
    left_out: int  # rows that cannot become a task

    @property
    def title(self) -> str:
        """`digit_sums (held_out)`."""
        return f"{self.name} ({self.role})" if self.role else self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedTask:
    """A task and everything that was tried on it, for the page."""

    task: Task
    tried: Sequence[Tried]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditReport:
    """All that an audit found."""

    data: str
    sources: Sequence[SourceSummary]
    findings: Sequence[Finding]
    ignored: Mapping[str, int]  # code -> findings that were told to be ignored
    not_tried: Mapping[str, int]  # verifier -> tasks that were only looked at
    verifications: int
    seconds: float
    samples: Sequence[CheckedTask] = ()

    @property
    def counts(self) -> dict[str, int]:
        """Code -> number of findings, in the order of `CODES`."""
        found = Counter(finding.code for finding in self.findings)
        return {code: found[code] for code in CODES if found[code]}


def as_json(report: AuditReport) -> dict[str, Any]:
    """Everything but the samples."""
    return {
        "data": report.data,
        "clean": not report.findings,
        "counts": report.counts,
        "ignored": dict(report.ignored),
        "not_tried": dict(report.not_tried),
        "verifications": report.verifications,
        "seconds": round(report.seconds, 1),
        "sources": [asdict(source) for source in report.sources],
        "findings": [asdict(finding) for finding in report.findings],
    }


def as_page(report: AuditReport) -> str:
    """A self-contained page: what was checked, each kind of finding with its tasks, and what was tried on a few."""
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>Audit of {_text(report.data)}</title>",
        f"<style>{_STYLE}</style><h1>Audit of {_text(report.data)} <small>{_headline(report)}</small></h1>",
        _sources(report),
        _overview(report),
        *(_details(code, report) for code in report.counts),
        *(["<h2>What was tried</h2>", *map(_sample, report.samples)] if report.samples else []),
    ]
    return "\n".join(parts)


def _headline(report: AuditReport) -> str:
    found = "no findings" if not report.findings else counted(len(report.findings), "finding")
    return f"{found}; {counted(report.verifications, 'verification')} in {report.seconds:.0f} s"


def _sources(report: AuditReport) -> str:
    rows = [
        f"<tr><td>{_text(s.title)}<td class=n>{s.checked:,}"
        f"<td class=n>{'endless' if s.total is None else f'{s.total:,}'}<td class=n>{s.left_out:,}"
        for s in report.sources
    ]
    head = "<table><tr><th>source<th class=n>tasks checked<th class=n>of<th class=n>rows left out"
    return head + "".join(rows) + "</table>"


def _overview(report: AuditReport) -> str:
    rows = []
    for code, meaning in CODES.items():
        count = report.counts.get(code, 0)
        shown = f"<a class=bad href='#{code}'>{count:,}</a>" if count else "<span class=good>0</span>"
        ignored = report.ignored.get(code, 0)
        shown += f" <span class=muted>({ignored:,} ignored)</span>" if ignored else ""
        rows.append(f"<tr><td>{code}<td>{meaning}<td class=n>{shown}")
    note = "".join(
        f"<p class=muted>{counted(count, 'task')} with the verifier <code>{_text(name)}</code>: "
        f"answers were not tried.</p>"
        for name, count in report.not_tried.items()
    )
    return "<table><tr><th>finding<th>meaning<th class=n>count" + "".join(rows) + "</table>" + note


def _details(code: str, report: AuditReport) -> str:
    found = [finding for finding in report.findings if finding.code == code]
    rows = [
        f"<tr><td>{_text(f.task_id or f.source)}<td>{_text(f.message)}<td>{_code(f.answer) if f.answer else ''}"
        f"<td>{_code(f.response) if f.verdict else ''}<td>{_text(f.verdict)}<td>{_text(f.question[:200])}"
        for f in found[:_SHOWN]
    ]
    more = f"<p class=muted>{len(found) - _SHOWN:,} more are in the JSON.</p>" if len(found) > _SHOWN else ""
    head = "<table><tr><th>task<th>what<th>reference<th>tried<th>verdict<th>question"
    return f"<h2 id='{code}'>{code}: {CODES[code]}</h2>{head}{''.join(rows)}</table>{more}"


def _sample(sample: CheckedTask) -> str:
    task = sample.task
    images = "".join(
        f"<img alt='' src='data:image/*;base64,{base64.b64encode(image).decode()}'> "
        for image in task.images
        if len(image) <= _LARGEST
    )
    rows = []
    for tried in sample.tried:
        right = tried.verdict.kind is VerdictKind.CORRECT
        rows.append(
            f"<tr><td>{_text(tried.case.name)}<td>{_code(tried.case.response)}"
            f"<td class={'good' if right else 'muted'}>{tried.verdict.kind}<td>{_text(tried.verdict.rule)}"
        )
    return (
        f"<h3>{_text(task.id)}</h3><p>{images}</p><p>{_text(task.question)}</p><p>reference "
        f"<code>{_text(task.answer)}</code>, verifier <code>{_text(task.verifier)}</code></p>"
        f"<table><tr><th>case<th>response<th>verdict<th>rule{''.join(rows)}</table>"
    )


def _code(response: str) -> str:
    shown = response if len(response) <= 160 else f"{response[:100]} … ({len(response):,} characters)"
    return f"<code>{_text(shown)}</code>" if shown else "<span class=muted>(nothing)</span>"


def _text(value: str) -> str:
    return html.escape(printable(value, keep="\n\t"))
