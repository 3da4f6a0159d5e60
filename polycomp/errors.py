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


class ScheduleError(PolycompError):
    """A schedule primitive was used wrongly: an unknown loop, a factor that is not a positive integer."""


class IllegalScheduleError(ScheduleError):
    """A schedule primitive would break a dependence; the message names a violated pair of iterations."""


class CompileError(PolycompError):
    """The compiler itself failed on valid input. Always a bug of polycomp worth reporting."""


class LinkError(CompileError):
    """An object file holds something that the module linker does not know."""


class CacheError(PolycompError):
    """The kernel cache cannot be read or written."""
