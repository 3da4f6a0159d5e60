"""One test per mistake that a schedule can make, with its exact message; and the usual shapes, which are legal."""

from __future__ import annotations

import dataclasses

import pytest
from random_trees import Nodes, kernel_of, nest, replaced, substituted
from soundness import judge

from polycomp import te
from polycomp.expr import CheckedIndex, Expr, Var, const, eq, minimum, select
from polycomp.poly.kernel import Kernel
from polycomp.poly.legality import ViolationKind, explain, verify_kernel
from polycomp.poly.tree import Allocate, Leaf, Loop, LoopKind, Node, Scope, walk

ZERO = const(0)


def loops(body: Nodes, *bounds: tuple[Var, int | Expr], kind: LoopKind = LoopKind.SERIAL) -> Node:
    """A nest; ``kind`` is that of the outermost loop."""
    for index, (var, extent) in reversed(list(enumerate(bounds))):
        body = (Loop(var, extent, kind if index == 0 else LoopKind.SERIAL, body),)
    return body[0]


def rejected(kernel: Kernel, kind: ViolationKind) -> str:
    """The whole message about an illegal kernel that really goes wrong."""
    verdict = judge(kernel)
    assert verdict.fault
    violation = verdict.verdict.violation
    assert violation is not None
    assert violation.kind is kind
    return explain(violation)


def accepted(kernel: Kernel) -> None:
    judgement = judge(kernel)
    assert judgement.verdict.violation is None
    assert not judgement.fault


def with_tree(kernel: Kernel, *tree: Node) -> Kernel:
    return dataclasses.replace(kernel, tree=tree)


def loop_named(kernel: Kernel, name: str) -> Loop:
    return next(n for n, _ in walk(kernel.tree) if isinstance(n, Loop) and n.var.name == name)


def with_kind(kernel: Kernel, name: str, kind: LoopKind) -> Kernel:
    loop = loop_named(kernel, name)
    return with_tree(kernel, *replaced(kernel.tree, loop, (dataclasses.replace(loop, kind=kind),)))


def chain() -> Kernel:
    """B = A + 1; C[i] = B[i] + B[i + 1]."""
    a = te.placeholder((6,), "float64", "A")
    b = te.compute((6,), lambda i: a[i] + 1.0, "B")
    return kernel_of([te.compute((5,), lambda i: b[i] + b[i + 1], "C")])


def matmul() -> Kernel:
    a, b = te.placeholder((4, 3), "float64", "A"), te.placeholder((3, 4), "float64", "B")
    k = te.reduce_axis(3, "k")
    return kernel_of([te.compute((4, 4), lambda i, j: te.sum(a[i, k] * b[k, j], axis=k), "C")])


I, IO, II, J, K = (Var(n) for n in ("i", "io", "ii", "j", "k"))  # noqa: E741


def test_fusing_too_much_reads_too_early() -> None:
    kernel = chain()
    (outer,) = kernel.tree
    assert isinstance(outer, Allocate)
    body = (Leaf("B", (I,)), Leaf("C", (I,), (I < 5,)))
    fused = with_tree(kernel, dataclasses.replace(outer, body=(loops(body, (I, 6)),)))
    assert rejected(fused, ViolationKind.ORDER) == (
        "C[i=0] reads B[1] before B[1] is written by B[i=1]; "
        "it is legal when B is executed first, in front of the loops it belongs to"
    )


def test_skewed_fusion_is_legal() -> None:
    kernel = chain()
    (outer,) = kernel.tree
    assert isinstance(outer, Allocate)
    body = (Leaf("B", (I,)), Leaf("C", (I - 1,), (I > 0,)))
    accepted(with_tree(kernel, dataclasses.replace(outer, body=(loops(body, (I, 6)),))))


def test_a_tile_that_does_not_compute_its_halo() -> None:
    kernel = chain()
    b = kernel.statements["B"].tensor
    body = (Leaf("B", (I,)), Leaf("C", (I,)))
    tiled = with_tree(kernel, loops((Allocate(b, Scope.WORKSPACE, (I,), (2,), body),), (I, 5)))
    assert rejected(tiled, ViolationKind.MISSING) == (
        "C[i=0] reads B[1], but B[i=1] is never executed in the same execution of its buffer; "
        "compute all of B that is read"
    )


def test_a_tile_with_its_halo_is_legal() -> None:
    kernel = chain()
    b = kernel.statements["B"].tensor
    body = (loops((Leaf("B", (I + J,)),), (J, 2)), Leaf("C", (I,)))
    accepted(with_tree(kernel, loops((Allocate(b, Scope.REGISTER, (I,), (2,), body),), (I, 5))))


def test_a_buffer_that_is_too_small() -> None:
    kernel = chain()
    b = kernel.statements["B"].tensor
    body = (loops((Leaf("B", (I + J,)),), (J, 2)), Leaf("C", (I,)))
    small = with_tree(kernel, loops((Allocate(b, Scope.WORKSPACE, (I,), (1,), body),), (I, 5)))
    assert rejected(small, ViolationKind.BOUNDS) == (
        "B[i=1] writes B[1], outside of its buffer of shape [1]; enlarge the buffer, or compute and read less in it"
    )


def test_a_split_without_its_guard() -> None:
    kernel = matmul()
    init, _ = kernel.tree
    point = (IO * 3 + II, J, K)
    tree = with_tree(kernel, init, loops((Leaf("C.update", point),), (IO, 2), (II, 3), (J, 4), (K, 3)))
    assert rejected(tree, ViolationKind.BOUNDS) == (
        "C.update[i=4, j=0, k=0] reads A[4, 0], outside of its shape [4, 3]; "
        "guard the access, or the split of the loop that leads there"
    )
    guarded = Leaf("C.update", point, (IO * 3 + II < 4,))
    accepted(with_tree(kernel, init, loops((guarded,), (IO, 2), (II, 3), (J, 4), (K, 3))))


def test_a_split_reduction_without_its_guard() -> None:
    a = te.placeholder((4, 4), "float64", "A")
    k = te.reduce_axis(3, "k")
    kernel = kernel_of([te.compute((4,), lambda i: te.sum(a[i, k], axis=k), "C")])
    init, _ = kernel.tree
    update = Leaf("C.update", (I, IO * 2 + II))
    assert rejected(with_tree(kernel, init, loops((update,), (I, 4), (IO, 2), (II, 2))), ViolationKind.OUTSIDE) == (
        "C.update[i=0, k=3] updates C[0] outside of the reduction's domain (k < 3); "
        "guard the split of the reduction loop"
    )


def test_initialising_inside_of_the_reduction() -> None:
    kernel = matmul()
    body = (Leaf("C.init", (I, J)), Leaf("C.update", (I, J, K)))
    message = rejected(with_tree(kernel, loops(body, (I, 4), (J, 4), (K, 3))), ViolationKind.INIT)
    assert message == (
        "C.init[i=0, j=0] initialises C[0, 0] after C.update[i=0, j=0, k=0] has updated it; "
        "it is legal when the initialisation is executed before all loops of the reduction"
    )
    first = (Leaf("C.init", (I, J), (eq(K, 0),)), Leaf("C.update", (I, J, K)))
    accepted(with_tree(kernel, loops(first, (I, 4), (J, 4), (K, 3))))
    accepted(with_tree(kernel, loops(first, (K, 3), (I, 4), (J, 4))))


def test_updating_twice() -> None:
    kernel = matmul()
    init, update = kernel.tree
    message = rejected(with_tree(kernel, init, loops((update,), (IO, 2))), ViolationKind.REPEATED)
    assert message == (
        "C.update[i=0, j=0, k=0] is executed more than once; it is legal when no loop around it repeats it, "
        "and the remainders of splits are guarded"
    )


def test_an_incomplete_output() -> None:
    kernel = matmul()
    init, _ = kernel.tree
    short = loops((Leaf("C.update", (I, J, K)),), (I, 4), (J, 4), (K, 2))
    assert rejected(with_tree(kernel, init, short), ViolationKind.MISSING) == (
        "the output C is not complete: C.update[i=0, j=0, k=2] is never executed"
    )


def test_a_symbolic_size_that_does_not_fit() -> None:
    size = Var("N")
    a = te.placeholder((size,), "float64", "A")
    kernel = kernel_of([te.compute((size,), lambda i: a[i] + 1.0, "C")], {size: (0, 5)})
    leaf = Leaf("C", (IO * 4 + II,), (size > IO * 4 + II,))
    accepted(with_tree(kernel, loops((leaf,), (IO, (size + 3) // 4), (II, 4))))
    message = rejected(with_tree(kernel, loops((leaf,), (IO, size // 4), (II, 4))), ViolationKind.MISSING)
    assert message.startswith("the output C is not complete: C[i=")


def test_parallel_reductions_race() -> None:
    kernel = with_kind(matmul(), "C.update.i", LoopKind.PARALLEL)
    accepted(kernel)
    accepted(with_kind(matmul(), "C.update.j", LoopKind.VECTOR))
    assert rejected(with_kind(matmul(), "C.update.k", LoopKind.PARALLEL), ViolationKind.RACE) == (
        "different iterations of the parallel loop C.update.k touch C[0, 0]: C.update[i=0, j=0, k=0] updates it and "
        "C.update[i=0, j=0, k=1] updates it; a loop of a reduction can be parallel only when its partial results are "
        "stored apart"
    )
    accepted(with_kind(matmul(), "C.update.k", LoopKind.VECTOR))


def test_vectors_that_both_reduce_and_move() -> None:
    kernel = matmul()
    init, _ = kernel.tree
    fused = Var("f")
    leaf = Leaf("C.update", (I, fused // 3, fused % 3))
    inner = Loop(fused, 12, LoopKind.VECTOR, (leaf,))
    assert "the vectorised loop f touch C[0, 0]" in rejected(
        with_tree(kernel, init, loops((inner,), (I, 4))), ViolationKind.RACE
    )
    serial = Loop(fused, 12, LoopKind.SERIAL, (leaf,))
    accepted(with_tree(kernel, init, loops((serial,), (I, 4))))


def test_a_shared_buffer_races_and_a_private_one_does_not() -> None:
    kernel = chain()
    b = kernel.statements["B"].tensor
    body = (loops((Leaf("B", (I + J,)),), (J, 2)), Leaf("C", (I,)))
    inside = Allocate(b, Scope.WORKSPACE, (I,), (2,), body)
    accepted(with_tree(kernel, loops((inside,), (I, 5), kind=LoopKind.PARALLEL)))
    shared = Allocate(b, Scope.WORKSPACE, (ZERO,), (6,), (loops(body, (I, 5), kind=LoopKind.PARALLEL),))
    assert rejected(with_tree(kernel, shared), ViolationKind.RACE) == (
        "different iterations of the parallel loop i touch B[1]: B[i=1] writes it and B[i=1] writes it; "
        "it is legal when each iteration has a buffer of its own or computes different elements"
    )


def folded_chain(fold: int, *body: Node) -> Kernel:
    """B is kept modulo ``fold``."""
    kernel = chain()
    b = kernel.statements["B"].tensor
    return with_tree(kernel, Allocate(b, Scope.WORKSPACE, (ZERO,), (6,), body, (fold,)))


def test_a_fold_keeps_what_is_still_read() -> None:
    fused = loops((Leaf("B", (I,)), Leaf("C", (I - 1,), (I > 0,))), (I, 6))
    accepted(folded_chain(2, fused))
    accepted(folded_chain(3, fused))
    assert rejected(folded_chain(1, fused), ViolationKind.OVERWRITTEN) == (
        "C[i=0] reads B[0] after B[i=1] has written B[1] to its place (dimension 0 is kept modulo 1); "
        "it is legal when more of B is kept, or what is kept is read sooner"
    )
    apart = (loops((Leaf("B", (I,)),), (I, 6)), loops((Leaf("C", (J,)),), (J, 5)))
    assert rejected(folded_chain(5, *apart), ViolationKind.OVERWRITTEN) == (
        "C[i=0] reads B[0] after B[i=5] has written B[5] to its place (dimension 0 is kept modulo 5); "
        "it is legal when more of B is kept, or what is kept is read sooner"
    )


def test_what_a_fold_overwrites_may_be_computed_again() -> None:
    again = (loops((Leaf("B", (I + J,)),), (J, 2)), Leaf("C", (I,)))
    backwards = (loops((Leaf("B", (I - J + 1,)),), (J, 2)), Leaf("C", (I,)))
    for body in (again, backwards):
        accepted(folded_chain(2, loops(body, (I, 5))))
        assert "to its place" in rejected(folded_chain(1, loops(body, (I, 5))), ViolationKind.OVERWRITTEN)


def test_iterations_at_the_same_time_share_the_places_of_a_fold() -> None:
    a = te.placeholder((6,), "float64", "A")
    b = te.compute((6,), lambda i: a[i] + 1.0, "B")
    kernel = kernel_of([te.compute((6,), lambda i: b[i] * 2.0, "C")])

    def with_fold(kind: LoopKind) -> Kernel:
        body = (loops((Leaf("B", (I,)), Leaf("C", (I,))), (I, 6), kind=kind),)
        return with_tree(kernel, Allocate(b, Scope.WORKSPACE, (ZERO,), (6,), body, (4,)))

    accepted(with_fold(LoopKind.SERIAL))
    assert rejected(with_fold(LoopKind.PARALLEL), ViolationKind.RACE) == (
        "different iterations of the parallel loop i touch B[4], which is at the place of B[0]: B[i=0] writes it and "
        "B[i=4] writes it; it is legal when each iteration has a buffer of its own or computes different elements"
    )


def test_a_reduction_in_a_fold() -> None:
    """All updates of a sum come after what was in its place, and it is read before the next one begins."""
    a, k = te.placeholder((4, 3), "float64", "A"), te.reduce_axis(3, "k")
    b = te.compute((4,), lambda i: te.sum(a[i, k], axis=k), "B")
    kernel = kernel_of([te.compute((4,), lambda i: b[i] * 2.0, "C")])

    def with_fold(*body: Node) -> Kernel:
        return with_tree(kernel, Allocate(b, Scope.WORKSPACE, (ZERO,), (4,), body, (1,)))

    row = loops((Leaf("B.update", (I, K)),), (K, 3))
    accepted(with_fold(loops((Leaf("B.init", (I,)), row, Leaf("C", (I,))), (I, 4))))
    early = loops((Leaf("B.init", (J,)),), (J, 4))
    rest = loops((row, Leaf("C", (I,))), (I, 4))
    message = rejected(with_fold(early, rest), ViolationKind.OVERWRITTEN)
    assert "reads B[0] after B.init[i=1] has written B[1] to its place" in message


def test_a_fold_that_does_not_fit_its_buffer() -> None:
    kernel = chain()
    b = kernel.statements["B"].tensor
    body = (loops((Leaf("B", (I,)), Leaf("C", (I - 1,), (I > 0,))), (I, 6)),)
    wrong = with_tree(kernel, Allocate(b, Scope.WORKSPACE, (ZERO,), (6,), body, (2, 2)))
    assert rejected(wrong, ViolationKind.STRUCTURE) == (
        "the buffer of B is folded to (2, 2), which does not fit its dimensions"
    )


def test_padding_may_be_computed_from_undefined_values() -> None:
    """A register tile that reaches beyond the output, as long as it stays inside of its buffers."""
    a = te.placeholder((5,), "float64", "A")
    b = te.compute((5,), lambda i: a[i] * 2.0, "B")
    c = te.compute((5,), lambda i: b[i] + 1.0, "C")
    kernel = kernel_of([te.compute((5,), lambda i: c[i] * 3.0, "D")])
    read = loops((Leaf("B", (I,)),), (I, 5))
    tile = loops((Leaf("C", (IO * 4 + II,)),), (II, 4))
    last = loops((Leaf("D", (IO * 4 + J,), (IO * 4 + J < 5,)),), (J, 4))
    inner = Allocate(c, Scope.REGISTER, (IO * 4,), (4,), (tile, last))
    outer = Allocate(b, Scope.WORKSPACE, (ZERO,), (8,), (read, loops((inner,), (IO, 2))))
    accepted(with_tree(kernel, outer))


def test_padding_may_not_be_used_as_an_index() -> None:
    table = te.placeholder((5,), "float64", "table")
    at = te.placeholder((5,), "int64", "at")
    b = te.compute((5,), lambda i: minimum(at[i], 4), "B")
    c = te.compute((5,), lambda i: table[CheckedIndex(b[i], const(5))], "C")
    kernel = kernel_of([te.compute((5,), lambda i: c[i] * 3.0, "D")])
    read = loops((Leaf("B", (I,)),), (I, 5))
    tile = loops((Leaf("C", (IO * 4 + II,)),), (II, 4))
    last = loops((Leaf("D", (IO * 4 + J,), (IO * 4 + J < 5,)),), (J, 4))
    inner = Allocate(c, Scope.REGISTER, (IO * 4,), (4,), (tile, last))
    outer = Allocate(b, Scope.WORKSPACE, (ZERO,), (8,), (read, loops((inner,), (IO, 2))))
    assert "C[i=5] reads B[5], but B[i=5] is never executed" in rejected(
        with_tree(kernel, outer), ViolationKind.MISSING
    )


def test_selects_guard_what_they_read() -> None:
    a = te.placeholder((5,), "float64", "A")
    padded = te.compute((7,), lambda i: select((i >= 1) & (i < 6), a[i - 1], const(0.0, "float64")), "C")
    accepted(kernel_of([padded]))
    wrong = te.compute((7,), lambda i: select((i >= 1) & (i < 7), a[i - 1], const(0.0, "float64")), "C")
    violation = verify_kernel(kernel_of([wrong])).violation
    assert violation is not None
    assert violation.message == "C[i=6] reads A[5], outside of its shape [5]"


def test_fused_loops_of_odd_sizes_need_no_isl() -> None:
    a = te.placeholder((3, 5, 7), "float64", "A")
    kernel = kernel_of([te.compute((3, 5, 7), lambda i, j, k: a[i, j, k] + 1.0, "C")])
    fused = IO * 8 + II
    leaf = Leaf("C", (fused // 35, (fused // 7) % 5, fused % 7), (fused < 105,))
    inner = Loop(II, 8, LoopKind.VECTOR, (leaf,))
    kernel = with_tree(kernel, Loop(IO, 14, LoopKind.PARALLEL, (inner,)))
    accepted(kernel)
    assert verify_kernel(kernel).exact_questions == 0


def test_register_tiles_need_no_isl() -> None:
    kernel = matmul()
    init, update = kernel.tree
    values = {Var("C.update.i"): IO * 2 + II, Var("C.update.j"): J * 2 + Var("ji")}
    (leaf,) = (n for n, _ in walk((update,)) if isinstance(n, Leaf))
    tiled = substituted((leaf,), values)
    bounds = ((IO, 2), (J, 2), (Var("C.update.k"), 3), (II, 2), (Var("ji"), 2))
    kernel = with_tree(kernel, init, loops(tiled, *bounds, kind=LoopKind.PARALLEL))
    accepted(kernel)
    assert verify_kernel(kernel).exact_questions == 0


def test_what_cannot_be_decided_is_illegal() -> None:
    size = Var("N")
    a = te.placeholder((size * size,), "float64", "A")
    kernel = kernel_of([te.compute((size,), lambda i: a[(i * size) // (size + i)], "C")], {size: (1, 3)})
    violation = verify_kernel(kernel).violation
    assert violation is not None
    assert violation.kind is ViolationKind.UNKNOWN
    assert violation.message.startswith("the schedule could not be proven legal and counts as illegal")


def test_a_spent_quota_is_unknown() -> None:
    kernel = chain()
    (outer,) = kernel.tree
    assert isinstance(outer, Allocate)
    body = (Leaf("B", (I,)), Leaf("C", (I - 1,), (I > 0,)))
    skewed = with_tree(kernel, dataclasses.replace(outer, body=(loops(body, (I, 6)),)))
    violation = verify_kernel(skewed, quota=10).violation
    assert violation is not None
    assert violation.kind is ViolationKind.UNKNOWN
    assert "maximal number of operations exceeded" in violation.message


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (nest(chain().statements["B"]), "B uses B, which is not stored there: allocate it around the loop"),
        (Leaf("X", ()), "the tree executes X, which is no statement of the kernel"),
        (Leaf("C", (ZERO, ZERO)), "C has 1 iterators but 2 values are given"),
        (Leaf("C", (Var("q"),)), "C uses q, which no enclosing loop or size defines"),
        (loops((), (I, 2), (I, 3)), "two loops of the tree have the variable i"),
        (
            Loop(I, minimum(const(3), Var("q")), LoopKind.VECTOR, ()),
            "the vector loop i has the extent min(3, q), which is not a constant",
        ),
    ],
)
def test_trees_that_are_not_well_formed(tree: Node, message: str) -> None:
    violation = verify_kernel(with_tree(chain(), tree)).violation
    assert violation is not None
    assert violation.kind is ViolationKind.STRUCTURE
    assert violation.message == message


def test_a_tensor_that_nothing_computes() -> None:
    kernel = chain()
    kernel = dataclasses.replace(kernel, statements={"C": kernel.statements["C"]})
    (outer,) = kernel.tree
    assert isinstance(outer, Allocate)
    kernel = with_tree(kernel, dataclasses.replace(outer, body=outer.body[1:]))
    violation = verify_kernel(kernel).violation
    assert violation is not None
    assert violation.message == "C uses B, which no statement of the kernel computes"
