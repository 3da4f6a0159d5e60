"""Every error that polycomp raises on purpose: one class per cause, all under :class:`PolycompError`.

A message is one clear sentence or two: what is wrong, where (a node name, a file, a Python line), why, and
what to do or what is available instead.
"""

from __future__ import annotations


class PolycompError(Exception):
    """Base of all errors raised by polycomp."""


class ModelError(PolycompError):
    """The model file is not a valid model: truncated, cyclic, an unknown attribute value, missing names."""


class ExternalDataError(ModelError):
    """A weight that the model keeps in another file is missing, too short or outside the model's folder."""


class UnsupportedOperatorError(PolycompError):
    """The model uses operators, attributes or dtypes that polycomp cannot compile."""


class ShapeError(PolycompError):
    """Shapes that contradict each other, or a shape that an operator cannot take."""


class DTypeError(PolycompError):
    """An element type that an operator or a tensor function cannot take."""


class ExpressionError(PolycompError):
    """A tensor expression that is not well formed: repeated axis names, a reduction inside an expression."""


class InputError(PolycompError):
    """Wrong inputs given to a module: name, dtype, rank or size. Names all the wrong ones together."""


class TargetError(PolycompError):
    """A target that does not exist, cannot be compiled for by this install, or cannot run on this machine."""


class ModuleFileError(PolycompError):
    """A ``.pcm`` file that is truncated, altered, of another format version, or for another machine."""


class ExecutionError(PolycompError):
    """A run of a module failed, for instance because an index lay outside of its tensor."""


class OutOfMemoryError(ExecutionError):
    """A run of a module needs more memory than there is."""


class ScheduleError(PolycompError):
    """A schedule primitive was used wrongly; the subclasses say how. The schedule is as it was before."""


class UnknownLoopError(ScheduleError):
    """A loop that the schedule does not have."""


class StaleLoopError(UnknownLoopError):
    """A handle on a loop that a primitive has replaced; the message names what it became."""


class UnknownTensorError(ScheduleError):
    """A tensor that the schedule does not compute, or that does not read what it is said to."""


class FactorError(ScheduleError):
    """A factor, distance, axis number or option out of the values that a primitive takes."""


class NestingError(ScheduleError):
    """Loops that are not nested in one another as a primitive needs them, or an order that their extents forbid."""


class ExtentError(ScheduleError):
    """A loop or tile whose extent must be known while compiling, and is not."""


class PlacementError(ScheduleError):
    """A tensor that cannot be computed, stored or inlined where a primitive was asked to."""


class TraceError(ScheduleError):
    """A trace that is not well formed, or does not fit the schedule it is applied to."""


class HopelessScheduleError(ScheduleError):
    """A schedule that the tuner leaves out: it computes the right thing, but surely not fast."""


class IllegalScheduleError(ScheduleError):
    """A primitive (or a whole schedule) would not compute what the tensors say; the message says why and what helps.

    ``source`` and ``target`` are the two iterations that are in each other's way, as text such as
    ``C.update[i=0, j=3, k=0]`` ("" where there is none); ``remedy`` is what would make it legal.
    """

    def __init__(self, message: str, source: str = "", target: str = "", remedy: str = "") -> None:
        super().__init__(message)
        self.source, self.target, self.remedy = source, target, remedy


class UnprovenScheduleError(IllegalScheduleError):
    """A schedule that could be neither proven nor refuted within the prover's quota."""


class BuildError(PolycompError):
    """Arguments of ``build`` that make no function: no schedule, repeated names, sizes that no input tells."""


class CompileError(PolycompError):
    """The compiler itself failed on valid input. Always a bug of polycomp worth reporting."""


class LinkError(CompileError):
    """An object file holds something that the module linker does not know."""


class CacheError(PolycompError):
    """The kernel cache cannot be read or written."""


class TuningLogError(PolycompError):
    """A tuning log that is not there, or cannot be read or written."""


class FleetError(PolycompError):
    """Machines that were to measure schedules cannot be used: no cluster, no node of that kind, or none is left."""


class TracingError(PolycompError):
    """A Python function cannot be traced. The message begins with the user's file and line."""


class ValueNeededError(TracingError):
    """Python code asked for the value of a traced tensor (``if``, ``while``, ``float()``, ``range()``)."""


class SizeNeededError(TracingError):
    """Python code asked for the value of a size that is open until the function is called."""


class MutationError(TracingError):
    """A traced tensor was assigned into (``x[0] = 1``, ``out=``); traced tensors never change."""


class IndexingError(TracingError):
    """An index that a traced tensor does not have, or that cannot be traced."""


class UnsupportedFunctionError(TracingError):
    """A numpy function, or an argument of one, that cannot be traced."""


class UnsupportedAttributeError(UnsupportedFunctionError, AttributeError):
    """An attribute or method of numpy's arrays that traced tensors have not."""


class LeakedTensorError(TracingError):
    """A traced tensor was used outside of the call of the function that it belongs to."""


class SignatureError(TracingError):
    """``@jit`` options or annotations that do not fit the function: unknown parameters or sizes."""


class ArgumentError(TracingError):
    """An argument of a jit function, or a result, that is no array, number, or tuple, list or dict of such."""
