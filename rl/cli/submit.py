"""`thinkvl submit`: submits a recipe as a Ray job and follows its log until it ends."""

from __future__ import annotations

import importlib.util
import os
import re
import secrets
import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.errors import UserError
from configs.load import load_recipe
from configs.schema import RunConfig
from configs.text import counted, printable
from rl.run.console import PlainConsole

if TYPE_CHECKING:  # Ray takes a second to import: a mistake in the recipe shows before
    from rl.cli.cluster.bundle import Bundle
    from rl.cli.cluster.client import JobClient

SENDABLE = (
    "HF_",
    "HUGGING_FACE_",
    "TRANSFORMERS_",
    "TOKENIZERS_",
    "TORCH_",
    "PYTORCH_",
    "NCCL_",
    "CUDA_",
    "OMP_",
    "MKL_",
)
_PROXIES = ("http_proxy", "https_proxy", "no_proxy")
_MOST_SHOWN = 12  # files that are sent
_RESULTS = "summary.json, curves.png, stages.html, examples.html, export/"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOptions:
    """The options of `thinkvl submit`."""

    working_dir: Path | None = None
    pip: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    gpus: float = 0
    wait: bool = True


def submit(recipe: Path, overrides: Sequence[str], address: str, options: JobOptions, *, console: PlainConsole) -> None:
    """Check the recipe here, submit it to the cluster at `address`, and follow its log unless `options.wait` is false.

    Raises ConfigError or UserError before anything is sent, and UserError if the job does not succeed; Ctrl-C ends the
    process with 130 and leaves the job running.
    """
    config = load_recipe(recipe, overrides)
    environment = job_environment(options.env, os.environ)
    output = Path(config.output_dir).expanduser().absolute()
    from rl.cli.cluster.bundle import fingerprint, make_bundle
    from rl.cli.cluster.client import JobClient

    with_packages = not any(re.match(r"thinkvl\b", requirement) for requirement in options.pip)
    bundle = make_bundle(recipe, config, working_dir=options.working_dir, with_packages=with_packages)
    if bundle.packages:
        environment["THINKVL_CODE"] = fingerprint(bundle.packages)
    cluster = JobClient(address)
    job = f"{re.sub(r'[^A-Za-z0-9_-]+', '-', config.name)}-{secrets.token_hex(4)}"
    console.print(f"cluster {cluster.address} answers (Ray {cluster.ray_version})")
    try:
        _send(cluster, job, bundle, entrypoint(bundle, overrides, output), environment, options, console)
        _print_job(job, cluster.address, output, console)
        if options.wait:
            _follow(cluster, job, config, output, console)
    except KeyboardInterrupt:
        console.print(
            f"\nno longer following; the job {job} goes on if it was submitted. See above how to follow or stop it, or "
            f"list all jobs: ray job list --address {cluster.address}",
        )
        sys.exit(130)


def entrypoint(bundle: Bundle, overrides: Sequence[str], output: Path) -> str:
    """The job's shell command. `-P` keeps the job's folder, which has the user's files, off the import path."""
    arguments = [bundle.recipe, *overrides, f"output_dir={output}"]
    return f"cd {shlex.quote(bundle.folder)} && exec python -P -m rl.cli.cluster.entry run {shlex.join(arguments)}"


def job_environment(wanted: Sequence[str], here: Mapping[str, str]) -> dict[str, str]:
    """The job's environment variables: those of `--env`; a name without a value takes its value from `here`.

    Raises UserError for a name that is not allowed or has no value.
    """
    environment = {"PYTHONUNBUFFERED": "1", "COLUMNS": "120"}  # the log grows line by line, as wide as a terminal
    for item in wanted:
        name, given, value = item.partition("=")
        if not name.startswith(SENDABLE) and name.lower() not in _PROXIES:
            raise UserError(
                f"--env {name}: not sent to clusters; allowed are {', '.join(_PROXIES)} and names that begin with "
                f"{', '.join(SENDABLE)}. Set others on the nodes, before `ray start`"
            )
        if not given and name not in here:
            raise UserError(f"--env {name}: is not set here; set it, or write --env {name}=VALUE")
        environment[name] = value if given else here[name]
    return environment


def _send(
    cluster: JobClient,
    job: str,
    bundle: Bundle,
    command: str,
    environment: dict[str, str],
    options: JobOptions,
    console: PlainConsole,
) -> None:
    with tempfile.TemporaryDirectory(prefix="thinkvl-") as folder:
        archive = Path(folder) / "job.zip"
        size = bundle.write(archive)
        mine = len(bundle.files)
        what = "ThinkVL's packages and " if bundle.packages else ""
        console.print(f"sending {what}{counted(mine, 'file')} of yours ({size / 2**20:.1f} MiB): {_shown(bundle)}")
        runtime_env: dict[str, Any] = {"working_dir": str(archive), "env_vars": environment}
        if options.pip:
            runtime_env["pip"] = list(options.pip)
        cluster.submit(job=job, entrypoint=command, runtime_env=runtime_env, gpus=options.gpus)


def _shown(bundle: Bundle) -> str:
    """The names of the user's files, cut to about two lines."""
    names = sorted(os.path.relpath(name, bundle.folder) for name in bundle.files)
    more = len(names) - _MOST_SHOWN
    return ", ".join(names[:_MOST_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _print_job(job: str, address: str, output: Path, console: PlainConsole) -> None:
    lines = [
        f"submitted job {job}",
        f"  follow   ray job logs --address {address} --follow {job}",
        f"  stop     ray job stop --address {address} {job}",
        f"  results  {output} (on the cluster: a folder that every node sees)",
    ]
    console.print("\n".join(lines))


def _follow(cluster: JobClient, job: str, config: RunConfig, output: Path, console: PlainConsole) -> None:
    """Print the log until the job ends, then where the results are. Raises UserError if it did not succeed."""
    tail = ""

    def write(text: str) -> None:
        nonlocal tail
        tail = (tail + text)[-20_000:]
        sys.stdout.write(printable(text, keep="\r\n\t"))
        sys.stdout.flush()

    def say(text: str) -> None:
        console.print(text)

    details = cluster.follow(job, write=write, say=say)
    status = str(details.status)
    if status == "SUCCEEDED":
        summary = output / "summary.json"
        where = f"in {output}" if summary.exists() else _elsewhere(output)
        say(f"job {job} succeeded; results of {config.name} ({_RESULTS}) {where}")
        return
    whole = f"the whole log: ray job logs --address {cluster.address} {job}"
    if status == "STOPPED":
        raise UserError(f"job {job} was stopped; the same `thinkvl submit` continues the run. {whole}")
    code = "" if details.driver_exit_code is None else f" with exit code {details.driver_exit_code}"
    said = "" if tail.strip() else f": {(details.message or 'no message').strip()}"
    raise UserError(f"job {job} failed{code}{said}{failure_hint(tail)}\n{whole}")


def _elsewhere(output: Path) -> str:
    return (
        f"are in {output} on the cluster, which this machine does not see; copy that folder from the head node, "
        "or name a shared one next time (output_dir=PATH)"
    )


def failure_hint(log: str) -> str:
    """Advice for a failed job, from the end of its log."""
    missing = re.findall(r"ModuleNotFoundError: No module named '([\w.]+)'", log)
    if missing and importlib.util.find_spec(missing[-1].partition(".")[0]):
        return f"; the cluster's Python has no {missing[-1]}: install ThinkVL on every node, or add it with --pip"
    if re.search(r"python: not found|unknown option:? -P", log, re.IGNORECASE):
        return "; the cluster's `python` must be 3.11 or newer: activate its environment before `ray start`"
    return ""
