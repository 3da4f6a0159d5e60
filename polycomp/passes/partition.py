"""A partition of a graph's nodes into groups whose dependences have no cycle."""

from __future__ import annotations

from collections.abc import Iterator

from polycomp.graph import Graph, Group, Node, OpKind
from polycomp.ops import operators


class Partition:
    """Groups are known by a number; at first each node is alone, in the group of its own position."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.position = {n.name: p for p, n in enumerate(graph.nodes)}
        self.producers = graph.producers()
        self.users = graph.consumers()
        self._group = dict(self.position)
        self._members = {p: [n] for p, n in enumerate(graph.nodes)}
        self._outputs = set(graph.outputs)
        self._sharing: set[str] = set()

    def group(self, node: Node) -> int:
        return self._group[node.name]

    def members(self, group: int) -> list[Node]:
        """The nodes of a group in topological order."""
        return self._members[group]

    def groups(self) -> list[int]:
        return list(self._members)

    def is_alone(self, node: Node) -> bool:
        return len(self._members[self.group(node)]) == 1

    def kind(self, node: Node) -> OpKind:
        return OpKind.VIEW if node.name in self._sharing else operators()[node.op].kind

    def share(self, node: Node) -> None:
        """Let a node that is alone be a view: it needs no kernel."""
        self._sharing.add(node.name)

    def outputs(self, group: int) -> list[str]:
        """The values that leave a group."""
        return [o for n in self._members[group] for o in n.outputs if self._leaves(o, group)]

    def _leaves(self, value: str, group: int) -> bool:
        return value in self._outputs or any(self.group(u) != group for u in self.users.get(value, ()))

    def inputs(self, group: int) -> list[str]:
        """The values that a group reads from outside."""
        made = {o for n in self._members[group] for o in n.outputs}
        return list(dict.fromkeys(i for n in self._members[group] for i in n.inputs if i and i not in made))

    def merge(self, a: int, b: int) -> None:
        """Put the nodes of ``b`` into ``a``."""
        self._members[a] = sorted(self._members[a] + self._members.pop(b), key=lambda n: self.position[n.name])
        for node in self._members[a]:
            self._group[node.name] = a

    def part(self, node: Node) -> None:
        """Let a node of a larger group be alone again."""
        group = self.group(node)
        rest = [n for n in self._members[group] if n is not node]
        own = self.position[node.name]
        if own == group:  # the group's number is this node's: the rest moves to another
            other = self.position[rest[0].name]
            self._members[other] = rest
            self._group.update({n.name: other for n in rest})
        else:
            self._members[group] = rest
        self._members[own] = [node]
        self._group[node.name] = own

    def can_merge(self, a: int, b: int) -> bool:
        """Whether no path between the two passes through a third group, which would have to run inside their union."""
        return not self._leads(a, b) and not self._leads(b, a)

    def _successors(self, group: int) -> Iterator[int]:
        for node in self._members[group]:
            for output in node.outputs:
                for user in self.users.get(output, ()):
                    yield self.group(user)

    def _leads(self, start: int, end: int) -> bool:
        """Whether a path from ``start`` to ``end`` passes through another group."""
        seen = {start}
        stack = [s for s in set(self._successors(start)) if s not in (start, end)]
        while stack:
            group = stack.pop()
            if group == end:
                return True
            if group not in seen:
                seen.add(group)
                stack.extend(s for s in self._successors(group) if s not in seen)
        return False

    def ordered(self) -> list[int]:
        """The groups, producers first; otherwise in the order of their last nodes."""
        order: dict[int, None] = {}
        for root in sorted(self._members, key=lambda g: self.position[self._members[g][-1].name]):
            stack = [(root, False)]
            while stack:
                group, done = stack.pop()
                if group in order:
                    continue
                if done:
                    order[group] = None
                    continue
                stack.append((group, True))
                makers = [self.producers[i] for i in self.inputs(group) if i in self.producers]
                stack.extend((self.group(m), False) for m in reversed(makers))
        return list(order)

    def finish(self, group: int, anchor: Node) -> Group:
        """The IR's group."""
        nodes = tuple(self._members[group])
        shares = self.kind(anchor) is OpKind.VIEW
        return Group(anchor.name, nodes, tuple(self.inputs(group)), tuple(self.outputs(group)), anchor, shares)
