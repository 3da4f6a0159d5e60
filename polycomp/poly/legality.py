"""Whether a schedule tree computes what a kernel's tensors say.

Legality is value-based: every element has one defining instance, or an initialisation and a set of updates, so a tree
is right when every read sees the final value, reductions are started once and updated once per iteration, all accesses
stay inside their buffers, outputs are complete, folded buffers hold each element until it is read, and iterations
executed at the same time do not touch the same element.
Each question is first put to the structural tier (:mod:`polycomp.poly.fast`) and to isl only when that says "maybe".

An instance outside of its statement's domain computes padding. Nothing inside the domain reads it, so it may read
undefined values (unless they serve as indices or integer divisors), but never outside of a buffer.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

from polycomp.poly.kernel import Kernel
from polycomp.poly.leaves import Schedule
from polycomp.poly.normal import unfused
from polycomp.poly.questions import Questions
from polycomp.poly.rule_bounds import outside_accesses
from polycomp.poly.rule_folds import overwritten_elements
from polycomp.poly.rule_outputs import incomplete_outputs
from polycomp.poly.rule_races import racing_iterations
from polycomp.poly.rule_reads import premature_reads
from polycomp.poly.rule_reductions import broken_reductions
from polycomp.poly.structure import structure_violation
from polycomp.poly.violations import Verdict, Violation, ViolationKind, explain

__all__ = [
    "DEFAULT_QUOTA",
    "RULES",
    "Verdict",
    "Violation",
    "ViolationKind",
    "explain",
    "verify_kernel",
    "violations_by_rule",
]

DEFAULT_QUOTA = 5_000_000
"""How many isl operations one verification may take, about a second at most."""

Rule = Callable[[Questions], Iterator[Violation]]

RULES: tuple[Rule, ...] = (
    outside_accesses, premature_reads, broken_reductions, incomplete_outputs, overwritten_elements, racing_iterations,
)  # fmt: skip
"""All rules, in the order in which they are asked. Each gives the violations that it finds in a well-formed tree."""


def verify_kernel(kernel: Kernel, quota: int = DEFAULT_QUOTA) -> Verdict:
    """Whether the kernel's tree is legal; the first violation found otherwise.

    What isl cannot decide within ``quota`` operations is a violation of kind UNKNOWN. Storage scopes and costs are
    not judged. Sizes count as any values within ``kernel.ranges`` (at least 0).
    """
    violation = structure_violation(kernel)
    if violation is not None:
        return Verdict(violation)
    questions = _questions(kernel, quota)
    found = itertools.chain.from_iterable(rule(questions) for rule in RULES)
    return Verdict(next(found, None), questions.exact.asked)


def violations_by_rule(kernel: Kernel, quota: int = DEFAULT_QUOTA) -> dict[Rule, tuple[Violation, ...]]:
    """Everything that each rule finds wrong with a well-formed tree, for diagnosis: slower than a verdict."""
    return {rule: tuple(rule(_questions(kernel, quota))) for rule in RULES}


def _questions(kernel: Kernel, quota: int) -> Questions:
    return Questions(Schedule(kernel, unfused(kernel.tree, kernel.ranges)), quota)
