"""The graph under construction while a Python function runs on traced tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from polycomp.dtypes import DType, as_dtype
from polycomp.errors import LeakedTensorError, ShapeError
from polycomp.expr import Const, Expr, Interval, Var, linear_in, simplify
from polycomp.graph.ir import Call, Graph, Node, Operator, Symbol, TensorType
from polycomp.te import Dim
from polycomp.tracing.value import Value, where

if TYPE_CHECKING:
    from polycomp.tracing.tensor import Tensor

Array = np.ndarray[Any, Any]

_MOST_ELEMENTS = 2**48


class Trace:
    """Collects canonical nodes; every value's type is inferred by the operators' own rules.

    ``operators`` is the operator library; ``make`` builds the tensors that users see.
    """

    def __init__(self, name: str, operators: Mapping[str, Operator], make: Callable[..., Tensor]) -> None:
        self.name = name
        self.inputs: list[str] = []
        self.closed = False
        self._operators = operators
        self._make = make
        self._nodes: list[Node] = []
        self._types: dict[str, TensorType] = {}
        self._constants: dict[str, Array] = {}
        self._known: dict[int, tuple[Array, str]] = {}  # by id; the array is kept so that the id stays its own
        self._symbols: dict[str, Symbol] = {}
        self._counts: dict[str, int] = {}

    @property
    def ranges(self) -> dict[Var, Interval]:
        """Inclusive bounds of the open sizes."""
        return {s.var: (s.minimum, s.maximum) for s in self._symbols.values()}

    def symbol(self, name: str) -> Var:
        """The open size called ``name``."""
        symbol = self._symbols.setdefault(name, Symbol(Var(name, DType.INT64)))
        return symbol.var

    def demand(self, dim: Dim, minimum: int) -> bool:
        """Make ``dim >= minimum`` hold by demanding it of the one open size in ``dim``; False when that cannot be.

        Calls with smaller sizes are compiled on their own, with all sizes known.
        """
        if not isinstance(dim, Expr):
            return dim >= minimum
        for name, symbol in self._symbols.items():
            form = linear_in(dim, symbol.var)
            if form is not None and form[0] > 0 and isinstance(form[1], Const):
                least = -(-(minimum - int(form[1].value)) // form[0])
                self._symbols[name] = Symbol(symbol.var, max(symbol.minimum, least), symbol.maximum)
                return True
        return False

    def dim(self, dim: Dim) -> Dim:
        """``dim`` in normal form: an int when it is known."""
        if not isinstance(dim, Expr):
            return int(dim)
        simple = simplify(dim, self.ranges)
        return int(simple.value) if isinstance(simple, Const) else simple

    def input(self, name: str, kind: TensorType, weak: bool = False) -> Tensor:
        """A parameter of the function."""
        unique = self._fresh(name)
        self.inputs.append(unique)
        self._types[unique] = kind
        return self._make(self, unique, kind, weak)

    def constant(self, array: Array) -> Tensor:
        """An array that is known now: it becomes a weight. The same array twice is one weight."""
        found = self._known.get(id(array))
        if found is None:
            name = self._fresh("constant")
            kind = TensorType(as_dtype(array.dtype), array.shape)
            self._types[name] = kind
            self._constants[name] = np.array(array, kind.dtype.numpy, order="C")
            found = self._known[id(array)] = (array, name)
        return self._make(self, found[1], self._types[found[1]])

    def view(self, value: Value, weak: bool = False) -> Tensor:
        """The same value, as weak as said."""
        return self._make(self, value.name, value.type, weak)

    def known(self, value: Value) -> Array | None:
        """The content of a constant; None for everything else."""
        return self._constants.get(value.name)

    def emit(self, op: str, inputs: Sequence[Value | None], attributes: Mapping[str, Any] | None = None) -> Tensor:
        """Append a node with one output."""
        (result,) = self.emit_all(op, inputs, attributes or {}, 1)
        return result

    def emit_all(
        self, op: str, inputs: Sequence[Value | None], attributes: Mapping[str, Any], n_outputs: int
    ) -> list[Tensor]:
        """Append a node. Raises ShapeError or DTypeError naming the user's line when the inputs do not fit."""
        self._check_open(inputs)
        return self._append(where(), op, inputs, attributes, n_outputs)

    def _append(
        self, line: str, op: str, inputs: Sequence[Value | None], attributes: Mapping[str, Any], n_outputs: int
    ) -> list[Tensor]:
        call = Call(line, op, tuple(None if v is None else v.type for v in inputs), attributes, n_outputs)
        types = tuple(self._checked(t, line) for t in self._operators[op].infer(call))
        outputs = tuple(self._fresh(op.lower()) for _ in types)
        names = tuple("" if v is None else v.name for v in inputs)
        source = f"{line} {op}"
        self._nodes.append(Node(self._fresh(source), op, names, outputs, dict(attributes), (source,)))
        self._types.update(zip(outputs, types, strict=True))
        return [self._make(self, o, t) for o, t in zip(outputs, types, strict=True)]

    def _check_open(self, inputs: Sequence[Value | None]) -> None:
        for value in inputs:
            if value is not None and (value.owner is not self or self.closed):
                raise LeakedTensorError(
                    f"{where()}: a tensor traced in {value.owner.name!r} is used outside of that call; return it from "
                    f"the function instead of keeping it"
                )

    def _checked(self, kind: TensorType, line: str) -> TensorType:
        shape = tuple(self.dim(d) for d in kind.shape)
        count = 1
        for size in shape:
            count *= size if isinstance(size, int) else 1
        if count >= _MOST_ELEMENTS:
            raise ShapeError(f"{line}: the result would have the shape {list(map(str, shape))}: too large")
        return TensorType(kind.dtype, shape)

    def _fresh(self, hint: str) -> str:
        name = hint
        while name in self._counts:
            self._counts[hint] += 1
            name = f"{hint}.{self._counts[hint]}"
        self._counts[name] = 0
        return name

    def finish(self, outputs: Sequence[Value]) -> Graph:
        """The graph with ``outputs``; nothing can be added afterwards."""
        self._check_open(outputs)
        # The function has returned: the user's line would be that of its caller, and differ from call to call.
        results = [self._append("result", "Identity", [o], {}, 1)[0].name for o in outputs]
        self.closed = True
        return Graph(
            name=self.name,
            inputs=tuple(self.inputs),
            outputs=tuple(results),
            nodes=tuple(self._nodes),
            types=dict(self._types),
            constants=dict(self._constants),
            symbols=tuple(self._symbols.values()),
        )
