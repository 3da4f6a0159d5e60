"""A jit function at every level of its compilation, as readable text."""

from __future__ import annotations

import functools

from polycomp.codegen.llvm.emit import emit_kernel
from polycomp.codegen.llvm.machine import assembly
from polycomp.driver.kernel import loop_nest
from polycomp.driver.kernels import task_of
from polycomp.driver.lower import Call, lower_graph
from polycomp.graph import Graph, to_text
from polycomp.loops import LoopNest
from polycomp.loops.printer import nest_text
from polycomp.options import Options
from polycomp.passes import run_passes
from polycomp.te import topological_order


class Lowered:
    """Made by ``f.lower(...)``. Each level is computed when it is asked for; all are str.

    ``graph`` is what tracing made, ``optimised`` the same after all passes, in groups that become kernels; ``kernels``
    their tensor expressions; ``loops`` the scheduled loop nests; ``llvm`` and ``assembly`` the code.
    """

    def __init__(self, graph: Graph, options: Options) -> None:
        self._graph = graph
        self._options = options

    def __repr__(self) -> str:
        return f"<lowered {self._graph.name}: .graph .optimised .kernels .loops .llvm .assembly>"

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
        """The LLVM IR of each kernel, before LLVM's own passes."""
        return "\n\n".join(emit_kernel(nest, self._options.kernel_target).ir for nest in self._nests)

    @functools.cached_property
    def assembly(self) -> str:
        """The machine code of each kernel, as assembly."""
        target = self._options.kernel_target
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

    def _nest(self, call: Call) -> LoopNest:
        return loop_nest(*task_of(call, self._options))[0]


def _kernel_text(call: Call) -> str:
    lines = [f"kernel {call.symbol}  # {', '.join(call.sources)}"]
    return "\n".join([*lines, *(f"  {tensor!r}" for tensor in topological_order(call.kernel.outputs))])
