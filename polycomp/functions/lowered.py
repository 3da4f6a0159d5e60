"""A jit function at every level of its compilation, as readable text."""

from __future__ import annotations

import functools

from polycomp.codegen.cuda.emit import EmittedCuda, emit_cuda, full_source
from polycomp.codegen.cuda.nvrtc import compile_source
from polycomp.codegen.llvm.emit import emit_kernel
from polycomp.codegen.llvm.machine import assembly
from polycomp.driver.kernel import loop_nest
from polycomp.driver.kernels import task_of
from polycomp.driver.lower import Call, lower_graph
from polycomp.errors import TargetError
from polycomp.graph import Graph, to_text
from polycomp.loops import LoopNest
from polycomp.loops.printer import nest_text
from polycomp.options import Options
from polycomp.passes import run_passes
from polycomp.te import topological_order


class Lowered:
    """Made by ``f.lower(...)``. Each level is computed when it is asked for; all are str.

    ``graph`` is what tracing made, ``optimised`` the same after all passes, in groups that become kernels; ``kernels``
    their tensor expressions; ``loops`` the scheduled loop nests; ``llvm``, or ``cuda`` for a GPU, and ``assembly`` the
    code. No GPU is needed for any of it.
    """

    def __init__(self, graph: Graph, options: Options) -> None:
        self._graph = graph
        self._options = options

    def __repr__(self) -> str:
        code = "cuda" if self._options.target.is_gpu else "llvm"
        return f"<lowered {self._graph.name}: .graph .optimised .kernels .loops .{code} .assembly>"

    @property
    def graph(self) -> str:
        """Operators on named tensors, as traced."""
        return to_text(self._graph)

    @functools.cached_property
    def optimised(self) -> str:
        """The graph after all passes; each group becomes one kernel."""
        return to_text(self._optimised)

    @functools.cached_property
    def kernels(self) -> str:
        """The tensor expressions of each kernel, and the user's lines that it computes."""
        return "\n\n".join(_kernel_text(call) for call in self._calls)

    @functools.cached_property
    def loops(self) -> str:
        """The scheduled loop nest of each kernel."""
        return "\n\n".join(map(nest_text, self._nests))

    @functools.cached_property
    def llvm(self) -> str:
        """The LLVM IR of each kernel, before LLVM's own passes. Raises :class:`TargetError` for a GPU."""
        if self._options.target.is_gpu:
            raise TargetError(
                f"{self._graph.name!r} is lowered for a GPU, whose code is not made by LLVM: look at .cuda, or lower "
                f"a function of another target"
            )
        return "\n\n".join(emit_kernel(nest, self._options.kernel_target).ir for nest in self._nests)

    @functools.cached_property
    def cuda(self) -> str:
        """The CUDA C of each kernel, without the functions that all share. Raises :class:`TargetError` for a CPU."""
        if not self._options.target.is_gpu:
            raise TargetError(
                f"{self._graph.name!r} is lowered for a CPU, which has no CUDA C: look at .llvm, or lower a function "
                f'of @jit(target="cuda")'
            )
        return "\n\n".join(emitted.source for emitted in self._emitted)

    @functools.cached_property
    def assembly(self) -> str:
        """The machine code of each kernel, as assembly; for a GPU, PTX, for which NVRTC must be installed."""
        target = self._options.kernel_target
        if target.is_gpu:
            return "\n\n".join(map(self._ptx, self._emitted))
        return "\n\n".join(assembly(emit_kernel(nest, target).ir, target) for nest in self._nests)

    @functools.cached_property
    def _optimised(self) -> Graph:
        return run_passes(self._graph, self._options)

    @functools.cached_property
    def _calls(self) -> tuple[Call, ...]:
        calls = lower_graph(self._optimised).calls
        return tuple({call.symbol: call for call in calls}.values())

    @functools.cached_property
    def _nests(self) -> tuple[LoopNest, ...]:
        return tuple(map(self._nest, self._calls))

    @functools.cached_property
    def _emitted(self) -> tuple[EmittedCuda, ...]:
        calls = zip(self._calls, self._nests, strict=True)
        return tuple(emit_cuda(nest, self._options.kernel_target, call.kernel.ranges) for call, nest in calls)

    def _ptx(self, emitted: EmittedCuda) -> str:
        code = compile_source(full_source(emitted), self._graph.name, self._options.target.features)
        return code.ptx.rstrip(b"\0").decode()

    def _nest(self, call: Call) -> LoopNest:
        return loop_nest(*task_of(call, self._options))[0]


def _kernel_text(call: Call) -> str:
    lines = [f"kernel {call.symbol}  # {', '.join(call.sources)}"]
    return "\n".join([*lines, *(f"  {tensor!r}" for tensor in topological_order(call.kernel.outputs))])
