"""A literal interpreter of schedule trees, and what it says about legality verdicts.

``judge`` executes a kernel's tree step by step on private storage that starts out undefined, and reports every way in
which the tree fails: an access outside of a buffer, a wrong or undefined output, an output instance that is not
executed exactly once, two iterations of a concurrent loop that touch the same element. A verdict is sound when an
accepted kernel has no fault, and precise when a rejected one has some.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from polycomp.expr import Binary, CheckedIndex, Compare, Const, Expr, Load, Select, Unary, Var, wrap
from polycomp.poly.kernel import Kernel, Statement
from polycomp.poly.legality import Verdict, verify_kernel
from polycomp.poly.tree import Allocate, Leaf, Loop, Node
from polycomp.te import Dim, Tensor
from polycomp.te.evaluate import evaluate

UNDEFINED = math.nan
"""Values are whole numbers held in floats; NaN is an undefined one, and spreads."""


class FaultError(Exception):
    """The tree did something that no legal tree does."""


@dataclasses.dataclass(eq=False)
class Storage:
    """A buffer: values by position, and the concurrent loops' record of who touched what."""

    shape: tuple[int, ...]
    origin: tuple[int, ...]
    values: np.ndarray[Any, Any]
    depth: int
    folds: tuple[int, ...]
    holders: dict[tuple[int, ...], tuple[int, ...]] = dataclasses.field(default_factory=dict)
    """Which element was written last to each position; in a folded buffer another may be asked for."""


def _storage(shape: Sequence[int], origin: Sequence[int], depth: int, folds: Sequence[int] = ()) -> Storage:
    kept = tuple(f or n for f, n in zip(folds or [0] * len(shape), shape, strict=True))
    values = np.full(tuple(max(0, n) for n in kept), UNDEFINED)
    return Storage(tuple(shape), tuple(origin), values, depth, tuple(folds))


@dataclasses.dataclass
class Concurrent:
    """One execution of a concurrent loop: which iterations read and wrote each element from outside."""

    loop: Loop
    depth: int
    iteration: int = 0
    touched: dict[tuple[int, tuple[int, ...]], tuple[set[int], set[int], set[int]]] = dataclasses.field(
        default_factory=dict
    )

    def check_horizontal(self) -> None:
        """Lanes may only reduce together when each of them updates the same elements."""
        lanes: dict[int, set[tuple[int, tuple[int, ...]]]] = {}
        for element, (_, _, updates) in self.touched.items():
            for lane in updates:
                lanes.setdefault(lane, set()).add(element)
        together = any(len(updates) > 1 for _, _, updates in self.touched.values())
        if together and len({frozenset(elements) for elements in lanes.values()}) > 1:
            raise FaultError(f"some iterations of {self.loop.var.name} reduce into the same element")


class Interpreter:
    """Executes a tree. ``reverse`` runs concurrent loops backwards."""

    def __init__(self, kernel: Kernel, feeds: Mapping[Tensor, Any], sizes: Mapping[Var, int], reverse: bool) -> None:
        self.kernel, self.reverse = kernel, reverse
        self.values: dict[Var, int] = dict(sizes)
        self.storages: dict[Tensor, list[Storage]] = {}
        self.concurrent: list[Concurrent] = []
        self.depth = 0
        self.executed: Counter[tuple[str, tuple[int, ...]]] = Counter()
        for tensor in (*kernel.inputs, *kernel.outputs):
            storage = _storage([self.integer(d) for d in tensor.shape], [0] * tensor.rank, -1)
            if tensor in feeds:
                storage.values[...] = feeds[tensor]
            self.storages[tensor] = [storage]

    def integer(self, e: Dim) -> int:
        return int(self.value(wrap(e)))

    def run(self) -> None:
        self.nodes(self.kernel.tree)

    def nodes(self, nodes: tuple[Node, ...]) -> None:
        for node in nodes:
            self.depth += 1
            if isinstance(node, Loop):
                self.loop(node)
            elif isinstance(node, Allocate):
                self.allocate(node)
            else:
                self.leaf(node)
            self.depth -= 1

    def loop(self, node: Loop) -> None:
        concurrent = node.kind.is_concurrent
        record = Concurrent(node, self.depth)
        if concurrent:
            self.concurrent.append(record)
        iterations = range(self.integer(node.extent))
        for i in reversed(iterations) if concurrent and self.reverse else iterations:
            self.values[node.var] = i
            record.iteration = i
            self.nodes(node.body)
        if concurrent:
            self.concurrent.pop()
            record.check_horizontal()

    def allocate(self, node: Allocate) -> None:
        made = _storage(
            [self.integer(d) for d in node.shape],
            [self.integer(o) for o in node.origin],
            self.depth,
            node.folds,
        )
        self.storages.setdefault(node.tensor, []).append(made)
        self.nodes(node.body)
        self.storages[node.tensor].pop()

    def leaf(self, node: Leaf) -> None:
        if not all(self.value(g) for g in node.guards):
            return
        statement = self.kernel.statements[node.statement]
        point = [self.integer(p) for p in node.point]
        saved = {axis: self.values.get(axis) for axis in statement.iters}
        self.values.update(zip(statement.iters, point, strict=True))
        self.execute(statement, tuple(point))
        for axis, value in saved.items():
            if value is not None:
                self.values[axis] = value

    def execute(self, statement: Statement, point: tuple[int, ...]) -> None:
        element = [self.integer(i) for i in statement.indices]
        storage, place = self.place(statement.tensor, element)
        if storage.depth < 0:
            self.executed[statement.name, point] += 1
        value = self.value(statement.value)
        if statement.reduce:
            assert statement.reduce == "sum"
            value = self.held(storage, place, element) + value
        self.touch(storage, place, True, statement)
        storage.values[place] = value
        storage.holders[place] = tuple(element)

    def held(self, storage: Storage, place: tuple[int, ...], element: Sequence[int]) -> float:
        """What is at ``place``: undefined when that is another element by now."""
        overwritten = storage.holders.get(place, tuple(element)) != tuple(element)
        return UNDEFINED if overwritten else float(storage.values[place])

    def place(self, tensor: Tensor, index: Sequence[int]) -> tuple[Storage, tuple[int, ...]]:
        storage = self.storages[tensor][-1]
        place = tuple(x - o for x, o in zip(index, storage.origin, strict=True))
        if not all(0 <= p < n for p, n in zip(place, storage.shape, strict=True)):
            raise FaultError(f"{tensor.name}{list(index)} is outside of its buffer")
        folds = storage.folds or (0,) * len(place)
        return storage, tuple(p % f if f else p for p, f in zip(place, folds, strict=True))

    def touch(self, storage: Storage, place: tuple[int, ...], write: bool, statement: Statement | None = None) -> None:
        for record in self.concurrent:
            if storage.depth >= record.depth:
                continue
            reads, writes, updates = record.touched.setdefault((id(storage), place), (set(), set(), set()))
            reduces = statement is not None and bool(statement.reduce)
            horizontal = reduces and record.loop.kind.sums_across
            (updates if horizontal else writes if write else reads).add(record.iteration)
            touching = reads | writes | updates
            if len(touching) > 1 and (writes or (reads and updates)):
                raise FaultError(f"iterations {sorted(touching)} of {record.loop.var.name} touch the same element")

    def value(self, e: Expr) -> float:
        match e:
            case Const():
                return float(e.value)
            case Var():
                return self.values[e]
            case Load():
                return self.load(e)
            case Select():
                condition = self.value(e.condition)
                if condition != condition:
                    return UNDEFINED
                return self.value(e.on_true if condition else e.on_false)
            case CheckedIndex():
                index, size = self.value(e.index), self.value(e.size)
                if index != index:
                    raise FaultError("an undefined index")
                return index if 0 <= index < size else 0
            case Unary():
                operand = self.value(e.operand)
                return float(not operand) if e.op == "not" else -operand
            case Binary() | Compare():
                a, b = self.value(e.left), self.value(e.right)
                return UNDEFINED if a != a or b != b else _OPERATIONS[e.op](a, b)
        raise AssertionError(type(e).__name__)

    def load(self, e: Load) -> float:
        index = [self.value(i) for i in e.indices]
        if any(i != i for i in index):
            raise FaultError("an undefined index")
        storage, place = self.place(e.source, [int(i) for i in index])
        self.touch(storage, place, False)
        return self.held(storage, place, [int(i) for i in index])


_OPERATIONS: Mapping[str, Callable[[float, float], float]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "floordiv": lambda a, b: a // b,
    "floormod": lambda a, b: a % b,
    "min": min,
    "max": max,
    "and": lambda a, b: float(a and b),
    "or": lambda a, b: float(a or b),
    "lt": lambda a, b: float(a < b),
    "le": lambda a, b: float(a <= b),
    "gt": lambda a, b: float(a > b),
    "ge": lambda a, b: float(a >= b),
    "eq": lambda a, b: float(a == b),
    "ne": lambda a, b: float(a != b),
}


def fault_of(kernel: Kernel, sizes: Mapping[Var, int], seed: int = 0) -> str:
    """What goes wrong when the kernel is executed with these sizes; "" when nothing does."""
    feeds = random_inputs(kernel, sizes, seed)
    expected = evaluate(kernel.outputs, feeds, sizes)
    for reverse in (False, True):
        interpreter = Interpreter(kernel, feeds, sizes, reverse)
        try:
            interpreter.run()
        except FaultError as fault:
            return str(fault)
        for tensor, right in zip(kernel.outputs, expected, strict=True):
            got = interpreter.storages[tensor][0].values
            if not np.array_equal(got, np.asarray(right, dtype=np.float64)):
                return f"{tensor.name} is wrong"
        wrong = not_once(interpreter)
        if wrong:
            return wrong
    return ""


def not_once(interpreter: Interpreter) -> str:
    """An instance of an output's statement that was not executed exactly once."""
    kernel = interpreter.kernel
    for statement in kernel.statements.values():
        if statement.tensor in kernel.outputs:
            extents = [range(interpreter.integer(a.extent)) for a in statement.iters]
            for point in itertools.product(*extents):
                times = interpreter.executed[statement.name, point]
                if times != 1:
                    return f"{statement.name}{list(point)} was executed {times} times"
    return ""


def random_inputs(kernel: Kernel, sizes: Mapping[Var, int], seed: int) -> dict[Tensor, Any]:
    """Whole numbers, small enough that sums of products are exact in any order."""
    numbers = np.random.default_rng(seed)
    feeds: dict[Tensor, Any] = {}
    for tensor in kernel.inputs:
        shape = tuple(_size(d, sizes) for d in tensor.shape)
        values = numbers.integers(1, 90, shape)
        feeds[tensor] = values if tensor.dtype.is_integer else values.astype("float64")
    return feeds


def _size(dim: Dim, sizes: Mapping[Var, int]) -> int:
    return dim if isinstance(dim, int) else int(_dim_value(dim, sizes))


def _dim_value(e: Expr, sizes: Mapping[Var, int]) -> float:
    match e:
        case Const():
            return float(e.value)
        case Var():
            return sizes[e]
        case Binary():
            return _OPERATIONS[e.op](_dim_value(e.left, sizes), _dim_value(e.right, sizes))
    raise AssertionError(type(e).__name__)


@dataclasses.dataclass(frozen=True)
class Judgement:
    """A verdict and what really happens ("" is nothing wrong)."""

    verdict: Verdict
    fault: str

    @property
    def unsound(self) -> bool:
        return self.verdict.legal and bool(self.fault)

    @property
    def conservative(self) -> bool:
        return not self.verdict.legal and not self.fault


def all_sizes(kernel: Kernel) -> list[dict[Var, int]]:
    """All values of the kernel's sizes within their (bounded) ranges."""
    ranges = []
    for size in kernel.sizes:
        low, high = kernel.ranges[size]
        assert low is not None
        assert high is not None
        ranges.append([(size, n) for n in range(low, high + 1)])
    return [dict(choice) for choice in itertools.product(*ranges)]


def judge(kernel: Kernel, seed: int = 0, verify: Callable[[Kernel], Verdict] = verify_kernel) -> Judgement:
    """The verdict on ``kernel`` beside the outcome of executing it, for all sizes."""
    verdict = verify(kernel)
    if verdict.violation is not None and verdict.violation.kind.value == "structure":
        return Judgement(verdict, "not well formed")
    faults = (fault_of(kernel, sizes, seed) for sizes in all_sizes(kernel))
    return Judgement(verdict, next((f for f in faults if f), ""))


@dataclasses.dataclass
class Tally:
    """Counts over many judgements."""

    accepted: int = 0
    rejected: int = 0
    conservative: int = 0

    def add(self, judgement: Judgement) -> None:
        self.accepted += judgement.verdict.legal
        self.rejected += not judgement.verdict.legal
        self.conservative += judgement.conservative

    @property
    def conservative_share(self) -> float:
        """Rejections without a fault, of all rejections."""
        return self.conservative / max(1, self.rejected)


def drive(kernels: Callable[[random.Random], Kernel], seeds: Sequence[int]) -> Tally:
    """Judge one random kernel per seed. Raises AssertionError for an accepted kernel that goes wrong."""
    tally = Tally()
    for seed in seeds:
        kernel = kernels(random.Random(seed))
        judgement = judge(kernel, seed)
        assert not judgement.unsound, f"seed {seed}: accepted, but {judgement.fault}"
        tally.add(judgement)
    return tally
