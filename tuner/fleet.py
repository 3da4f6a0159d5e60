"""Measuring on the nodes of a Ray cluster.

Each node is a :class:`~polycomp.tuner.machine.LocalMachine` in an actor of its own, so crashes, hangs and memory are
kept from it as on this machine; the actor of a node that times has all of the node's CPUs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import logging
import socket
from collections.abc import Iterator, Mapping
from typing import Any

from polycomp.errors import FleetError
from polycomp.target import Target, host_target
from polycomp.tuner.machine import LocalMachine, Machine, MachineLostError
from polycomp.tuner.pool import Pool
from polycomp.tuner.serving import ProcessFailure
from polycomp.tuner.timer import Limits
from polycomp.tuner.versions import tool_versions

_DIAL_SECONDS = 5.0
_START_SECONDS = 60.0  # within which a node gives its CPUs to an actor


@dataclasses.dataclass(frozen=True)
class Node:
    """A node of a cluster: its ``id`` in Ray, a ``name`` for people, its ``cpus`` and its ``target``."""

    id: str
    name: str
    cpus: float
    target: Target


@dataclasses.dataclass(frozen=True)
class Group:
    """``nodes`` that have the same ``target``, and ``others`` of the cluster, which can only compile for it."""

    target: Target
    nodes: tuple[Node, ...]
    others: tuple[Node, ...]


@contextlib.contextmanager
def connected(address: str) -> Iterator[Cluster]:
    """The cluster at ``address``, which is ``auto`` for that of this machine.

    Raises :class:`FleetError` where ray is not installed, or there is no such cluster.
    """
    try:
        ray: Any = importlib.import_module("ray")  # optional: pip install polycomp[fleet]
    except ModuleNotFoundError as error:
        raise FleetError("--cluster needs Ray, which is not installed; pip install polycomp[fleet]") from error
    _dial(address)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, configure_logging=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise FleetError(f"there is no Ray cluster at {address!r}: {reason}; 'ray start --head' begins one") from error
    try:
        yield Cluster(ray, address)
    finally:
        ray.shutdown()


def _dial(address: str) -> None:
    """Ray would try for a long time."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _DIAL_SECONDS).close()
    except OSError as error:
        reason = error.strerror or str(error)
        raise FleetError(f"there is no Ray cluster at {address!r}: {reason}; 'ray start --head' begins one") from error


class Cluster:
    """A cluster that this process is connected to."""

    def __init__(self, ray: Any, address: str) -> None:
        self._ray, self._address = ray, address

    def groups(self, wanted: Mapping[str, str], threads: int) -> list[Group]:
        """The nodes that have all that is ``wanted`` (a label of that value, or a resource of at least that amount), by
        target, the largest group first. A target has as many cores as the candidates have ``threads`` (0: all).

        Raises :class:`FleetError` when there is none, or another polycomp is installed on one.
        """
        alive = [n for n in self._ray.nodes() if n["Alive"]]
        nodes = {n["NodeID"]: self._node(n, threads) for n in alive}
        chosen = [nodes[n["NodeID"]] for n in alive if _has(n, wanted)]
        if not chosen:
            what = " and ".join(f"{k}={v}" for k, v in wanted.items())
            raise FleetError(
                f"none of the {len(alive)} nodes of the cluster at {self._address!r} has the label or resource {what}; "
                f"'ray start' gives a node labels with --labels and resources with --resources"
            )
        targets: dict[str, list[Node]] = {}
        for node in chosen:
            targets.setdefault(node.target.key, []).append(node)
        others = tuple(node for node in nodes.values() if node not in chosen and node.cpus >= 1)
        groups = [Group(found[0].target, tuple(found), others) for found in targets.values()]
        return sorted(groups, key=lambda group: -len(group.nodes))

    def pool(self, group: Group, limits: Limits, jobs: int = 0) -> Pool:
        """Measures on a group's nodes. The others compile (``jobs`` processes on each; 0: one per CPU); where there are
        none, the nodes themselves, while they don't time.

        Raises :class:`FleetError` when a node does not start.
        """
        compiling = {node.id: jobs or max(1, int(node.cpus)) for node in group.others or group.nodes}
        machines = [self._machine(n, compiling.get(n.id, 0), group.target.cores, limits) for n in group.nodes]
        machines += [self._machine(n, compiling[n.id], 0, limits) for n in group.others]
        for machine in machines:
            machine.wait(_START_SECONDS)
        return Pool(machines, limits)

    def _node(self, raw: Mapping[str, Any], threads: int) -> Node:
        name = f"{raw['NodeManagerHostname']} ({raw['NodeID'][:8]})"
        describe = self._ray.remote(_describe).options(num_cpus=0, **self._on(raw["NodeID"]), max_retries=0)
        try:
            target, versions = self._ray.get(describe.remote(), timeout=_START_SECONDS)
        except self._ray.exceptions.RayError as error:
            raise FleetError(
                f"the node {name} cannot run polycomp: {_reason(error)}; install the same version there"
            ) from error
        if versions != tool_versions():
            theirs, ours = (", ".join(f"{k} {v}" for k, v in x.items()) for x in (versions, tool_versions()))
            raise FleetError(f"the node {name} has {theirs}, and this machine {ours}; install the same on both")
        target = dataclasses.replace(target, cores=threads or target.cores)
        return Node(raw["NodeID"], name, raw["Resources"].get("CPU", 0.0), target)

    def _machine(self, node: Node, jobs: int, threads: int, limits: Limits) -> RayMachine:
        cpus = node.cpus if threads else min(node.cpus, jobs)
        settings = {"num_cpus": cpus, "max_concurrency": jobs + 2, **self._on(node.id)}
        actor = self._ray.remote(LocalMachine).options(**settings)
        place = (node.name, jobs, threads)
        return RayMachine(self._ray, actor.remote(*place, limits.memory_bytes), *place)

    def _on(self, node: str) -> dict[str, Any]:
        strategies: Any = importlib.import_module("ray.util.scheduling_strategies")
        return {"scheduling_strategy": strategies.NodeAffinitySchedulingStrategy(node, soft=False)}


class RayMachine(Machine):
    """A :class:`LocalMachine` that lives in an actor."""

    def __init__(self, ray: Any, actor: Any, name: str, jobs: int, threads: int) -> None:
        super().__init__(name, jobs, threads > 0)
        self._ray, self._actor = ray, actor

    def wait(self, seconds: float) -> None:
        """Until it has started. Raises :class:`FleetError` when that takes longer."""
        try:
            self._ray.get(self._actor.__ray_ready__.remote(), timeout=seconds)
        except self._ray.exceptions.GetTimeoutError as error:
            raise FleetError(
                f"the node {self.name} did not give its CPUs to the tuning within {seconds:g} seconds; "
                f"other jobs of the cluster have them"
            ) from error
        except self._ray.exceptions.RayError as error:
            raise FleetError(f"the node {self.name} cannot run polycomp: {_reason(error)}") from error

    def build(self, job: int, request: Any, seconds: float) -> Any:
        """Ask a compile process there."""
        return self._answer(self._actor.build.remote(job, request, seconds))

    def time(self, request: Any, seconds: float) -> Any:
        """Ask the timing process there."""
        return self._answer(self._actor.time.remote(request, seconds))

    def close(self) -> None:
        """End the actor, whose processes end when it does."""
        with contextlib.suppress(self._ray.exceptions.RayError):
            self._ray.get(self._actor.close.remote(), timeout=_DIAL_SECONDS)
        self._ray.kill(self._actor)

    def _answer(self, reference: Any) -> Any:
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, ProcessFailure):
                raise error.cause from None
            raise
        except self._ray.exceptions.RayError as error:
            raise MachineLostError(f"the node {self.name} was lost: {_reason(error)}") from error


def _describe() -> tuple[Target, dict[str, str]]:
    return host_target(), tool_versions()


def _has(node: Mapping[str, Any], wanted: Mapping[str, str]) -> bool:
    labels, resources = node.get("Labels", {}), node["Resources"]
    return all(labels.get(k) == v or _at_least(resources.get(k), v) for k, v in wanted.items())


def _at_least(amount: float | None, wanted: str) -> bool:
    return amount is not None and wanted.replace(".", "", 1).isdigit() and amount >= float(wanted)


def _reason(error: Exception) -> str:
    """The last line that says something: Ray tells the whole story."""
    return next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)
