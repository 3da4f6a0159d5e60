"""Names and comments of emitted CUDA C."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

_KEYWORDS = """
alignas alignof and and_eq asm auto bitand bitor bool break case catch char class compl const constexpr const_cast
continue decltype default delete do double dynamic_cast else enum explicit export extern false float for friend goto if
inline int long mutable namespace new noexcept not not_eq nullptr operator or or_eq private protected public register
reinterpret_cast return short signed sizeof static static_assert static_cast struct switch template this thread_local
throw true try typedef typeid typename union unsigned using virtual void volatile wchar_t while xor xor_eq
"""
_MATH = """
acos acosh asin asinh atan atan2 atanh ceil cos cosh erf exp exp2 expm1 fabs floor fmod log log1p log2 pow rint sin sinh
sqrt tan tanh trunc
"""
_BUILT_IN = """
threadIdx blockIdx blockDim gridDim warpSize uint2 uint3 uint4 dim3 size_t atomicCAS abs isnan isinf isfinite signbit
max min harness workspace status shared_memory step
"""
_FUNCTIONS = frozenset(_MATH.split())
_RESERVED = _FUNCTIONS | {f"{name}f" for name in _FUNCTIONS} | {*_KEYWORDS.split(), *_BUILT_IN.split()}


def identifier(name: str) -> str:
    """``name`` as a C identifier that is no keyword, no function that emitted code calls, and not reserved."""
    text = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")
    if not text or text[0].isdigit():
        text = f"v{text}"
    return f"{text}_" if text in _RESERVED or text.startswith(("pc_", "op_")) else text


def comment(text: str) -> str:
    """``text`` without what would end a comment, or make it go on in the next line; ASCII."""
    plain = text.encode("ascii", "backslashreplace").decode()
    plain = re.sub(r"[\x00-\x1f\x7f]+", " ", plain).replace("*/", "* /").replace("/*", "/ *")
    return re.sub(r"\\+$", "", plain.strip()).strip()


class Names:
    """The identifiers in use within one function."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._taken = set(taken)

    def __iter__(self) -> Iterator[str]:
        return iter(self._taken)

    def fresh(self, name: str) -> str:
        """An identifier like ``name`` that nothing else has."""
        base = identifier(name)
        candidate, number = base, 1
        while candidate in self._taken:
            candidate, number = f"{base}_{number}", number + 1
        self._taken.add(candidate)
        return candidate

    def release(self, name: str) -> None:
        """``name`` is out of scope and may be used again."""
        self._taken.discard(name)
