"""Products of warpgroups, which sm_90a has: proven, executed on the CPU by the harness, and compiled by NVRTC."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping

import numpy as np
import pytest
from cuda_harness import Order, compile_for_cpu, harness_available

from polycomp import te
from polycomp.codegen.cuda.emit import EmittedCuda, emit_cuda, full_source
from polycomp.codegen.cuda.nvrtc import compile_source, find_nvrtc
from polycomp.decisions import Decisions
from polycomp.dtypes import DType, as_dtype
from polycomp.errors import CompileError
from polycomp.expr import cast, select
from polycomp.loops import LoopNest, lower_kernel
from polycomp.poly.legality import verify_kernel
from polycomp.schedules.library.analysis import computed
from polycomp.schedules.library.gpu.contraction import schedule_product
from polycomp.schedules.library.gpu.products import as_products
from polycomp.schedules.schedule import Schedule
from polycomp.target import cuda_target
from polycomp.te import Tensor

(WARPGROUPS,) = cuda_target(["sm_90a"]).special

needs_harness = pytest.mark.skipif(not harness_available(), reason="needs g++ 12 or later")
needs_nvrtc = pytest.mark.skipif(find_nvrtc() is None, reason="NVRTC is not installed")


@dataclasses.dataclass(frozen=True)
class Case:
    """A product of ``rows`` by ``depth`` and ``depth`` by ``columns``, operands turned or not, for a block's tile."""

    tile: str
    rows: int = 128
    columns: int = 128
    depth: int = 128
    left_turned: bool = False
    right_turned: bool = False
    dtype: str = "float16"
    batch: int = 1

    def tensors(self) -> tuple[list[Tensor], Tensor]:
        b, m, n, d = self.batch, self.rows, self.columns, self.depth
        x = te.placeholder((b, d, m) if self.left_turned else (b, m, d), self.dtype, "x")
        w = te.placeholder((b, n, d) if self.right_turned else (b, d, n), self.dtype, "w")
        k = te.reduce_axis(d, "k")
        y = te.compute(
            (b, m, n),
            lambda g, i, j: te.sum(
                cast(DType.FLOAT32, x[g, k, i] if self.left_turned else x[g, i, k])
                * cast(DType.FLOAT32, w[g, j, k] if self.right_turned else w[g, k, j]),
                axis=k,
            ),
            "y",
        )
        return [x, w], te.compute((b, m, n), lambda g, i, j: select(y[g, i, j] > 0.0, y[g, i, j], 0.0), "relu")

    def arrays(self) -> list[np.ndarray]:
        rng = np.random.default_rng(0)
        kind = as_dtype(self.dtype).numpy
        return [rng.integers(-4, 5, t.shape).astype(kind) for t in self.tensors()[0]]

    def expected(self) -> np.ndarray:
        x, w = (a.astype(np.float32) for a in self.arrays())
        left = x.swapaxes(-1, -2) if self.left_turned else x
        return np.maximum(left @ (w.swapaxes(-1, -2) if self.right_turned else w), 0)


CASES: Mapping[str, Case] = {
    "plain": Case("128x128 by 16x128"),
    "right turned": Case("128x64 by 16x64", right_turned=True, columns=64),
    "left turned": Case("64x128 by 16x128", left_turned=True, rows=64, dtype="bfloat16"),
    "both turned": Case("64x64 by 16x64", left_turned=True, right_turned=True, rows=64, columns=64, dtype="bfloat16"),
    "beyond the end": Case("128x128 by 16x128", rows=136, columns=72, depth=250),
    "odd": Case("64x64 by 16x64", rows=67, columns=61, depth=188),
    "wide": Case("128x256 by 16x256", rows=120, columns=264, depth=192, right_turned=True),
    "batch": Case("64x64 by 16x64", rows=64, columns=64, depth=64, batch=3),
}


@functools.cache
def nest_of(name: str) -> LoopNest:
    case = CASES[name]
    inputs, output = case.tensors()
    (made,), (product,) = as_products([output])
    decisions = Decisions().replace("y.product.tile", case.tile)
    schedule = Schedule(made, inputs, {}, name.replace(" ", "_"), check=False, decisions=decisions)
    schedule_product(schedule, computed([made]), product, WARPGROUPS)
    assert verify_kernel(schedule.kernel).legal
    return lower_kernel(schedule.kernel)


@functools.cache
def emitted(name: str) -> EmittedCuda:
    return emit_cuda(nest_of(name), WARPGROUPS)


@needs_harness
@pytest.mark.parametrize("name", CASES)
def test_warpgroups_compute_the_product_whatever_order_threads_run_in(name: str) -> None:
    case, made = CASES[name], emitted(name)
    assert "pc_multiply_" in made.source and not made.is_portable
    (launch,) = made.launches
    kernels = compile_for_cpu(made.source, [launch.function], races=name == "beyond the end")
    for order in (Order.FORWARD, Order.BACKWARD):
        out = np.full((case.batch, case.rows, case.columns), np.nan, np.float32)
        arguments = [*case.arrays(), out, np.zeros(1, np.uint8), np.zeros(3, np.int64)]
        assert isinstance(launch.grid, int)
        kernels.launch(launch.function, launch.grid, launch.block, launch.shared_bytes, arguments, order)
        np.testing.assert_array_equal(out, case.expected())  # small whole numbers: sums are exact


@needs_nvrtc
@pytest.mark.parametrize("name", CASES)
def test_nvrtc_compiles_them_without_spills(name: str) -> None:
    code = compile_source(full_source(emitted(name)), name, ["sm_90a"], "sm_90a")
    for used in code.resources["sm_90a"].values():
        assert used.stack_bytes == used.spill_store_bytes == used.spill_load_bytes == 0


def test_other_architectures_have_none() -> None:
    with pytest.raises(CompileError, match="as warpgroups do, which only sm_90a has, not sm_80, sm_90a"):
        emit_cuda(nest_of("plain"), cuda_target())
