"""Finding a cluster and its nodes, and what is said when there are none; with no Ray."""

from __future__ import annotations

import dataclasses
import socket
import sys
import types
from collections.abc import Mapping
from typing import Any

import pytest

from polycomp.errors import FleetError
from polycomp.target import host_target
from polycomp.tuner.fleet import Cluster, Node, connected


def test_without_ray_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    wanted = r"^--cluster needs Ray, which is not installed; pip install polycomp\[fleet\]$"
    with pytest.raises(FleetError, match=wanted), connected("auto"):
        pass


def test_an_address_that_nobody_listens_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", types.ModuleType("ray"))
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # and never listens
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        wanted = f"^there is no Ray cluster at '{address}': Connection refused; 'ray start --head' begins one$"
        with pytest.raises(FleetError, match=wanted), connected(address):
            pass


class Nodes(Cluster):
    """Nodes ``a`` to ``d``: ``c`` has another CPU, ``d`` no label, and ``e`` is dead."""

    def __init__(self) -> None:
        alive = [_raw(name, {} if name == "d" else {"rack": "1"}) for name in "abcd"]
        dead = {**_raw("e", {"rack": "1"}), "Alive": False}
        super().__init__(types.SimpleNamespace(nodes=lambda: [*alive, dead]), "here:1")

    def _node(self, raw: Mapping[str, Any], threads: int) -> Node:
        cpu = "other" if raw["NodeID"] == "c" else "usual"
        return Node(raw["NodeID"], raw["NodeID"], 2.0, dataclasses.replace(host_target(), cpu=cpu, cores=threads))


def _raw(name: str, labels: dict[str, str]) -> dict[str, Any]:
    return {"NodeID": name, "Alive": True, "Labels": labels, "Resources": {"CPU": 2.0, "board": 2.0}}


def names(nodes: tuple[Node, ...]) -> str:
    return "".join(node.name for node in nodes)


def test_nodes_are_grouped_by_their_target() -> None:
    groups = Nodes().groups({"rack": "1", "board": "1"}, 2)
    assert [(names(g.nodes), names(g.others), g.target.cpu, g.target.cores) for g in groups] == [
        ("ab", "d", "usual", 2),
        ("c", "d", "other", 2),
    ]
    assert [(names(g.nodes), names(g.others)) for g in Nodes().groups({}, 1)] == [("abd", ""), ("c", "")]


@pytest.mark.parametrize("wanted", [{"rack": "2"}, {"board": "3"}, {"rack": "1", "gpu": "1"}])
def test_no_node_has_what_is_wanted(wanted: dict[str, str]) -> None:
    text = " and ".join(f"{k}={v}" for k, v in wanted.items())
    message = f"^none of the 4 nodes of the cluster at 'here:1' has the label or resource {text}; 'ray start' gives"
    with pytest.raises(FleetError, match=message):
        Nodes().groups(wanted, 1)
