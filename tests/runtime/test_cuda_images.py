"""Which code of a module a GPU is given."""

from __future__ import annotations

import dataclasses

import pytest
from fake_cuda import FakeDevice, code_for, cuda_module, tiny_parts, with_plan

from polycomp.errors import ModuleFileError
from polycomp.runtime.cuda.images import architecture


def chosen(archs, device):
    """What a GPU is given of a module with such code."""
    gpu = FakeDevice(architecture=device)
    cuda_module(tiny_parts(archs), gpu)
    (image,) = gpu.loaded
    text = image.decode()
    return text.split()[-1] if text.startswith("add ") else f"ptx {text.split()[-1]}"


@pytest.mark.parametrize(
    ("archs", "device", "expected"),
    [
        (["sm_80", "sm_90a", "ptx"], "sm_90", "sm_90a"),
        (["sm_90", "sm_90a"], "sm_90", "sm_90a"),
        (["sm_90a", "sm_90"], "sm_90", "sm_90a"),
        (["sm_80", "sm_90a", "ptx"], "sm_80", "sm_80"),
        (["sm_80", "sm_90a", "ptx"], "sm_89", "sm_80"),
        (["sm_80", "sm_86", "sm_89"], "sm_86", "sm_86"),
        (["sm_80", "sm_86", "sm_89"], "sm_87", "sm_86"),
        (["sm_80", "sm_90a", "ptx"], "sm_100", "ptx sm_80"),
        (["sm_80", "sm_90", "ptx sm_75"], "sm_75", "ptx sm_75"),
        (["sm_100", "sm_100f", "sm_103a"], "sm_103", "sm_103a"),
        (["sm_100", "sm_100f", "sm_103a"], "sm_100", "sm_100f"),
        (["sm_100a", "sm_100f"], "sm_103", "sm_100f"),
        (["sm_100a", "ptx sm_100f"], "sm_103", "ptx sm_100f"),
        (["ptx sm_80"], "sm_120", "ptx sm_80"),
    ],
)
def test_choice(archs, device, expected):
    assert chosen(archs, device) == expected


@pytest.mark.parametrize(
    ("archs", "device", "there"),
    [
        (["sm_80", "sm_90a", "ptx"], "sm_75", "sm_80, sm_90a, PTX for sm_80 and later"),
        (["sm_90a"], "sm_100", "sm_90a"),
        (["sm_86"], "sm_80", "sm_86"),
        (["ptx sm_90a"], "sm_100", "PTX for sm_90a"),
        (["sm_100f"], "sm_120", "sm_100f"),
    ],
)
def test_no_code_for_the_gpu(archs, device, there):
    with pytest.raises(ModuleFileError) as caught:
        chosen(archs, device)
    assert str(caught.value) == (
        f"module 'tiny' has code for {there}, but the GPU 'Fake GPU' is {device}; compile the model again for it, with "
        f"--target cuda,arch={device}"
    )


def test_architectures():
    assert architecture("sm_90a") == (9, 0, "a")
    assert architecture("sm_103f") == (10, 3, "f")
    assert architecture("sm_75") == (7, 5, "")


def test_a_kernel_that_the_code_lacks():
    with pytest.raises(ModuleFileError, match="kernel 'add_0' cannot be used on this GPU: not found"):
        cuda_module(tiny_parts(), FakeDevice(kernels={}))


def test_code_that_steps_share_is_loaded_once():
    gpu = FakeDevice()
    parts = tiny_parts(["sm_80"])
    specs, code = code_for(["add", "mul"], ["sm_80"])
    shared = (specs[0], dataclasses.replace(specs[0], symbol="mul"))
    steps = parts.manifest.device.steps
    steps = (steps[0], dataclasses.replace(steps[1], symbol="mul"))
    listed = (parts.manifest.steps[0], dataclasses.replace(parts.manifest.steps[1], symbol="mul"))
    parts = dataclasses.replace(parts, manifest=dataclasses.replace(parts.manifest, steps=listed), shared_object=code)
    cuda_module(with_plan(parts, code=shared, steps=steps), gpu)
    assert gpu.loaded == [b"add sm_80"]
