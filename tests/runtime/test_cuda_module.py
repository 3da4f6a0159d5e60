"""Running modules on a GPU that is made of numpy: results, arrays of every kind, graphs, sessions, failures."""

from __future__ import annotations

import dataclasses
import gc
import threading

import ml_dtypes
import numpy as np
import pytest
from fake_cuda import (
    CALLERS_STREAM,
    DlpackArray,
    FakeArray,
    FakeDevice,
    FakeStream,
    add_step,
    cuda_module,
    taking_parts,
    tiny_parts,
    with_plan,
)

from polycomp.errors import ExecutionError, InputError, OutOfMemoryError
from polycomp.runtime import ArgumentPlan, Module
from polycomp.runtime.cuda.plan import OperandSpec

SIZES = [0, 1, 31, 32, 33, 997, 1000]


def vectors(size):
    return (np.random.default_rng(seed).standard_normal(size).astype(np.float32) for seed in range(2))


def expected(x, y):
    return x + y + np.arange(len(x), dtype=np.float32)


@pytest.fixture
def gpu():
    return FakeDevice()


@pytest.fixture
def module(gpu):
    return cuda_module(tiny_parts(), gpu)


# Results


@pytest.mark.parametrize("size", SIZES)
def test_numpy_in_numpy_out(module, size):
    for _ in range(4):
        x, y = vectors(size)
        outputs = module.run({"x": x, "y": y})
        assert list(outputs) == ["out"] and type(outputs["out"]) is np.ndarray
        np.testing.assert_array_equal(outputs["out"], expected(x, y))


@pytest.mark.parametrize("size", SIZES)
def test_arrays_on_the_gpu(gpu, module, size):
    for _ in range(3):
        x, y = vectors(size)
        out = module.run({"x": gpu.array(x), "y": gpu.array(y)})["out"]
        assert isinstance(out, FakeArray) and out.shape == (size,)
        np.testing.assert_array_equal(out.numpy(), expected(x, y))


def test_both_kinds_together(gpu, module):
    x, y = vectors(50)
    for inputs in ({"x": gpu.array(x), "y": y}, {"x": x, "y": gpu.array(y)}):
        np.testing.assert_array_equal(module.run(inputs)["out"].numpy(), expected(x, y))


def test_sizes_in_turn_in_memory_that_grows(module):
    for size in [3, 900, 3, 40, 900, 3]:
        x, y = vectors(size)
        np.testing.assert_array_equal(module.run({"x": x, "y": y})["out"], expected(x, y))


def test_outputs_are_new_arrays(gpu, module):
    x, y = vectors(20)
    first, second = (module.run({"x": x, "y": y})["out"] for _ in range(2))
    assert not np.shares_memory(first, second)
    kept = first.copy()
    module.run({"x": y, "y": y})
    np.testing.assert_array_equal(first, kept)
    first[:] = 0  # writable
    on_gpu = [module.run({"x": gpu.array(x), "y": y})["out"] for _ in range(2)]
    assert on_gpu[0].buffer is not on_gpu[1].buffer


def test_face(module):
    assert isinstance(module, Module)
    assert [s.name for s in module.inputs] == ["x", "y"] and [s.name for s in module.outputs] == ["out"]
    assert module.threads == 1
    text = "<CudaModule 'tiny' [x: float32[N], y: float32[N]] -> [out: float32[N]] on 'Fake GPU'>"
    assert repr(module) == text


def test_strided_numpy_inputs(module):
    base = np.arange(200, dtype=np.float32)
    x, y = base[::2], base[199::-2]
    np.testing.assert_array_equal(module.run({"x": x, "y": y})["out"], expected(x, y))


# Arrays on the GPU


def test_arrays_that_are_not_row_major_are_copied_on_the_gpu(gpu, module):
    base = np.arange(100, dtype=np.float32)
    whole = gpu.array(base)
    every_other = FakeArray(gpu, whole.buffer, (50,), np.float32, offset=4, strides=(8,))
    y = np.zeros(50, np.float32)
    out = module.run({"x": every_other, "y": y})["out"].numpy()
    np.testing.assert_array_equal(out, expected(base[1::2], y))
    assert gpu.count("contiguous") == 1
    plain = FakeArray(gpu, whole.buffer, (50,), np.float32, offset=4, strides=(4,))  # at no multiple of 16
    np.testing.assert_array_equal(module.run({"x": plain, "y": y})["out"].numpy(), expected(base[1:51], y))
    assert gpu.count("contiguous") == 1


def test_dlpack(gpu, module):
    x, y = vectors(10)
    out = module.run({"x": DlpackArray(gpu.array(x)), "y": DlpackArray(gpu.array(y), kind=13)})["out"]
    np.testing.assert_array_equal(out.numpy(), expected(x, y))


def test_dlpack_is_preferred_to_an_interface_that_names_no_stream(gpu, module):
    class Both(DlpackArray):
        __cuda_array_interface__ = {"version": 2}

    x, y = vectors(10)
    np.testing.assert_array_equal(module.run({"x": Both(gpu.array(x)), "y": y})["out"].numpy(), expected(x, y))


def test_the_interface_may_raise(gpu, module):
    class Gradient(DlpackArray):
        @property
        def __cuda_array_interface__(self):
            raise RuntimeError("it requires grad")

    x, y = vectors(10)
    np.testing.assert_array_equal(module.run({"x": Gradient(gpu.array(x)), "y": y})["out"].numpy(), expected(x, y))
    with pytest.raises(InputError, match="'x' is a Gradient, not a numpy array"):
        module.run({"x": Gradient(gpu.array(x), kind=1), "y": y})


def test_what_dlpack_refuses(gpu, module):
    x, y = vectors(10)
    with pytest.raises(InputError) as caught:
        module.run({"x": DlpackArray(gpu.array(x), fails=True), "y": y})
    assert str(caught.value) == (
        "wrong inputs for 'tiny': 'x' is a DlpackArray that cannot be read through DLPack: it is being written"
    )


def test_runs_wait_for_those_who_make_their_inputs(gpu, module):
    x, y = vectors(10)
    module.run({"x": gpu.array(x, stream=5), "y": gpu.array(y, stream=None)})
    entries = [entry for entry in gpu.log if entry[0] in ("wait", "copy", "launch")]
    assert entries[:2] == [("wait", None), ("wait", 5)]
    gpu.log.clear()
    module.run({"x": gpu.array(x, version=2), "y": y})
    assert [entry for entry in gpu.log if entry[0] == "wait"] == [("wait", None)]
    gpu.log.clear()
    module.run({"x": x, "y": y})
    assert gpu.count("wait") == 0
    assert CALLERS_STREAM != 5


def test_inputs_on_another_gpu_are_named_together(gpu, module):
    x, y = vectors(10)
    other = FakeDevice(number=1)
    with pytest.raises(InputError) as caught:
        module.run({"x": other.array(x), "y": other.array(y)})
    told = "is on GPU 1, but the module is loaded on GPU 0, 'Fake GPU'; copy it there"
    assert str(caught.value) == f"wrong inputs for 'tiny': 'x' {told}; 'y' {told}"
    lost = gpu.array(x)
    lost.buffer.address = 16
    with pytest.raises(InputError, match="'x' is in memory of no GPU, but the module"):
        module.run({"x": lost, "y": y})


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "input x: float32[N] is missing; input y: float32[N] is missing"),
        ({"x": [1.0], "y": np.ones(1, np.float32)}, "'x' is a list, not a numpy array"),
        ({"x": np.ones(3), "y": np.ones((3, 1), np.float32)}, "'x' is float64, expected float32; 'y' has 2 dimensions"),
        ({"x": np.ones(3, np.float32), "z": 1}, "input y: float32[N] is missing; no input is called 'z'"),
        ({"x": np.ones(3, np.float32), "y": np.ones(4, np.float32)}, "N is 3 by dimension 0 of 'x', but 4 by"),
        ({"x": np.ones(1001, np.float32), "y": np.ones(1001, np.float32)}, "outside of its range 0..1000"),
    ],
)
def test_wrong_inputs_are_told_as_on_a_cpu(gpu, module, inputs, message):
    moved = {name: gpu.array(a) if isinstance(a, np.ndarray) and a.ndim else a for name, a in inputs.items()}
    for given in (inputs, moved):
        with pytest.raises(InputError, match="wrong inputs for 'tiny': ") as caught:
            module.run(given)
        assert message in str(caught.value)


def test_inputs_that_are_no_dict(module):
    with pytest.raises(InputError, match="inputs are a dict of arrays by name, not a list"):
        module.run([np.ones(3, np.float32)])


def test_element_types_that_numpy_lacks():
    parts = tiny_parts()
    specs = tuple(dataclasses.replace(s, dtype="bfloat16") for s in parts.manifest.inputs)
    manifest = dataclasses.replace(parts.manifest, inputs=specs)

    def halves(device, number, block, x, y, out, n, workspace, status):
        if number == 0 and n == 3:
            device.floats(out, n)[:] = device.view(x, 2 * n).view(ml_dtypes.bfloat16)

    gpu = FakeDevice(kernels={"add_0": halves})
    plan = dataclasses.replace(
        manifest.device, steps=(manifest.device.steps[0], add_step(("input", 0, 0), ("input", 1, 0), ("output", 0, 0)))
    )
    module = cuda_module(dataclasses.replace(parts, manifest=dataclasses.replace(manifest, device=plan)), gpu)
    x = np.array([1, 2, 3], ml_dtypes.bfloat16)
    np.testing.assert_array_equal(module.run({"x": x, "y": x})["out"], [1, 2, 3])
    on_gpu = gpu.array(x.view(np.uint16))
    on_gpu.dtype = np.dtype(ml_dtypes.bfloat16)  # as cupy's arrays have it
    np.testing.assert_array_equal(module.run({"x": on_gpu, "y": x})["out"].numpy(), [1, 2, 3])


# Where things are


def test_addresses_and_launches(gpu, module):
    x, y = vectors(40)
    module.run({"x": x, "y": y})
    (weights, _), (memory, content) = gpu.buffers.items()
    names = ("status", "out", "x", "y", "arena", "workspace")
    status, out, x_at, y_at, arena, workspace = (memory + 256 * i for i in range(6))
    first, second = (entry[1:] for entry in gpu.log if entry[0] == "launch")
    assert first == ("add_0", 2, 32, x_at, y_at, arena + 64, 40, workspace, status)
    assert second == ("add_0", 2, 32, arena + 64, weights + 64, out, 40, workspace, status)
    assert len(names) * 256 == 1536 and content.content.nbytes == 5 * 256 + 160


def test_weights_are_uploaded_once(gpu):
    module = cuda_module(tiny_parts(), gpu)
    size = module.manifest.weight_bytes
    uploads = [entry for entry in gpu.log if entry[0] == "upload"]
    assert [entry[2] for entry in uploads] == [size]
    sessions = [module.session() for _ in range(3)]
    for session in sessions:
        session.run(dict(zip("xy", vectors(3), strict=True)))
    assert sum(entry[0] == "upload" and entry[2] == size for entry in gpu.log) == 1


def test_launches_of_no_blocks_are_left_out(gpu, module):
    module.run({"x": np.empty(0, np.float32), "y": np.empty(0, np.float32)})
    assert gpu.count("launch") == gpu.count("upload") - 1 == 0


def test_pointers_that_are_not_aligned():
    step = add_step(("input", 0, 0), ("input", 1, 0), ("output", 0, 0))
    step = dataclasses.replace(step, operands=(OperandSpec("input", 0, ["mul", "N", 4]), *step.operands[1:]))
    module = cuda_module(with_plan(tiny_parts(), steps=(step, step)))
    with pytest.raises(ExecutionError) as caught:
        module.run(dict(zip("xy", vectors(3), strict=True)))
    assert str(caught.value) == (
        "the kernel 'add' cannot use what begins 12 bytes into the input: on a GPU that is a multiple of 16; compile "
        "the model again"
    )


def test_more_blocks_than_a_gpu_takes():
    step = add_step(("input", 0, 0), ("input", 1, 0), ("output", 0, 0))
    launch = dataclasses.replace(step.launches[0], grid=["mul", "N", 1 << 30])
    module = cuda_module(with_plan(tiny_parts(), steps=(step, dataclasses.replace(step, launches=(launch,)))))
    with pytest.raises(ExecutionError, match="'add_0' would need 3221225472 blocks of threads, more than the"):
        module.run(dict(zip("xy", vectors(3), strict=True)))


# Graphs


def test_the_first_run_is_plain_and_later_ones_are_one_graph(gpu, module):
    inputs = dict(zip("xy", vectors(40), strict=True))
    counts = []
    for _ in range(4):
        gpu.log.clear()
        module.run(inputs)
        counts.append((gpu.count("launch"), gpu.count("capture"), gpu.count("graph")))
    assert counts == [(2, 0, 0), (0, 1, 1), (0, 0, 1), (0, 0, 1)]


def test_a_graph_serves_all_arrays_and_both_kinds(gpu, module):
    for on_gpu in [False, True, True, False]:
        x, y = vectors(40)
        inputs = {"x": gpu.array(x) if on_gpu else x, "y": y}
        out = module.run(inputs)["out"]
        np.testing.assert_array_equal(out.numpy() if on_gpu else out, expected(x, y))
    assert gpu.count("capture") == 1 and gpu.count("launch") == 2


def test_each_size_has_its_graph(gpu, module):
    for size in [900, 40, 40, 900, 40, 900]:
        module.run(dict(zip("xy", vectors(size), strict=True)))
    assert gpu.count("capture") == 2 and gpu.count("launch") == 4


def test_graphs_are_made_again_when_the_memory_grew(gpu, module):
    for size in [40, 40, 900, 40, 40]:
        x, y = vectors(size)
        np.testing.assert_array_equal(module.run({"x": x, "y": y})["out"], expected(x, y))
    assert gpu.count("capture") == 2


def test_sizes_that_grow_from_run_to_run(gpu, module):
    for size in range(300, 600):
        x, y = vectors(size)
        np.testing.assert_array_equal(module.run({"x": x, "y": y})["out"], expected(x, y))
    assert gpu.count("allocate") < 8


def test_memory_is_exact_where_there_is_no_room_to_grow():
    gpu = FakeDevice(total=4064 + 15_000)
    module = cuda_module(tiny_parts(), gpu)
    for size in (600, 650, 680):
        x, y = vectors(size)
        np.testing.assert_array_equal(module.run({"x": x, "y": y})["out"], expected(x, y))
    sizes = [entry[1] for entry in gpu.log if entry[0] == "allocate"]
    assert sizes == [4064, 12_896, 14_120, 14_240]


# Sessions


def test_sessions_have_memory_of_their_own(gpu, module):
    inputs = dict(zip("xy", vectors(40), strict=True))
    first, second = module.session(), module.session()
    gpu.log.clear()
    for session in (first, second, first):
        np.testing.assert_array_equal(session.run(inputs)["out"], expected(*inputs.values()))
    assert first.module is module
    assert gpu.count("allocate") == 2
    launched = [entry for entry in gpu.log if entry[0] == "launch"]
    assert launched[0][4:] != launched[2][4:]


def test_runs_at_the_same_time(gpu, module):
    """Work of the fake device is done while its caller waits, so the waiting is where runs meet."""
    meeting = threading.Barrier(2, timeout=20)
    results = {}

    def meet(device, number, block, *arguments):
        if number == 0:
            meeting.wait()
        gpu_add(device, number, block, *arguments)

    gpu_add, gpu.kernels = gpu.kernels["add_0"], {"add_0": meet}
    module = cuda_module(tiny_parts(), gpu)

    def run(size):
        x, y = vectors(size)
        results[size] = np.array_equal(module.run({"x": x, "y": y})["out"], expected(x, y))

    threads = [threading.Thread(target=run, args=(size,)) for size in (40, 50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {40: True, 50: True}


def test_memory_is_freed_with_the_module(gpu):
    module = cuda_module(tiny_parts(), gpu)
    session = module.session()
    session.run(dict(zip("xy", vectors(40), strict=True)))
    module.run(dict(zip("xy", vectors(40), strict=True)))
    assert len(gpu.buffers) == 3
    del module, session
    gc.collect()
    assert len(gpu.buffers) == 0


def test_prepared_runs(gpu, module):
    prepared = module.prepare([(40,), (40,)])
    assert prepared.sizes == (40,) and prepared.threads == 1
    x, y = vectors(40)
    for _ in range(3):
        (out,) = prepared([x, y])
        np.testing.assert_array_equal(out, expected(x, y))
    (out,) = prepared([gpu.array(x), y])
    np.testing.assert_array_equal(out.numpy(), expected(x, y))
    arguments = [ArgumentPlan(x.dtype, x.shape, place) for place in range(2)]
    assert prepared.direct(arguments, as_tuple=True)(x, y) is NotImplemented
    with pytest.raises(InputError, match="N is 3 by dimension 0 of 'x', but 4"):
        module.prepare([(3,), (4,)])


# Profiles


def test_profile(gpu, module):
    x, y = vectors(40)
    for _ in range(3):
        outputs, profile = module.run_profiled({"x": x, "y": y})
        np.testing.assert_array_equal(outputs["out"], expected(x, y))
        assert [(p.symbol, p.sources, p.nanoseconds, p.flops, p.bytes) for p in profile] == [
            ("add", ("first", "again"), 1000, 40, 480),
            ("add", (), 1000, 40, 480),
        ]
    outputs, profile = module.session().run_profiled({"x": gpu.array(x), "y": y})
    np.testing.assert_array_equal(outputs["out"].numpy(), expected(x, y))
    assert len(profile) == 2


# Failures


def scalars(table, i, j):
    return {"table": np.array(table, np.float32), "i": np.array(i, np.int64), "j": np.array(j, np.int64)}


def test_indices_outside_are_told_as_on_a_cpu(gpu):
    module = cuda_module(taking_parts(), gpu)
    table = [10, 11, 12, 13]
    for i, j, failed in [(0, 3, None), (7, 3, (7, 1)), (2, 1, None), (1, -5, (-5, 2)), (4, 9, (4, 1)), (3, 3, None)]:
        inputs = scalars(table, i, j)
        for given in (inputs, {**inputs, "table": gpu.array(inputs["table"])}):
            if failed is None:
                outputs = module.run(given)
                values = [float(o if isinstance(o, np.ndarray) else o.numpy()) for o in outputs.values()]
                assert values == [table[i], table[j]]
                continue
            with pytest.raises(ExecutionError) as caught:
                module.run(given)
            index, gather = failed
            assert str(caught.value) == (
                f"a run of 'taking' failed: the index {index} is outside of a dimension of size 4 of 'table', in "
                f"'gather_{gather}'; give indices within it"
            )
    with pytest.raises(ExecutionError, match="the index 8 is outside"):
        module.run_profiled(scalars(table, 0, 8))


def test_status_words(gpu):
    """One place for each step that chooses elements, cleared before every run, and one that is shared and not read."""
    module = cuda_module(taking_parts(), gpu)
    module.run(scalars([0, 1, 2, 3], 0, 1))
    assert module._resident.manifest.steps[1].chosen_from == ()
    memory = max(gpu.buffers)
    statuses = [entry[-1] - memory for entry in gpu.log if entry[0] == "launch"]
    assert statuses == [0, 48, 24]
    assert [entry[1:] for entry in gpu.log if entry[0] == "clear"] == [(memory, 48)]


def test_modules_that_cannot_fail_have_nothing_to_clear_or_to_ask(gpu, module):
    x, y = vectors(40)
    module.run({"x": gpu.array(x), "y": gpu.array(y)})
    assert gpu.count("clear") == gpu.count("download") == 0


def test_too_little_memory_for_a_run():
    gpu = FakeDevice(total=6000)
    module = cuda_module(tiny_parts(), gpu)
    x, y = vectors(900)
    small = vectors(10)
    module.run(dict(zip("xy", small, strict=True)))
    for _ in range(2):
        with pytest.raises(OutOfMemoryError) as caught:
            module.run({"x": x, "y": y})
        free = 6000 - module.manifest.weight_bytes
        assert str(caught.value) == (
            f"a run of 'tiny' with these sizes needs 19216 bytes on the GPU 'Fake GPU', which has {free} of 6000 bytes "
            f"free; run the module on smaller inputs"
        )
        x_small, y_small = vectors(10)  # the module is as good as before
        np.testing.assert_array_equal(module.run({"x": x_small, "y": y_small})["out"], expected(x_small, y_small))


def test_too_little_memory_for_the_weights():
    with pytest.raises(OutOfMemoryError) as caught:
        cuda_module(tiny_parts(), FakeDevice(total=4000))
    assert str(caught.value) == (
        "the weights of 'tiny' need 4064 bytes on the GPU 'Fake GPU', which has 4000 of 4000 bytes free; load it on a "
        "larger one"
    )


def test_impossible_sizes():
    module = cuda_module(tiny_parts(maximum=None))
    big = np.broadcast_to(np.float32(0), (1 << 45,))
    with pytest.raises(ExecutionError, match=r"a run of 'tiny' with these sizes would need \d+ bytes of memory"):
        module.run({"x": big, "y": big})


@pytest.mark.parametrize("error", [KeyboardInterrupt, ExecutionError("the GPU failed")])
def test_nothing_goes_on_after_a_run_that_ends_early(gpu, module, monkeypatch, error):
    """What has been enqueued uses the session's memory, as the next run will."""
    streams = []

    def fail(stream, *arguments):
        streams.append(stream)
        raise error

    x, y = vectors(40)
    with monkeypatch.context() as patched:
        patched.setattr(FakeStream, "launch", fail)
        for run in (module.run, module.run_profiled):
            with pytest.raises(error if isinstance(error, type) else type(error)):
                run({"x": x, "y": y})
    assert [stream.queue for stream in streams] == [[], []]
    np.testing.assert_array_equal(module.run({"x": x, "y": y})["out"], expected(x, y))


def test_many_steps_are_timed(gpu):
    parts = tiny_parts()
    first, last = parts.manifest.device.steps
    listed = parts.manifest.steps[:1] * 150 + parts.manifest.steps[1:]
    parts = dataclasses.replace(parts, manifest=dataclasses.replace(parts.manifest, steps=listed))
    module = cuda_module(with_plan(parts, steps=(first,) * 150 + (last,)), gpu)
    x, y = vectors(40)
    outputs, profile = module.run_profiled({"x": x, "y": y})
    np.testing.assert_array_equal(outputs["out"], expected(x, y))
    assert [p.nanoseconds for p in profile] == [1000] * 151


def test_a_run_that_fails_on_the_gpu_leaves_a_module_that_works(gpu):
    broken = []

    def fragile(device, number, block, *arguments):
        if broken:
            raise ExecutionError("the GPU 'Fake GPU' failed: it fell over")
        add(device, number, block, *arguments)

    add = gpu.kernels["add_0"]
    gpu.kernels = {"add_0": fragile}
    module = cuda_module(tiny_parts(), gpu)
    x, y = vectors(40)
    for failing in [True, False, True, False]:
        broken[:] = [1] * failing
        if failing:
            with pytest.raises(ExecutionError, match="it fell over"):
                module.run({"x": x, "y": y})
        else:
            np.testing.assert_array_equal(module.run({"x": x, "y": y})["out"], expected(x, y))
