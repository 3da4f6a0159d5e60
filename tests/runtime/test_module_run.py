"""Running modules: results, inputs of every kind, threads, profiles, failures."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import gc
import os
import subprocess
import sys
import threading
import weakref

import numpy as np
import pytest
from tiny_modules import checked_parts, static_parts, symbolic_parts

from polycomp.errors import ExecutionError, InputError, ModuleFileError
from polycomp.runtime import Module, load_parts
from polycomp.runtime.library import Library, shared_pool
from polycomp.runtime.memory import allocate
from polycomp.target import available_cores


@pytest.fixture(scope="module")
def parts():
    return symbolic_parts()


def expected(x, y):
    return x + y + np.arange(len(x), dtype=np.float32)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("size", [1, 2, 3, 64, 997])
def test_results(parts, threads, size):
    module = load_parts(parts, threads)
    x, y = (np.random.default_rng(i).standard_normal(size).astype(np.float32) for i in range(2))
    for _ in range(3):
        outputs = module.run({"x": x, "y": y})
        assert list(outputs) == ["out"]
        np.testing.assert_array_equal(outputs["out"], expected(x, y))


def test_specs(parts):
    module = load_parts(parts, 2)
    assert [(s.name, s.dtype, s.shape) for s in module.inputs] == [("x", "float32", ("N",)), ("y", "float32", ("N",))]
    assert [(s.name, s.dtype, s.shape) for s in module.outputs] == [("out", "float32", ("N",))]
    assert module.threads == 2
    assert repr(module) == "<Module 'tiny' [x: float32[N], y: float32[N]] -> [out: float32[N]]>"


def test_default_threads(parts):
    assert load_parts(parts).threads == available_cores()
    assert load_parts(symbolic_parts(threads=10_000)).threads == available_cores()
    assert load_parts(symbolic_parts(threads=1)).threads == 1
    with pytest.raises(InputError, match="threads is -1"):
        load_parts(parts, -1)


def test_strided_misaligned_and_readonly_inputs(parts):
    module = load_parts(parts, 1)
    base = np.arange(201, dtype=np.float32)
    x, y = base[::2][:50], base[1:51]
    y.flags.writeable = False
    np.testing.assert_array_equal(module.run({"x": x, "y": y})["out"], expected(x, y))
    np.testing.assert_array_equal(module.run({"x": x[::-1], "y": x})["out"], expected(x[::-1], x))
    np.testing.assert_array_equal(base, np.arange(201, dtype=np.float32))


def test_memory_mapped_input(parts, tmp_path):
    np.save(tmp_path / "x.npy", np.arange(20, dtype=np.float32))
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    np.testing.assert_array_equal(load_parts(parts, 1).run({"x": x, "y": x})["out"], expected(x, x))


def test_outputs_are_new_aligned_arrays(parts):
    module = load_parts(parts, 1)
    x = np.ones(10, np.float32)
    first, second = (module.run({"x": x, "y": x})["out"] for _ in range(2))
    assert first.ctypes.data % 64 == 0 and second.ctypes.data % 64 == 0
    assert not np.shares_memory(first, second)
    kept = first.copy()
    np.testing.assert_array_equal(module.run({"x": second, "y": second})["out"], expected(second, second))
    np.testing.assert_array_equal(first, kept)
    first[:] = 0  # writable


def test_static_shape():
    module = load_parts(static_parts((2, 3)), 2)
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(module.run({"x": x, "y": x.T.copy().T})["out"], x + x)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "input x: float32[N] is missing; input y: float32[N] is missing"),
        (
            {"x": np.ones(3, np.float32), "z": 1, "w": 2},
            "input y: float32[N] is missing; no input is called 'z', 'w'; the inputs are x, y",
        ),
        (
            {"x": np.ones(3), "y": np.ones((3, 1), np.float32)},
            "'x' is float64, expected float32; 'y' has 2 dimensions, expected y: float32[N]",
        ),
        (
            {"x": [1.0], "y": np.float32(3)},
            "'x' is a list, not a numpy array; 'y' is a float32, not a numpy array",
        ),
        (
            {"x": np.ones(3, np.float32), "y": np.ones(4, np.float32)},
            "N is 3 by dimension 0 of 'x', but 4 by dimension 0 of 'y'",
        ),
        (
            {"x": np.ones(1001, np.float32), "y": np.ones(1001, np.float32)},
            "N is 1001 by dimension 0 of 'x', outside of its range 1..1000",
        ),
        (
            {"x": np.ones(0, np.float32), "y": np.ones(0, ">f4")},
            "'y' is >f4, expected float32; N is 0 by dimension 0 of 'x', outside of its range 1..1000",
        ),
    ],
)
def test_wrong_inputs_are_named_together(parts, inputs, message):
    module = load_parts(parts, 1)
    good = np.ones(3, np.float32)
    module.run({"x": good, "y": good})  # a plan for such shapes exists
    with pytest.raises(InputError) as caught:
        module.run(inputs)
    assert str(caught.value) == f"wrong inputs for 'tiny': {message}"
    np.testing.assert_array_equal(module.run({"x": good, "y": good})["out"], expected(good, good))


def test_inputs_without_names(parts):
    with pytest.raises(InputError, match="inputs are a dict of arrays by name, not a list"):
        load_parts(parts).run([np.ones(3, np.float32)])


def test_scalar_types_are_not_arrays():
    module = load_parts(checked_parts(), 1)
    assert module.run({"x": np.array(2, np.float32)})["out"] == 2
    with pytest.raises(InputError, match="'x' is a float32, not a numpy array"):
        module.run({"x": np.float32(2)})


def test_wrong_fixed_size():
    with pytest.raises(InputError, match="dimension 1 of 'y' is 4, expected 3"):
        load_parts(static_parts(), 1).run({"x": np.ones((2, 3), np.float32), "y": np.ones((2, 4), np.float32)})


def test_failed_run():
    module = load_parts(checked_parts(), 1)
    with pytest.raises(ExecutionError, match="a run of 'checked' failed: the index 0 is outside"):
        module.run({"x": np.array(-1, np.float32)})
    assert module.run({"x": np.array(1, np.float32)})["out"] == 1


def test_profile(parts):
    module = load_parts(parts, 2)
    x = np.ones(100, np.float32)
    outputs, profile = module.run_profiled({"x": x, "y": x})
    np.testing.assert_array_equal(outputs["out"], expected(x, x))
    assert [(p.symbol, p.sources, p.flops, p.bytes) for p in profile] == [
        ("add", ("first", "again"), 100, 1200),
        ("add", (), 0, 0),
    ]
    assert all(p.nanoseconds >= 0 for p in profile)


@pytest.mark.parametrize("threads", [1, 2])
def test_concurrent_runs(parts, threads):
    module = load_parts(parts, threads)

    def work(seed):
        random = np.random.default_rng(seed)
        for _ in range(60):
            size = int(random.integers(1, 1000))
            x, y = random.standard_normal((2, size)).astype(np.float32)
            np.testing.assert_array_equal(module.run({"x": x, "y": y})["out"], expected(x, y))
        return True

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        assert all(pool.map(work, range(12)))


def test_many_shapes(parts):
    module = load_parts(parts, 1)
    for size in [*range(1, 400), 5, 399]:
        x = np.full(size, size, np.float32)
        np.testing.assert_array_equal(module.run({"x": x, "y": x})["out"], expected(x, x))


def test_modules_share_one_pool_that_grows(parts):
    first, second = load_parts(parts, 2), load_parts(parts, 4)
    x = np.ones(50, np.float32)
    assert shared_pool().get(2, first._library) is shared_pool().get(3, second._library)
    third = load_parts(parts, shared_pool().get(2, first._library).threads + 1)
    for module in (first, second, third, first):
        np.testing.assert_array_equal(module.run({"x": x, "y": x})["out"], expected(x, x))


def test_modules_are_unloaded(parts):
    gc.collect()  # what earlier tests left behind
    before = len(os.listdir("/proc/self/fd"))
    module = load_parts(parts, 1)
    x = np.ones(5, np.float32)
    module.run({"x": x, "y": x})
    library = weakref.ref(module._library)
    assert len(os.listdir("/proc/self/fd")) == before + 1
    del module
    assert library() is None
    assert len(os.listdir("/proc/self/fd")) == before


def test_two_modules_at_once_keep_their_own_code():
    vector, scalar = load_parts(symbolic_parts(), 1), load_parts(checked_parts(), 1)
    x = np.ones(5, np.float32)
    np.testing.assert_array_equal(vector.run({"x": x, "y": x})["out"], expected(x, x))
    assert scalar.run({"x": np.array(3, np.float32)})["out"] == 3


def test_code_from_a_file_when_memory_files_are_missing(parts, monkeypatch):
    def refuse(*_):
        raise OSError("no memory files")

    monkeypatch.setattr(os, "memfd_create", refuse)
    x = np.ones(5, np.float32)
    np.testing.assert_array_equal(load_parts(parts, 1).run({"x": x, "y": x})["out"], expected(x, x))


def test_code_that_is_not_code():
    with pytest.raises(ModuleFileError, match="broken: this system does not load its code"):
        Library(b"\x7fELF nothing", "broken")


def test_machine_and_features(parts):
    other = dataclasses.replace(parts, manifest=dataclasses.replace(parts.manifest, arch="riscv64"))
    with pytest.raises(ModuleFileError, match="module 'tiny' was compiled for riscv64, but this machine is"):
        load_parts(other)
    features = (*parts.manifest.features, "avx99", "amx")
    other = dataclasses.replace(parts, manifest=dataclasses.replace(parts.manifest, features=features))
    with pytest.raises(ModuleFileError, match="needs CPU features that this machine does not have: amx, avx99"):
        load_parts(other)


def test_large_memory_is_aligned_and_private():
    memory = allocate(9 << 20)
    assert memory.nbytes == 9 << 20 and memory.ctypes.data % (2 << 20) == 0
    memory[:] = 1
    child = os.fork()
    if child == 0:
        memory[:] = 2
        os._exit(0)
    os.waitpid(child, 0)
    assert memory.max() == 1


def run_in_child(work) -> int:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_runs_after_a_fork(parts):
    module = load_parts(parts, 3)
    x = np.ones(300, np.float32)
    module.run({"x": x, "y": x})
    stop = threading.Event()

    def busy():
        while not stop.is_set():
            module.run({"x": x, "y": x})

    def work():
        for _ in range(20):
            np.testing.assert_array_equal(module.run({"x": x, "y": x})["out"], expected(x, x))

    thread = threading.Thread(target=busy)
    thread.start()
    try:
        assert [run_in_child(work) for _ in range(5)] == [0] * 5
    finally:
        stop.set()
        thread.join()
    np.testing.assert_array_equal(module.run({"x": x, "y": x})["out"], expected(x, x))


def test_load_and_run_without_the_compiler(parts, tmp_path):
    path = tmp_path / "tiny.pcm"
    load_parts(parts, 1).save(path)
    script = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("islpy", "llvmlite", "onnx", "onnxruntime", "click", "rich"):
            raise ImportError(f"{name} must not be imported")

sys.meta_path.insert(0, Refuse())
import numpy as np
import polycomp.runtime
module = polycomp.runtime.load(sys.argv[1], threads=2)
x = np.arange(8, dtype=np.float32)
print(module.run({"x": x, "y": x})["out"].tolist())
compiler = {"codegen", "driver", "expr", "graph", "te", "ops", "poly", "loops", "importers", "passes"}
print(sorted(m for m in sys.modules if m.startswith("polycomp.") and m.split(".")[1] in compiler))
"""
    done = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [str([3.0 * i for i in range(8)]), "[]"]
    assert isinstance(load_parts(parts, 1), Module)
