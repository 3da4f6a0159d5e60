"""The onnx package's own test cases, compiled and run: each is computed right or refused in clear words.

Cases whose names end in ``expanded`` (an operator written out as others) run with ``--all-conformance`` only.
"""

from __future__ import annotations

import re

import numpy as np
import pytest
from onnx_cases import Array, Case, node_families, node_family, stored_cases

import polycomp
from polycomp.errors import PolycompError

OPERATORS = frozenset(
    re.findall(
        r"\w+",
        """
    Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization BitShift BitwiseAnd
    BitwiseNot BitwiseOr BitwiseXor Cast CastLike Ceil Celu Clip Concat Constant ConstantOfShape Conv ConvInteger
    ConvTranspose Cos Cosh CumSum DepthToSpace DequantizeLinear Div Dropout DynamicQuantizeLinear Elu Equal Erf Exp
    Expand EyeLike Flatten Floor Gather GatherElements Gelu Gemm GlobalAveragePool GlobalMaxPool Greater
    GreaterOrEqual GroupNormalization HardSigmoid HardSwish Identity InstanceNormalization IsInf IsNaN LRN
    LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax LpNormalization LpPool MatMul MatMulInteger Max
    MaxPool Mean MeanVarianceNormalization Min Mish Mod Mul Neg NegativeLogLikelihoodLoss Not OneHot Or PRelu Pad
    Pow QLinearConv QLinearMatMul QuantizeLinear RMSNormalization Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum
    ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize
    RotaryEmbedding Round Selu Shape Shrink Sigmoid Sign Sin Sinh Size Slice Softmax SoftmaxCrossEntropyLoss
    Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Swish Tan Tanh ThresholdedRelu Tile Transpose Trilu
    Unsqueeze Upsample Where Xor
        """,
    )
)
"""All cases of these are computed, but for those named below; cases of others may be refused instead."""

_TYPES = r"FLOAT8|FLOAT4|float4|INT4|int4|INT2|int2(_|$)|e4m3|e5m2|e8m0|_string"
REFUSED = {
    _TYPES: "element types of a byte or less that are no integers, and strings, are not supported",
    r"^test_(training_dropout|batchnorm_.*_training_mode)": "training: models are compiled for inference",
    r"^test_maxpool_with_argmax": "the positions of maxima are not computed",
    r"^test_resize_(tf_crop|.*_antialias)": "no cropping and no antialiasing while resizing",
    r"^test_identity_(sequence|opt)$": "sequences and optionals are no tensors",
    r"^test_(blackman|hamming|hann)window.*_expanded": "a Range between floats that the graph computes",
    r"^test_center_crop_pad": "the output's shape is computed from data",
    r"^test_attention_local_window_ext_cache": "the length of a Range is computed from data",
    r"^test_PReLU_.d_multiparam$": "the converter of opsets keeps PRelu's old rule of broadcasting",
}
"""Cases of supported operators that are refused, by pattern, with the reason."""

DIFFERENT = {
    r"^test_resize_downsample_scales_(linear|cubic)_align_corners$": "the case computes with a fraction of a pixel as "
    "length of the output, where the specification, onnxruntime and PyTorch take the output's length",
}
"""Cases with another result, by pattern, with the reason."""

HALF_TOLERANCE = {"float16": 2e-3, "bfloat16": 2e-2}
"""A share of 1: two units in the last place; fused steps round less often than the cases."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "family" in metafunc.fixturenames:
        metafunc.parametrize("family", node_families())


def test_node_cases(family: str, request: pytest.FixtureRequest) -> None:
    everything = request.config.getoption("--all-conformance")
    cases = [c for c in node_family(family) if everything or "expanded" not in c.name]
    _expect_no_problems(cases)


@pytest.mark.parametrize("kind", ["simple", "pytorch-operator", "pytorch-converted"])
def test_stored_cases(kind: str) -> None:
    _expect_no_problems(list(stored_cases(kind)))


def _expect_no_problems(cases: list[Case]) -> None:
    problems = {case.name: problem for case in cases if (problem := _problem(case))}
    assert not problems, "\n".join(f"{name}: {problem}" for name, problem in problems.items())


def _matches(name: str, patterns: dict[str, str]) -> bool:
    return any(re.search(p, name) for p in patterns)


def _problem(case: Case) -> str | None:
    """What is wrong; None when the case is computed right, or is refused and may be."""
    if _matches(case.name, DIFFERENT):
        return None
    refused = _matches(case.name, REFUSED)
    try:
        outputs = _run(case)
    except PolycompError as error:
        return None if refused or not case.operators <= OPERATORS else f"refused: {error}"
    except Exception as error:
        error.add_note(case.name)
        raise
    if refused:
        return "is listed as refused, but is computed"
    return _difference(case, outputs)


def _run(case: Case) -> list[Array]:
    model, feeds = case.frozen()
    module = polycomp.compile(model, threads=1, cache=False, jobs=1)
    outputs = module.run(feeds)
    return [outputs[o.name] for o in model.graph.output]


def _difference(case: Case, outputs: list[Array]) -> str | None:
    for position, (got, wanted) in enumerate(zip(outputs, case.outputs, strict=True)):
        if wanted is None:
            return f"output {position} is no tensor"
        if (got.dtype, got.shape) != (wanted.dtype, wanted.shape):
            return f"output {position} is {got.dtype}{got.shape}, not {wanted.dtype}{wanted.shape}"
        rtol = max(case.rtol, HALF_TOLERANCE.get(got.dtype.name, 0.0))
        if not np.allclose(got, wanted, rtol, case.atol, equal_nan=True):
            return f"output {position} differs in {np.sum(~np.isclose(got, wanted, rtol, case.atol, True))} elements"
    return None
