"""Modules on a GPU as cupy shows it, and what is told where there is none."""

from __future__ import annotations

import importlib
import sys

import numpy as np
import pytest
from fake_cuda import tiny_parts
from fake_cupy import FakeArray, FakeCupy, add

import polycomp
from polycomp.cli import main
from polycomp.errors import ExecutionError, InputError, ModuleFileError, OutOfMemoryError, TargetError
from polycomp.runtime import read_module_file, write_module_file
from polycomp.runtime.cuda import cupydevice
from polycomp.runtime.cuda.cupydevice import CupyDevice, open_device
from polycomp.runtime.cuda.module import CudaModule


@pytest.fixture
def cupy(monkeypatch):
    package = FakeCupy({"add_0": add})
    monkeypatch.setitem(sys.modules, "cupy", package)
    return package


@pytest.fixture
def path(tmp_path):
    write_module_file(tmp_path / "m.pcm", tiny_parts())
    return tmp_path / "m.pcm"


def vectors(size):
    return (np.random.default_rng(seed).standard_normal(size).astype(np.float32) for seed in range(2))


def expected(x, y):
    return x + y + np.arange(len(x), dtype=np.float32)


# Runs


def test_a_module_file_runs(cupy, path):
    module = polycomp.load(path, threads=3)
    assert type(module) is CudaModule and isinstance(module, polycomp.Module)
    assert (module.device.name, module.device.architecture, module.device.number) == ("Fake H100", "sm_90", 0)
    for size in [40, 40, 40, 900, 40, 0]:
        x, y = vectors(size)
        np.testing.assert_array_equal(module.run({"x": x, "y": y})["out"], expected(x, y))
    assert next(entry for entry in cupy.log if entry[0] == "launch") == ("launch", "add_0", 2, 32, 0, 1234)
    assert sum(entry[0] == "graph" for entry in cupy.log) == 2
    assert cupy.entered == 0


def test_arrays_of_cupy(cupy, path):
    module = polycomp.load(path)
    x, y = vectors(80)
    out = module.run({"x": FakeArray(x[::2]), "y": FakeArray(y[:40])})["out"]
    assert type(out) is FakeArray
    np.testing.assert_array_equal(out.content, expected(x[::2], y[:40]))
    assert [entry for entry in cupy.log if entry[0] in ("event", "wait")] == [
        ("event", 0),
        ("wait", 1234),
        ("event", 1),
        ("wait", 1234),
    ]


def test_memory_of_the_host_in_the_disguise_of_a_gpu(cupy, path):
    class Disguised(FakeArray):
        @property
        def __cuda_array_interface__(self):
            return {**super().__cuda_array_interface__, "data": (64, False)}

    x, y = vectors(40)
    with pytest.raises(InputError, match="'x' is in memory of no GPU, but the module is loaded on GPU 0, 'Fake H100'"):
        polycomp.load(path).run({"x": Disguised(x), "y": y})


def test_profiles(cupy, path):
    module = polycomp.load(path)
    x, y = vectors(40)
    outputs, profile = module.run_profiled({"x": x, "y": y})
    np.testing.assert_array_equal(outputs["out"], expected(x, y))
    assert [p.nanoseconds for p in profile] == [500_000, 500_000]
    (held,) = [entry for entry in cupy.log if entry[0] == "host"]
    assert held[2].is_set()
    held[1](held[2])  # what the driver calls returns at once


def test_streams(cupy):
    device = CupyDevice(cupy, 0)
    with device.active():
        stream = device.new_stream()
        memory = device.allocate(64)
        assert memory.address % 256 == 0
        source, target = np.arange(64, dtype=np.uint8), np.zeros(64, np.uint8)
        stream.upload(memory.address, source)
        stream.clear(memory.address + 8, 8)
        stream.copy(memory.address + 16, memory.address, 8)
        stream.download(target, memory.address)
        stream.synchronize()
        assert [entry[2] for entry in cupy.log if entry[0] == "memcpy"] == [1, 3, 2]
        np.testing.assert_array_equal(target[:24], [*range(8), *[0] * 8, *range(8)])
        assert device.memory().total == 1 << 20
        assert device.host_memory(0).nbytes == 0 and device.host_memory(10).flags.writeable


def test_a_capture_that_fails_is_ended(cupy):
    device = CupyDevice(cupy, 0)
    with device.active():
        stream = device.new_stream()
        with pytest.raises(KeyError):
            stream.capture(lambda: {}["absent"])
    assert cupy.capturing is None


def test_memory_in_cupys_pool_is_given_back_first(cupy):
    device = CupyDevice(cupy, 0)
    cupy.free, cupy.pool_holds = 1000, 3000
    with device.active():
        device.allocate(2000)
    assert cupy.pool_holds == 0


def test_shared_memory(cupy):
    device = CupyDevice(cupy, 0)
    with device.active():
        code = device.load_code(b"cubin")
        code.function("add_0", 0)
        code.function("add_0", 1 << 17)
        assert [entry for entry in cupy.log if entry[0] == "shared"] == [("shared", 1 << 17)]
        with pytest.raises(
            ModuleFileError, match="kernel 'add_0' cannot be used on this GPU: CUDA_ERROR_INVALID_VALUE"
        ):
            code.function("add_0", 1 << 18)
        with pytest.raises(ModuleFileError, match="kernel 'sub_0' cannot be used on this GPU: CUDA_ERROR_NOT_FOUND"):
            code.function("sub_0", 0)


# Failures


def test_out_of_memory(cupy, path):
    module = polycomp.load(path)
    cupy.free = 2000
    x, y = vectors(900)
    with pytest.raises(OutOfMemoryError) as caught:
        module.run({"x": x, "y": y})
    assert str(caught.value) == (
        "a run of 'tiny' with these sizes needs 19216 bytes on the GPU 'Fake H100', which has 2000 of 1048576 bytes "
        "free; run the module on smaller inputs"
    )
    with pytest.raises(OutOfMemoryError, match="the weights of 'tiny' need 4064 bytes on the GPU 'Fake H100'"):
        polycomp.load(path)
    cupy.free = 20_000
    module.run({"x": x, "y": y})
    cupy.free = 100
    with pytest.raises(OutOfMemoryError, match="the GPU 'Fake H100' has not enough memory for an output"):
        module.run({"x": FakeArray(x), "y": y})


def test_a_failure_of_the_gpu(cupy, path):
    module = polycomp.load(path)
    cupy.failing_sync = "cudaErrorIllegalAddress: an illegal memory access was encountered"
    x, y = vectors(40)
    with pytest.raises(ExecutionError) as caught:
        module.run({"x": x, "y": y})
    assert str(caught.value) == f"the GPU 'Fake H100' failed: {cupy.failing_sync}"
    assert cupy.entered == 0


def test_code_that_the_driver_refuses(cupy):
    device = CupyDevice(cupy, 0)
    with pytest.raises(ModuleFileError) as caught, device.active():
        device.load_code(b"bad")
    assert str(caught.value) == (
        "the driver of the GPU 'Fake H100' does not accept the module's code: CUDA_ERROR_INVALID_IMAGE: device kernel "
        "image is invalid; install a later driver, or compile the model again"
    )


def test_an_architecture_that_is_too_old(cupy, path):
    cupy.capability = "70"
    with pytest.raises(ModuleFileError) as caught:
        polycomp.load(path)
    assert str(caught.value) == (
        f"{path} has code for sm_80, PTX for sm_80 and later, but the GPU 'Fake H100' is sm_70; compile the model "
        f"again for it, with --target cuda,arch=sm_70"
    )


# No GPU


def test_no_cupy(monkeypatch, path):
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(TargetError) as caught:
        polycomp.load(path)
    assert str(caught.value) == (
        "modules for CUDA run with cupy, which is not installed: pip install 'polycomp[cuda]', or compile the model "
        "for the CPU"
    )


@pytest.mark.parametrize(
    "error", [ImportError("libcudart.so.13: no such file"), ModuleNotFoundError("No module named 'x'", name="x")]
)
def test_a_cupy_that_cannot_be_imported(monkeypatch, error):
    def fail(name):
        raise error

    monkeypatch.setattr(cupydevice.importlib, "import_module", fail)
    with pytest.raises(TargetError) as caught:
        open_device()
    assert str(caught.value) == (
        f"modules for CUDA run with cupy, which is installed, but cannot be imported: {error}; pip install "
        f"'polycomp[cuda]' again"
    )


def test_an_old_cupy(cupy, path):
    cupy.__version__ = "12.3.0rc1"
    with pytest.raises(TargetError) as caught:
        polycomp.load(path)
    assert str(caught.value) == (
        "modules for CUDA run with cupy 13.0 or later, but cupy 12.3.0rc1 is installed: pip install 'polycomp[cuda]'"
    )


def test_no_device(cupy, path):
    cupy.devices = 0
    with pytest.raises(TargetError) as caught:
        polycomp.load(path)
    assert str(caught.value) == (
        "there is no CUDA device that can be used (cudaErrorNoDevice: no CUDA-capable device is detected); run the "
        "module on a machine with a GPU of NVIDIA's and its driver, or compile the model for the CPU"
    )


def test_module_files_are_looked_at_without_a_gpu(monkeypatch, path, capsys):
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert read_module_file(path).manifest.arch == "cuda"
    with pytest.raises(SystemExit) as done:
        main(["inspect", str(path)])
    assert done.value.code == 0
    assert "cuda sm_80" in capsys.readouterr().out


def test_all_that_is_used_of_cupy_is_there():
    cupy = pytest.importorskip("cupy")
    cuda = cupy.cuda
    names = {
        cupy: "empty from_dlpack asarray ascontiguousarray get_default_memory_pool __version__",
        cuda: "Memory Device Module Stream Event alloc_pinned_memory get_current_stream get_elapsed_time",
        cuda.runtime: "CUDARuntimeError getDeviceCount getDevice getDeviceProperties memGetInfo memcpyAsync "
        "memsetAsync memcpyHostToDevice memcpyDeviceToHost memcpyDeviceToDevice eventRecord streamWaitEvent "
        "memoryTypeDevice memoryTypeManaged pointerGetAttributes",
        cuda.driver: "CUDADriverError CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES funcSetAttribute",
        cuda.Stream: "begin_capture end_capture launch_host_func synchronize",
        cuda.Graph: "launch",
        cuda.Module: "load get_function",
        cuda.Event: "record",
        cuda.Device: "compute_capability __enter__ __exit__",
        cuda.runtime.PointerAttributes: "device type",
    }
    assert [n for place, wanted in names.items() for n in wanted.split() if not hasattr(place, n)] == []
    assert issubclass(cuda.memory.OutOfMemoryError, MemoryError)
    assert importlib.import_module("cupy.cuda.function").Function is cuda.Function
