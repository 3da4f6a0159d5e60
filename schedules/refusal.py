"""Proving a step, and saying why one is refused: the violated pair of iterations, and what would be legal."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator

from polycomp.errors import IllegalScheduleError, NestingError, UnprovenScheduleError
from polycomp.poly.kernel import Kernel
from polycomp.poly.legality import Violation, ViolationKind, verify_kernel
from polycomp.poly.tree import Allocate, Leaf, Loop, LoopKind, walk
from polycomp.schedules.handles import quoted
from polycomp.schedules.placement import folded
from polycomp.schedules.rewrite import path_to_loop, replace_loop, statements_in
from polycomp.schedules.trace import Step

_FOLDS_TRIED = 3  # each costs a proof

_KINDS = {"parallel": LoopKind.PARALLEL, "vectorize": LoopKind.VECTOR}


def check_vectors(step: Step, kernel: Kernel) -> None:
    """Raise :class:`NestingError` when ``step`` has left a vectorised loop inside of another one."""
    for node, path in walk(kernel.tree):
        if not isinstance(node, Loop) or node.kind is not LoopKind.VECTOR:
            continue
        outer = next((n for n in path if isinstance(n, Loop) and n.kind is LoopKind.VECTOR), None)
        if outer is not None:
            name = outer.var.name
            raise NestingError(
                f"{step} would leave the vectorised loop {node.var.name!r} inside of the vectorised loop {name!r}; "
                f"call serial({name!r}) or unroll({name!r}) first"
            )


def prove_step(step: Step, before: Kernel, after: Kernel) -> None:
    """Raise :class:`IllegalScheduleError` unless ``after``, which ``step`` made of a legal kernel, is legal."""
    violation = verify_kernel(after).violation
    if violation is not None:
        raise refusal(f"{step} is illegal", violation, list(_remedies(step, before, violation)))


def prove_kernel(kernel: Kernel, what: str) -> None:
    """Raise :class:`IllegalScheduleError` unless the kernel computes what its tensors say; ``what`` it is."""
    violation = verify_kernel(kernel).violation
    if violation is not None:
        remedy = _order(kernel, violation) or violation.remedy
        raise refusal(f"{what} is illegal", violation, [remedy] if remedy else [])


def refusal(head: str, violation: Violation, remedies: list[str]) -> IllegalScheduleError:
    """The error for a violation."""
    remedy = "; ".join(remedies)
    kind = UnprovenScheduleError if violation.kind is ViolationKind.UNKNOWN else IllegalScheduleError
    message = f"{head}: {violation.message}" + (f". What helps: {remedy}" if remedy else "")
    return kind(message, violation.source, violation.target, remedy)


def _remedies(step: Step, before: Kernel, violation: Violation) -> Iterator[str]:
    if step.primitive in _KINDS and violation.kind is ViolationKind.RACE:
        yield from _for_races(step, before, violation)
    elif step.primitive == "fold_storage" and violation.kind is ViolationKind.OVERWRITTEN:
        yield _larger_fold(step, before) or violation.remedy
    elif order := _order(before, violation):
        yield order
    elif violation.remedy:
        yield violation.remedy


def _for_races(step: Step, before: Kernel, violation: Violation) -> Iterator[str]:
    """Other loops of the same nest that may be marked so, and a buffer or partial result for each iteration."""
    loop = path_to_loop(before.tree, _loop_named(before, step.operands[0]).var)
    assert loop is not None
    legal = [n for n in _nest_names(before, loop[-1]) if _is_legal(before, n, _KINDS[step.primitive])]
    if legal:
        calls = " and ".join(f"{step.primitive}({name!r})" for name in legal)
        yield f"{calls} {'is' if len(legal) == 1 else 'are'} legal"
    name = violation.source.split("[")[0]
    statement = before.statements.get(name)
    if statement is not None and statement.reduce:
        yield f"rfactor({statement.tensor.name!r}, ...) gives each iteration a partial result of its own"
    elif shared := _shared_buffer(before, violation, step.operands[0]):
        yield f"compute_at({shared!r}, {step.operands[0]!r}) gives each iteration a buffer of its own"


def _larger_fold(step: Step, before: Kernel) -> str:
    """The next larger factor with which a fold is legal; "" when none of the few that are tried is."""
    given = dict(zip(("tensor", "dimension", "factor"), step.operands, strict=False)) | dict(step.options)
    name, dimension, factor = given["tensor"], given["dimension"], given["factor"]
    tensor = next(s.tensor for s in before.statements.values() if s.tensor.name == name)
    extent = next(n.shape[dimension] for n, _ in walk(before.tree) if isinstance(n, Allocate) and n.tensor is tensor)
    limit = factor + 1 + _FOLDS_TRIED
    for larger in range(factor + 1, min(limit, extent) if isinstance(extent, int) else limit):
        tree = folded(before.tree, tensor, dimension, larger)
        if verify_kernel(dataclasses.replace(before, tree=tree)).legal:
            return f"fold_storage({name!r}, {dimension}, {larger}) is legal"
    return ""


def _loop_named(kernel: Kernel, name: str) -> Loop:
    return next(n for n, _ in walk(kernel.tree) if isinstance(n, Loop) and n.var.name == name)


def _nest_names(kernel: Kernel, loop: object) -> list[str]:
    """The loops around and inside of ``loop``, without itself."""
    found = []
    for node, path in walk(kernel.tree):
        if isinstance(node, Loop) and node is not loop and (loop in path or _is_around(node, loop)):
            found.append(node.var.name)
    return found


def _is_around(node: Loop, loop: object) -> bool:
    return any(n is loop for n, _ in walk(node.body))


def _is_legal(kernel: Kernel, name: str, kind: LoopKind) -> bool:
    loop = _loop_named(kernel, name)
    if loop.kind is not LoopKind.SERIAL or (kind is LoopKind.VECTOR and not isinstance(loop.extent, int)):
        return False
    tree = replace_loop(kernel.tree, loop.var, lambda n: (dataclasses.replace(n, kind=kind),))
    return verify_kernel(dataclasses.replace(kernel, tree=tree)).legal


def _shared_buffer(kernel: Kernel, violation: Violation, loop: str) -> str:
    """The intermediate tensor that the racing iterations share, when it is computed inside of the loop; else ""."""
    touched = re.search(r"touch ([^\[]+)\[", violation.message)
    inside = statements_in((_loop_named(kernel, loop),))
    stored = {n.tensor.name for n, _ in walk(kernel.tree) if isinstance(n, Allocate)}
    name = touched.group(1) if touched else ""
    computed = {s.tensor.name for s in kernel.statements.values() if s.name in inside}
    return name if name in stored & computed else ""


def _order(before: Kernel, violation: Violation) -> str:
    """How to keep a dependence of a tensor on itself, when that is what is in the way: an order, or a skew."""
    first, second = _instance(violation.source), _instance(violation.target)
    if violation.kind is not ViolationKind.ORDER or first is None or second is None or first[0] != second[0]:
        return ""
    distance = {n: second[1][n] - first[1][n] for n in first[1] if n in second[1]}
    outer = next((n for n, d in distance.items() if d > 0), None)
    if outer is None:
        return ""
    loops = _loops_of_iterators(before, first[0])
    inner = next((n for n, d in distance.items() if d < 0), None)
    keep = f"keep {loops.get(outer, outer)!r} outside of the loops along {quoted(n for n in distance if n != outer)}"
    if inner is None:
        return keep
    factor = -(distance[inner] // distance[outer])
    return f"skew({loops.get(outer, outer)!r}, {loops.get(inner, inner)!r}, {factor}) first; or {keep}"


def _instance(text: str) -> tuple[str, dict[str, int]] | None:
    found = re.fullmatch(r"([^\[]+)\[(.*)\]", text)
    if found is None:
        return None
    pairs = (part.split("=") for part in found.group(2).split(", ") if "=" in part)
    return found.group(1), {name: int(value) for name, value in pairs}


def _loops_of_iterators(kernel: Kernel, statement: str) -> dict[str, str]:
    """The loop that runs along each iterator of a statement, where there is just one."""
    known = kernel.statements.get(statement)
    leaf = next((n for n, _ in walk(kernel.tree) if isinstance(n, Leaf) and n.statement == statement), None)
    if known is None or leaf is None:
        return {}
    return {a.name: p.name for a, p in zip(known.iters, leaf.point, strict=True) if hasattr(p, "name")}
