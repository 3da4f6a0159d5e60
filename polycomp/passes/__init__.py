"""Graph passes: one ordered list, from an imported graph to groups that become kernels."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from polycomp.graph import Graph, verify
from polycomp.ops import operators
from polycomp.options import Options
from polycomp.passes.affine import fold_affine
from polycomp.passes.fold import fold_constants
from polycomp.passes.fuse import fuse
from polycomp.passes.grouped import split_groups
from polycomp.passes.integers import pack_integers
from polycomp.passes.layout import choose_layout
from polycomp.passes.packing import pack_matrices
from polycomp.passes.precision import Reason, kept_in_float32, mixed_precision
from polycomp.passes.quantized import integer_products
from polycomp.passes.recognise import recognise
from polycomp.passes.simplify import dead_code, eliminate_common, simplify
from polycomp.passes.zero_points import take_out_zero_points

__all__ = ["FOR_CPUS", "PASSES", "Pass", "explain_precision", "run_passes"]

Pass = Callable[[Graph, Options], Graph]

PASSES: Sequence[tuple[str, Pass]] = (
    ("dead_code", dead_code),
    ("integer_products", integer_products),
    ("take_out_zero_points", take_out_zero_points),
    ("fold_constants", fold_constants),
    ("eliminate_common", eliminate_common),
    ("recognise", recognise),
    ("fold_affine", fold_affine),
    ("simplify", simplify),
    ("fold_again", fold_constants),
    ("fold_affine_again", fold_affine),
    ("split_groups", split_groups),
    ("simplify_groups", simplify),
    ("eliminate_again", eliminate_common),
    ("mixed_precision", mixed_precision),
    ("pack_matrices", pack_matrices),
    ("pack_integers", pack_integers),
    ("choose_layout", choose_layout),
    ("fold_packing", fold_constants),
    ("simplify_again", simplify),
    ("fuse", fuse),
)
"""The passes in order, by name."""

FOR_CPUS = frozenset(["pack_matrices"])
"""Those that lay matrices out for a core's vector registers. A GPU's kernels pack what a block needs themselves."""


def run_passes(graph: Graph, options: Options, observe: Callable[[str, Graph], None] | None = None) -> Graph:
    """Run all passes that are for the target. ``observe`` is told each pass's name and result; with ``options.verify``
    each is checked."""
    for name, run in PASSES:
        if options.target.is_gpu and name in FOR_CPUS:
            continue
        graph = run(graph, options)
        if options.verify:
            verify(graph, operators())
        if observe is not None:
            observe(name, graph)
    return graph


def explain_precision(graph: Graph, options: Options) -> list[Reason]:
    """The nodes of an imported graph, as the pass ``mixed_precision`` sees them, that it leaves in float32, and why."""
    for name, run in PASSES:
        if run is mixed_precision:
            break
        graph = graph if options.target.is_gpu and name in FOR_CPUS else run(graph, options)
    return kept_in_float32(graph, options)
