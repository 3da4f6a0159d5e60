"""The graph under construction: values, canonical nodes and the symbols of dynamic dimensions."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from polycomp.dtypes import DType, as_dtype
from polycomp.errors import CompileError, ShapeError
from polycomp.expr import Expr, Interval, Var, compare, eq, prove, wrap
from polycomp.graph import Call, Condition, Graph, Node, Operator, Symbol, TensorType
from polycomp.importers.onnx.equalities import unify
from polycomp.importers.onnx.known import Array, from_dims, is_symbolic, simplify_dim, to_dims
from polycomp.te import Dim


@dataclasses.dataclass(eq=False)
class Value:
    """A tensor while importing. ``name`` is "" as long as it is only known and no node of the graph reads it."""

    type: TensorType
    name: str = ""
    known: Array | None = None

    @property
    def dtype(self) -> DType:
        return self.type.dtype

    @property
    def shape(self) -> tuple[Dim, ...]:
        return self.type.shape

    @property
    def rank(self) -> int:
        return len(self.type.shape)


class Builder:
    """Collects canonical nodes, inferring every value's type with the operators' own rules."""

    def __init__(self, operators: Mapping[str, Operator], equal: Mapping[str, Dim]) -> None:
        """``equal`` maps names of open sizes to what they were found to be equal to."""
        self.operators = operators
        self._equal = equal
        self.nodes: list[Node] = []
        self.types: dict[str, TensorType] = {}
        self.constants: dict[str, Array] = {}
        self._symbols: dict[str, Symbol] = {}
        self._conditions: list[Condition] = []
        self.ranges: dict[Var, Interval] = {}
        self._names: set[str] = set()

    def fresh(self, hint: str) -> str:
        """A name not given before, ``hint`` itself when possible."""
        name, count = hint or "value", 0
        while name in self._names:
            count += 1
            name = f"{hint}/{count}"
        self._names.add(name)
        return name

    def symbol(self, name: str) -> Dim:
        """The symbolic size called ``name``, which becomes an identifier; or what it is equal to."""
        identifier = re.sub(r"\W", "_", name) or "size"
        identifier = f"size_{identifier}" if identifier[0].isdigit() else identifier
        if identifier in self._equal:
            same = self._equal[identifier]
            return self.symbol(same.name) if isinstance(same, Var) else same
        if identifier not in self._symbols:
            var = Var(identifier, DType.INT64)
            self._symbols[identifier] = Symbol(var)
            self.ranges[var] = (1, None)
        return self._symbols[identifier].var

    def bound(self, var: Var, maximum: int) -> None:
        """Demand ``var <= maximum``: beyond that the model's own operators contradict each other."""
        symbol = self._symbols[var.name]
        limit = maximum if symbol.maximum is None else min(symbol.maximum, maximum)
        self._symbols[var.name] = dataclasses.replace(symbol, maximum=limit)
        self.ranges[var] = (symbol.minimum, limit)

    def dim(self, dim: Dim) -> Dim:
        """``dim`` in normal form."""
        return simplify_dim(dim, self.ranges)

    def input(self, name: str, value_type: TensorType) -> Value:
        """A graph input."""
        self._names.add(name)
        self.types[name] = value_type
        return Value(value_type, name)

    def constant(self, array: Array, hint: str) -> Value:
        """A constant with the numpy array's dtype; it enters the graph when a node reads it."""
        return Value(TensorType(as_dtype(array.dtype), array.shape), "", array)

    def known(self, dims: Sequence[Dim], shape: tuple[int, ...], dtype: DType) -> Value:
        """A small integer tensor whose elements are known, perhaps only as expressions over symbols."""
        return Value(TensorType(dtype, shape), "", from_dims(dims, shape, dtype, self.ranges))

    def emit(
        self,
        node: str,
        op: str,
        inputs: Sequence[Value | None],
        attributes: Mapping[str, Any],
        n_outputs: int = 1,
    ) -> list[Value]:
        """Append a canonical node for the ONNX node called ``node``; its outputs' types are inferred."""
        kept = list(inputs)
        while kept and kept[-1] is None:
            kept.pop()
        call = Call(node, op, tuple(v.type if v else None for v in kept), attributes, n_outputs)
        types = self._infer(call)
        self._conditions += _conditions(call, types)
        names = tuple(self.name_of(v, node) if v else "" for v in kept)
        outputs = tuple(self.fresh(f"{node}:{op}") for _ in types)
        self.nodes.append(Node(self.fresh(node), op, names, outputs, dict(attributes), (node,)))
        self.types.update(zip(outputs, types, strict=True))
        return [Value(t, n) for t, n in zip(types, outputs, strict=True)]

    def _infer(self, call: Call) -> tuple[TensorType, ...]:
        if call.op not in self.operators:
            raise CompileError(f"the operator library has no {call.op!r}, which the importer needs for {call.node!r}")
        unify(call, self.operators[call.op].kind)
        types = self.operators[call.op].infer(call)
        if len(types) != call.n_outputs:
            raise CompileError(f"{call.op} {call.node!r} has {len(types)} outputs where {call.n_outputs} were expected")
        return tuple(self.checked(t, call.node) for t in types)

    def checked(self, found: TensorType, node: str) -> TensorType:
        """``found`` with dimensions in normal form; raises ShapeError for a negative one or a size past 2**62."""
        shape = tuple(self.dim(d) for d in found.shape)
        elements = 1
        for d in shape:
            if not isinstance(d, Expr):
                if not 0 <= d < 2**48:
                    raise ShapeError(f"node {node!r} would have an output of the impossible shape {list(shape)}")
                elements *= d
        if elements >= 2**48:
            raise ShapeError(f"node {node!r} would have an output of shape {list(map(str, shape))}: too large")
        return TensorType(found.dtype, shape)

    def name_of(self, value: Value, reader: str) -> str:
        """The name of ``value`` in the graph; a value that was only known becomes a constant or nodes now."""
        if value.name:
            return value.name
        if value.known is None:
            raise CompileError(f"a value read by {reader!r} has neither name nor content")
        if is_symbolic(value.known):
            value.name = self._materialise(value, reader)
        else:
            value.name = self.fresh(f"{reader}.constant")
            self.types[value.name] = value.type
            self.constants[value.name] = np.ascontiguousarray(value.known).reshape(value.known.shape)
        return value.name

    def _materialise(self, value: Value, reader: str) -> str:
        """A symbolic value as a tensor: one-element Ranges (their start is an expression), joined."""
        assert value.known is not None
        ranges = [
            self.emit(reader, "Range", (), {"start": d, "size": 1, "delta": 1, "dtype": value.dtype})[0]
            for d in to_dims(value.known)
        ]
        joined = ranges[0] if len(ranges) == 1 else self.emit(reader, "Concat", ranges, {"axis": 0})[0]
        if value.rank == 1:
            return joined.name
        return self.emit(reader, "Reshape", [joined], {"shape": value.shape})[0].name

    def finish(self, name: str, inputs: Sequence[str], outputs: Sequence[tuple[str, Value]]) -> Graph:
        """The graph, with its outputs called as in the model (through an Identity where the name is taken)."""
        taken = set(inputs) | set(self.constants)
        own = [self.fresh(wanted) if wanted in inputs else wanted for wanted, _ in outputs]
        published = {name: wanted for name, (wanted, _) in zip(own, outputs, strict=True) if name != wanted}
        renamed: dict[str, str] = {}
        for wanted, (_, value) in zip(own, outputs, strict=True):
            produced = self.name_of(value, wanted)
            if produced in taken or produced in renamed or value.name in self.constants:
                produced = self.emit(wanted, "Identity", [value], {})[0].name
            renamed[produced] = wanted
        fix = _renamer(renamed, set(inputs) | set(self.types))
        return Graph(
            name=name,
            inputs=tuple(inputs),
            outputs=tuple(own),
            nodes=tuple(_rename_node(n, fix) for n in self.nodes),
            types={fix(n): t for n, t in self.types.items()},
            constants={fix(n): c for n, c in self.constants.items()},
            symbols=tuple(self._symbols.values()),
            conditions=self._open_conditions(),
            published=published,
        )

    def _open_conditions(self) -> tuple[Condition, ...]:
        """The conditions that some sizes do not satisfy. Raises ShapeError for one that no sizes satisfy."""
        found: dict[Expr, Condition] = {}
        for condition in self._conditions:
            verdict = prove(condition.holds, self.ranges)
            if verdict is False:
                raise ShapeError(f"{condition.node}: {condition.problem}, whatever the open sizes are")
            if verdict is None:
                found.setdefault(condition.holds, condition)
        return tuple(found.values())


def _conditions(call: Call, types: Sequence[TensorType]) -> list[Condition]:
    """What an operator's shape rule takes for granted about symbolic sizes."""
    where = f"{call.op} node {call.node!r}"
    wanted = [
        Condition(where, compare("ge", d, 0), f"its output would have {d} elements in dimension {position}")
        for t in types
        for position, d in enumerate(t.shape)
        if isinstance(d, Expr)
    ]
    if call.op == "Reshape":
        before, after = call.input(0), types[0]
        problem = f"{before} cannot be reshaped to [{', '.join(map(str, after.shape))}]"
        wanted += _equal(where, math.prod(before.shape), math.prod(after.shape), problem)
    if call.op == "Split":
        size, axis = call.input(0).shape[call.attr("axis")], call.attr("axis")
        parts = [t.shape[axis] for t in types]
        problem = f"{size} elements cannot be split into parts of {', '.join(map(str, parts))}"
        wanted += _equal(where, size, sum(parts), problem)
    return wanted


def _equal(where: str, a: Dim, b: Dim, problem: str) -> list[Condition]:
    """The condition that both are equal; none when they are ints, which the shape rule has compared."""
    symbolic = isinstance(a, Expr) or isinstance(b, Expr)
    return [Condition(where, eq(wrap(a), wrap(b)), problem)] if symbolic else []


def _renamer(renamed: Mapping[str, str], names: set[str]) -> Callable[[str], str]:
    """Rename as told; a value that had one of the wanted names by chance gets another."""
    wanted = set(renamed.values())

    def fix(name: str) -> str:
        if name in renamed:
            return renamed[name]
        if name not in wanted:
            return name
        count = 1
        while f"{name}/{count}" in names or f"{name}/{count}" in wanted:
            count += 1
        return f"{name}/{count}"

    return fix


def _rename_node(node: Node, fix: Callable[[str], str]) -> Node:
    inputs = tuple(fix(i) if i else "" for i in node.inputs)
    return dataclasses.replace(node, inputs=inputs, outputs=tuple(fix(o) for o in node.outputs))
