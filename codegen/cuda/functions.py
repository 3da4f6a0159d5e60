"""Device functions that emitted code calls besides those of the prelude: each source has those that it needs."""

from __future__ import annotations

import re
from collections.abc import Mapping

_TEMPLATE = "template <typename T> static __device__ __forceinline__ "
_PLAIN = "static __device__ __forceinline__ "

# A function stands after those that it calls.
FUNCTIONS: Mapping[str, str] = {
    "op_round_half": f"""{_PLAIN}float op_round_half(float x) {{
    return pc_from_half(pc_to_half(x));
}}""",
    "op_round_bfloat16": f"""{_PLAIN}float op_round_bfloat16(float x) {{
    return pc_from_bfloat16(pc_to_bfloat16(x));
}}""",
    "op_square": f"""{_TEMPLATE}T op_square(T x) {{
    return x * x;
}}""",
    "op_cube": f"""{_TEMPLATE}T op_cube(T x) {{
    return x * x * x;
}}""",
    "op_sigmoid": f"""{_PLAIN}float op_sigmoid(float x) {{
    return 1.0f / (1.0f + expf(-x));
}}
{_PLAIN}double op_sigmoid(double x) {{
    return 1.0 / (1.0 + exp(-x));
}}""",
    "op_sign": f"""// Of a NaN or a zero itself.
{_TEMPLATE}T op_sign(T x) {{
    return x < T(0) ? T(-1) : x > T(0) ? T(1) : x;
}}""",
    "op_floormod": f"""// The remainder with the divisor's sign.
{_PLAIN}float op_floormod(float x, float y) {{
    const float rest = fmodf(x, y);
    return rest != 0.0f && (rest < 0.0f) != (y < 0.0f) ? rest + y : rest;
}}
{_PLAIN}double op_floormod(double x, double y) {{
    const double rest = fmod(x, y);
    return rest != 0.0 && (rest < 0.0) != (y < 0.0) ? rest + y : rest;
}}""",
    "op_negate": f"""// Integers wrap around.
{_TEMPLATE}T op_negate(T x) {{
    return (T)(0ull - (unsigned long long)x);
}}""",
    "op_abs": f"""{_TEMPLATE}T op_abs(T x) {{
    return x < T(0) ? op_negate(x) : x;
}}""",
    "op_pow": f"""// An integer power that wraps around; one with a negative exponent is rounded to zero.
{_TEMPLATE}T op_pow(T x, T y) {{
    if (y < T(0)) return x == T(1) || (x == T(-1) && y % 2 == 0) ? T(1) : x == T(-1) ? x : T(0);
    unsigned long long base = x, rest = y, product = 1;
    for (; rest != 0; rest >>= 1) {{
        if (rest & 1) product *= base;
        base *= base;
    }}
    return (T)product;
}}""",
    "op_to_unsigned": f"""// Numbers below 0 wrap around.
{_TEMPLATE}unsigned long long op_to_unsigned(T x) {{
    return x < T(0) ? (unsigned long long)(long long)x : (unsigned long long)x;
}}""",
    "op_checked_index": f"""// The index where it is inside of a dimension; 0 elsewhere, which is told as `given`.
{_PLAIN}long long op_checked_index(long long index, long long size, long long given, long long* status) {{
    if (index >= 0 && index < size) return index;
    pc_wrong_index(status, given, size);
    return 0;
}}""",
    "op_copy16": f"""{_TEMPLATE}void op_copy16(T* to, const T* from) {{
    *(uint4*)to = *(const uint4*)from;
}}""",
    "op_copy8": f"""{_TEMPLATE}void op_copy8(T* to, const T* from) {{
    *(uint2*)to = *(const uint2*)from;
}}""",
    "op_copy4": f"""{_TEMPLATE}void op_copy4(T* to, const T* from) {{
    *(unsigned*)to = *(const unsigned*)from;
}}""",
    "op_copy2": f"""{_TEMPLATE}void op_copy2(T* to, const T* from) {{
    *(unsigned short*)to = *(const unsigned short*)from;
}}""",
}


def needed_functions(source: str) -> str:
    """The definitions of what ``source`` calls, in an order that C takes."""
    wanted: set[str] = set()
    texts = [source]
    while texts:
        found = {name for name in re.findall(r"\bop_\w+", texts.pop()) if name in FUNCTIONS} - wanted
        wanted |= found
        texts += [FUNCTIONS[name] for name in found]
    return "".join(f"{text}\n\n" for name, text in FUNCTIONS.items() if name in wanted)
