"""The canonical form of a kernel's tensor expressions, by which equal layers of a model share one kernel.

Two groups of nodes get the same code exactly when their canonical texts are equal: tensors, axes and size parameters
are renamed in the order in which they are met, and names that only people read are left out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from polycomp.expr import Expr, Interval, Load, Reduce, Var, free_vars, to_text, transform, wrap
from polycomp.te import Axis, Dim, Tensor, topological_order


@dataclasses.dataclass(frozen=True)
class CanonicalKernel:
    """Tensor expressions under canonical names.

    ``parameters`` maps each size parameter to the variable of the original that it stands for.
    ``text`` is equal for two kernels exactly when they are the same computation.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    ranges: Mapping[Var, Interval]
    parameters: Mapping[Var, Var]
    text: str


def canonicalize(
    inputs: Sequence[Tensor], outputs: Sequence[Tensor], ranges: Mapping[Var, Interval]
) -> CanonicalKernel:
    """Rename everything in the expressions that compute ``outputs`` from ``inputs``.

    ``ranges`` are inclusive bounds of size parameters; those of parameters that do not occur are dropped.
    """
    order = tuple(dict.fromkeys((*inputs, *topological_order(outputs))))
    names = _Names(_parameters(order))
    tensors: dict[Tensor, Tensor] = {}
    for tensor in order:
        tensors[tensor] = names.tensor(tensor, tensors)
    kept = {new: ranges[old] for old, new in names.parameters.items() if old in ranges}
    new_inputs = tuple(tensors[t] for t in inputs)
    new_outputs = tuple(tensors[t] for t in outputs)
    parameters = {new: old for old, new in names.parameters.items()}
    text = _text(tuple(tensors.values()), new_inputs, new_outputs, kept)
    return CanonicalKernel(new_inputs, new_outputs, kept, parameters, text)


def _parameters(tensors: Sequence[Tensor]) -> dict[Var, Var]:
    """Each size parameter in order of first use, with its canonical name (whose order by name is the same)."""
    found: dict[Var, None] = {}
    for tensor in tensors:
        used = [*tensor.shape, *(a.extent for a in (*tensor.axes, *tensor.reduce_axes))]
        if tensor.body is not None:
            used.append(tensor.body)
        for e in used:
            parameters = [v for v in free_vars(wrap(e)) if not isinstance(v, Axis)]
            found.update(dict.fromkeys(sorted(parameters, key=lambda v: v.name)))
    return {old: Var(f"s{position:03}", old.dtype) for position, old in enumerate(found)}


class _Names:
    """Makes the canonical copies of tensors, one after the other, producers first."""

    def __init__(self, parameters: dict[Var, Var]) -> None:
        self.parameters = parameters

    def tensor(self, tensor: Tensor, done: Mapping[Tensor, Tensor]) -> Tensor:
        name = f"t{len(done)}"
        shape = tuple(self._dim(d) for d in tensor.shape)
        if tensor.body is None:
            return Tensor(name, shape, tensor.dtype)
        names: dict[Var, Var] = dict(self.parameters)
        for position, axis in enumerate((*tensor.axes, *tensor.reduce_axes)):
            names[axis] = Axis(f"a{position}", axis.dtype, self._dim(axis.extent))
        axes = tuple(names[a] for a in tensor.axes)
        body = _rename(tensor.body, names, done)
        return Tensor(name, shape, tensor.dtype, axes, body)  # type: ignore[arg-type]

    def _dim(self, dim: Dim) -> Dim:
        return _rename(dim, self.parameters, {}) if isinstance(dim, Expr) else dim


def _rename(e: Expr, names: Mapping[Var, Var], tensors: Mapping[Tensor, Tensor]) -> Expr:
    def rewrite(node: Expr) -> Expr | None:
        match node:
            case Var():
                return names.get(node)
            case Load():
                return Load(tensors[node.source], node.indices)
            case Reduce():
                return Reduce(node.op, node.operand, tuple(names[a] for a in node.axes))
        return None

    return transform(e, rewrite)


def _text(
    tensors: Sequence[Tensor], inputs: Sequence[Tensor], outputs: Sequence[Tensor], ranges: Mapping[Var, Interval]
) -> str:
    lines = [_tensor_text(t) for t in tensors]
    lines.append("inputs " + " ".join(t.name for t in inputs))
    lines.append("outputs " + " ".join(t.name for t in outputs))
    lines += [f"{var.name} in {low}..{high}" for var, (low, high) in ranges.items()]
    return "\n".join(lines)


def _tensor_text(tensor: Tensor) -> str:
    head = f"{tensor.name} {tensor.dtype.value} {_dims(tensor.shape)}"
    if tensor.body is None:
        return head
    axes = [a.extent for a in tensor.axes]
    return f"{head} {_dims(axes)} {tensor.body.dtype.value} {to_text(tensor.body)}"


def _dims(dims: Sequence[Dim]) -> str:
    return f"[{', '.join(map(str, dims))}]"
