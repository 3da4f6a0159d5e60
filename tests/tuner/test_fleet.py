"""Tuning on a Ray cluster: a real one of several node processes, one of which is killed in the middle."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from typing import Any

import planted
import pytest

from polycomp.errors import FleetError
from polycomp.target import host_target
from polycomp.tuner.database import Database
from polycomp.tuner.fleet import connected
from polycomp.tuner.session import Budget, Layer, Session, library_first
from polycomp.tuner.timer import Limits

ray: Any = pytest.importorskip("ray", reason="Ray is not installed: pip install polycomp[fleet]")

_STORE_BYTES = 80 << 20
LIMITS = Limits(compile_seconds=30.0, memory_bytes=4 << 30)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head that compiles, and two nodes that time."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    usual = {"object_store_memory": _STORE_BYTES, "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, **usual})
    try:
        for _ in range(2):
            made.add_node(num_cpus=1, labels={"target": "here"}, resources={"board": 1}, **usual)
        yield made
    finally:
        made.shutdown()


def test_a_cluster_is_used_and_the_death_of_a_node_survived(cluster: Any, tmp_path: pathlib.Path) -> None:
    with connected(cluster.address) as found:
        for wanted in ({"target": "elsewhere"}, {"board": "2"}):
            with pytest.raises(FleetError, match=r"none of the 3 nodes of the cluster at .* has the label or resource"):
                found.groups(wanted, 1)
        assert len(found.groups({"board": "1"}, 1)[0].nodes) == 2
        (group,) = found.groups({"target": "here"}, 1)
        assert (len(group.nodes), len(group.others)) == (2, 1)
        assert (group.target.features, group.target.cores) == (host_target().features, 1)
        layer = Layer(planted.product(), 1, library_first())
        database = Database(tmp_path / "log")
        with found.pool(group, LIMITS) as pool:
            assert [(m.jobs, m.times) for m in pool.machines] == [(0, True), (0, True), (1, False)]
            session = Session([layer], pool, database)
            session.run(Budget(4))
            dead = next(n for n in cluster.worker_nodes if n.node_id == group.nodes[0].id)
            cluster.remove_node(dead, allow_graceful=False)
            session.run(Budget(16))
    statuses = {record.status for record in database.records()}
    assert statuses <= {"ok", "refused"}
    assert len(list(database.records())) == layer.trials == 16
