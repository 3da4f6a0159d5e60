"""The command in its own process: interruptions, full disks, processes beside each other, few cores."""

from __future__ import annotations

import os
import pathlib
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

Process = subprocess.Popen[str]


@pytest.fixture
def large(tmp_path: pathlib.Path) -> pathlib.Path:
    """A model of a hundred different kernels, which take a while to compile."""
    nodes = [
        helper.make_node("Slice", [f"v{i}", "zero", f"end{i}"], [f"v{i + 1}"])
        if i % 2
        else helper.make_node("Softmax", [f"v{i}"], [f"v{i + 1}"])
        for i in range(100)
    ]
    graph = helper.make_graph(
        nodes,
        "large",
        [helper.make_tensor_value_info("v0", TensorProto.FLOAT, [200])],
        [helper.make_tensor_value_info("v100", TensorProto.FLOAT, None)],
        [
            helper.make_tensor("zero", TensorProto.INT64, [1], [0]),
            *(helper.make_tensor(f"end{i}", TensorProto.INT64, [1], [199 - i]) for i in range(1, 100, 2)),
        ],
    )
    path = tmp_path / "large.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


def start(folder: pathlib.Path, *arguments: object, before: Callable[[], Any] | None = None) -> Process:
    """``polycomp`` in a process group of its own, with an empty cache in ``folder``."""

    def begin() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs ignore it, and what they start
        if before is not None:
            before()

    return subprocess.Popen(
        [sys.executable, "-m", "polycomp", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"XDG_CACHE_HOME": str(folder / "cache")},
        start_new_session=True,
        preexec_fn=begin,  # noqa: PLW1509  (these tests have no threads)
    )


def finish(process: Process) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def group(leader: int) -> list[int]:
    """The living processes of a process group."""
    found = []
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, process_group = stat.read_text().rpartition(")")[2].split()[:3]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(process_group) == leader and state != "Z":
            found.append(int(stat.parent.name))
    return found


def files(folder: pathlib.Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.name != "cache")


def test_ctrl_c_while_compiling(large: pathlib.Path, tmp_path: pathlib.Path) -> None:
    process = start(tmp_path, "compile", large, "-o", tmp_path / "m.pcm", "--jobs", "3")
    while len(group(process.pid)) < 3 and process.poll() is None:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    status, _, err = finish(process)
    assert (status, err.strip()) == (130, "polycomp: error: interrupted")
    assert files(tmp_path) == ["large.onnx"]
    assert not list((tmp_path / "cache").rglob("*.tmp"))
    deadline = time.monotonic() + 30
    while group(process.pid) and time.monotonic() < deadline:  # one that was just being started ends by itself
        time.sleep(0.01)
    assert group(process.pid) == []


def limit_file_size() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))


def test_a_full_disk(model: pathlib.Path, tmp_path: pathlib.Path) -> None:
    output = tmp_path / "m.pcm"
    output.write_bytes(b"the old file")
    status, _, err = finish(start(tmp_path, "compile", model, "-o", output, before=limit_file_size))
    assert status == 1
    assert err.splitlines()[-1] == f"polycomp: error: cannot write module file {str(output)!r}: File too large"
    assert output.read_bytes() == b"the old file"
    assert files(tmp_path) == ["m.pcm", "small.onnx"]
    assert not list((tmp_path / "cache").rglob("*.tmp"))


def test_output_that_nobody_takes(module: pathlib.Path, tmp_path: pathlib.Path) -> None:
    with open("/dev/full", "w") as full:
        arguments = [sys.executable, "-m", "polycomp", "inspect", str(module)]
        done = subprocess.run(arguments, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "polycomp: error: cannot write the output: No space left on device\n")


def test_a_cache_that_cannot_be_written(model: pathlib.Path, tmp_path: pathlib.Path) -> None:
    status, out, err = finish(start(pathlib.Path("/proc"), "compile", model, "-o", tmp_path / "m.pcm"))
    assert status == 0
    assert "m.pcm: " in out
    assert err.count("polycomp: warning: compiled kernels are not kept between runs") == 1


def test_processes_beside_each_other(model: pathlib.Path, tmp_path: pathlib.Path) -> None:
    outputs = [tmp_path / f"m{i}.pcm" for i in range(3)]
    for process in [start(tmp_path, "compile", model, "-o", output) for output in outputs]:
        assert finish(process)[0] == 0
    assert len({output.read_bytes() for output in outputs}) == 1
    assert not list((tmp_path / "cache").rglob("*.tmp"))


def test_on_one_core(module: pathlib.Path, tmp_path: pathlib.Path) -> None:
    core = {min(os.sched_getaffinity(0))}
    status, out, _ = finish(start(tmp_path, "run", module, before=lambda: os.sched_setaffinity(0, core)))
    assert status == 0
    assert "with 1 thread" in out
    status, out, _ = finish(
        start(tmp_path, "run", module, "--threads", 3, before=lambda: os.sched_setaffinity(0, core))
    )
    assert (status, "with 3 threads" in out) == (0, True)
