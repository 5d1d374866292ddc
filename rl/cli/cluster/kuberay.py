"""The Kubernetes file of a run: a ConfigMap with the recipe and its files, and a RayJob of KubeRay that runs it."""

from __future__ import annotations

import base64
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import ray
import yaml

from configs.errors import UserError
from configs.schema import RunConfig
from rl.cli.cluster.bundle import Bundle, make_bundle
from rl.cli.cluster.slurm import job_name

MOST_BYTES = 900_000  # Kubernetes takes 1 MiB of a ConfigMap, Base64 and names included
MOUNT = "/shared"  # of the volume, where the command line names no path
FILES = "/thinkvl/files"  # where the containers see the recipe and its files
_HEADER = """\
# Written by `thinkvl submit --write`. Start it with `kubectl apply -f THIS_FILE`; it needs KubeRay 1.1 or newer.
# To continue a run that was stopped, `kubectl delete -f THIS_FILE` and apply it again: it resumes from its newest
# checkpoint, which lies on the volume.
"""


def kuberay_job(
    config: RunConfig,
    recipe: Path,
    overrides: Sequence[str],
    nodes: int,
    gpus: int,
    *,
    image: str,
    volume: str,
    env: Sequence[tuple[str, str]],
) -> str:
    """The YAML text. Raises UserError if the results would be lost with the containers, or the files are too large."""
    claim, _, mount = volume.partition(":")
    mount = mount or MOUNT
    output = _output(config, mount)
    bundle = make_bundle(recipe, config, working_dir=None, with_packages=False)
    name = job_name(config.name)
    pod = _pod(name, bundle, image=image, gpus=gpus, claim=claim, mount=mount, env=env)
    arguments = shlex.join([bundle.recipe, *overrides, f"output_dir={output}"])
    group = {"rayStartParams": {}, "template": {"spec": pod}}
    cluster: dict[str, Any] = {"rayVersion": ray.__version__, "headGroupSpec": group}
    if nodes > 1:
        more = {"groupName": "nodes", "replicas": nodes - 1, "minReplicas": nodes - 1, "maxReplicas": nodes - 1}
        cluster["workerGroupSpecs"] = [more | group]
    job = {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {"name": name},
        "spec": {
            "entrypoint": f"cd {shlex.quote(f'{FILES}/{bundle.folder}')} && "
            f"exec python -P -m rl.cli.cluster.entry run {arguments}",
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": 600,
            "rayClusterSpec": cluster,
        },
    }
    return _HEADER + yaml.dump_all(
        [_config_map(name, bundle), job], Dumper=_NoAliases, sort_keys=False, allow_unicode=True
    )


class _NoAliases(yaml.SafeDumper):
    """Writes the same pod twice, where YAML would write a reference."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _output(config: RunConfig, mount: str) -> PurePosixPath:
    """The run's folder on the volume."""
    if not PurePosixPath(mount).is_absolute():
        raise UserError(f"--volume ...:{mount}: the path must be absolute, such as /shared")
    output = PurePosixPath(mount) / config.output_dir  # an absolute output_dir stays as it is
    if ".." in output.parts or not output.is_relative_to(mount):
        raise UserError(
            f"output_dir = {config.output_dir!r} lies outside the volume, which is mounted at {mount}, so the results "
            f"would be lost with the containers; set output_dir={mount}/runs/{Path(config.output_dir).name}"
        )
    return output


def _config_map(name: str, bundle: Bundle) -> dict[str, Any]:
    texts: dict[str, str] = {}
    binaries: dict[str, str] = {}
    for key, file in _keys(bundle).values():
        data = file.read_bytes()
        try:
            texts[key] = data.decode()
        except UnicodeDecodeError:
            binaries[key] = base64.b64encode(data).decode()
    size = sum(map(len, texts.values())) + sum(map(len, binaries.values()))
    if size > MOST_BYTES:
        largest = max(bundle.files.values(), key=lambda file: file.stat().st_size)
        raise UserError(
            f"the recipe and its files hold {size:,} bytes (the largest is {largest}); a ConfigMap takes "
            f"{MOST_BYTES:,}. Copy large files to the volume and name them in the recipe by their absolute path"
        )
    parts = {"data": texts} | ({"binaryData": binaries} if binaries else {})
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"{name}-files"}} | parts


def _keys(bundle: Bundle) -> Mapping[str, tuple[str, Path]]:
    """Each file's key in the ConfigMap, where slashes are not allowed, and its place on this machine."""
    return {name: (f"file-{place}", bundle.files[name]) for place, name in enumerate(sorted(bundle.files))}


def _pod(
    name: str, bundle: Bundle, *, image: str, gpus: int, claim: str, mount: str, env: Sequence[tuple[str, str]]
) -> dict[str, Any]:
    items = [{"key": key, "path": path} for path, (key, _) in _keys(bundle).items()]
    variables = [("PYTHONUNBUFFERED", "1"), *env]
    container: dict[str, Any] = {
        "name": "thinkvl",
        "image": image,
        "env": [{"name": key, "value": value} for key, value in variables],
        "volumeMounts": [{"name": "files", "mountPath": FILES}, {"name": "shared", "mountPath": mount}],
    }
    if gpus:
        container["resources"] = {"limits": {"nvidia.com/gpu": gpus}}
    volumes = [
        {"name": "files", "configMap": {"name": f"{name}-files", "items": items}},
        {"name": "shared", "persistentVolumeClaim": {"claimName": claim}},
    ]
    return {"containers": [container], "volumes": volumes}
