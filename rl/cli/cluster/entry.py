"""The entry point of a job: joins the cluster, checks that all nodes have the same code, then runs `thinkvl`."""

from __future__ import annotations

import os
import platform
import signal
import sys
from types import FrameType

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from configs.errors import UserError
from configs.text import counted
from rl.cli import main as cli
from rl.cli.cluster.bundle import fingerprint, package_folder, read_packages
from rl.cli.terminal import end_with

CODE = "THINKVL_CODE"  # the fingerprint of the packages that were sent
_NODE_SECONDS = 120.0  # for a node to unpack the job's files and start a worker


def main() -> None:
    """Check the cluster, then run the command line in `sys.argv`."""
    signal.signal(signal.SIGTERM, _stop)  # `ray job stop`
    try:
        ray.init(log_to_driver=False, configure_logging=False)
        print(check_nodes(), flush=True)
    except UserError as error:
        end_with(error, 1)
    except KeyboardInterrupt:
        sys.exit(130)
    cli.main()


def check_nodes() -> str:
    """Return one line about the cluster. Raises UserError if a node imports other code than the driver."""
    wanted, place = fingerprint(read_packages()), package_folder("rewards")
    sent = os.environ.get(CODE, wanted)
    if wanted != sent:
        raise UserError(f"the driver imports other code than was sent: `rewards` comes from {place}; unset PYTHONPATH")
    nodes = [node for node in ray.nodes() if node["Alive"]]
    probe = ray.remote(num_cpus=0)(_probe)
    probes = {
        probe.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(): node
        for node in nodes
    }
    done, late = ray.wait(list(probes), num_returns=len(probes), timeout=_NODE_SECONDS)
    if late:
        names = ", ".join(probes[reference]["NodeManagerAddress"] for reference in late)
        raise UserError(f"{names} started no worker within {_NODE_SECONDS:.0f} s; see the node's logs, or take it out")
    for reference in done:
        try:
            found, there = ray.get(reference)
        except RayError as error:
            raise UserError(
                f"node {probes[reference]['NodeManagerAddress']} cannot run the job's code: {error}"
            ) from error
        if found != wanted:
            raise UserError(
                f"node {probes[reference]['NodeManagerAddress']} imports other code than the driver: there {there}, "
                f"here {place}; bring both to one version"
            )
    total = ray.cluster_resources()
    return (
        f"cluster: {counted(len(nodes), 'node')}, {counted(total.get('CPU', 0), 'CPU')}, "
        f"{counted(total.get('GPU', 0), 'GPU')}; "
        f"Ray {ray.__version__}, Python {platform.python_version()}, one code on all nodes"
    )


def _probe() -> tuple[str, str]:
    """The hash of this worker's code and its folder; if a package is shadowed, "" and the error."""
    try:
        return fingerprint(read_packages()), str(package_folder("rewards"))
    except UserError as error:
        return "", str(error)


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
