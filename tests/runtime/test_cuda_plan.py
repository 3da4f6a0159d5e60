"""The plan of a module for GPUs: in the manifest, in the file, and what is wrong with it."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import pytest
from fake_cuda import FakeDevice, add_step, cuda_module, tiny_parts, with_plan
from tiny_modules import static_parts

from polycomp.errors import ModuleFileError
from polycomp.runtime import read_module_file, write_module_file
from polycomp.runtime.cuda.plan import CodeSpec, LaunchSpec, OperandSpec
from polycomp.runtime.manifest import parse_manifest


def test_json_both_ways():
    manifest = tiny_parts().manifest
    assert parse_manifest(manifest.to_json(), "it") == manifest
    assert manifest.device.architectures == ("sm_80", "ptx")


def test_manifests_for_a_cpu_have_no_plan():
    manifest = static_parts().manifest
    assert manifest.device is None
    assert "device" not in json.loads(manifest.to_json())
    assert parse_manifest(manifest.to_json(), "it").device is None


def test_module_file(tmp_path):
    parts = tiny_parts()
    write_module_file(tmp_path / "m.pcm", parts)
    image = read_module_file(tmp_path / "m.pcm")
    assert image.manifest == parts.manifest
    assert bytes(image.shared_object) == parts.shared_object


def test_saved_again(tmp_path):
    module = cuda_module(tiny_parts())
    module.save(tmp_path / "m.pcm")
    assert read_module_file(tmp_path / "m.pcm").manifest == module.manifest
    assert module.shared_object() == tiny_parts().shared_object


def damaged(change):
    raw = json.loads(tiny_parts().manifest.to_json())
    change(raw["device"])
    return json.dumps(raw).encode()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("code"), "KeyError: 'code'"),
        (lambda d: d["code"][0].update(offset=-1), "ValueError: -1 is not a number of things"),
        (lambda d: d["code"][0].update(bytes="9"), "ValueError: '9' is not a number of things"),
        (lambda d: d["steps"][0].update(sizes=["M"]), "ValueError: 'M' is not a size over the symbols ['N']"),
        (lambda d: d["steps"][0]["operands"][0].update(offset=1.5), "ValueError: 1.5 is not a size over"),
        (lambda d: d["steps"][0]["launches"][0].update(grid=["x", 1]), "is not a size over"),
        (lambda d: d.update(steps=3), "TypeError"),
    ],
)
def test_malformed_plans(change, message):
    with pytest.raises(ModuleFileError, match="it has a malformed manifest") as caught:
        parse_manifest(damaged(change), "it")
    assert message in str(caught.value)


def operand(**changes):
    step = add_step(("input", 0, 0), ("input", 1, 0), ("output", 0, 0))
    return dataclasses.replace(step, operands=(dataclasses.replace(OperandSpec("input", 0, 0), **changes),))


def launch(**changes):
    step = add_step(("input", 0, 0), ("input", 1, 0), ("output", 0, 0))
    return dataclasses.replace(step, launches=(dataclasses.replace(LaunchSpec("add_0", 1, 32, 0), **changes),))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"steps": ()}, "its 2 steps are not the 0 that are planned for a GPU"),
        ({"code": ()}, "there is no code of 'add'"),
        ({"code": (CodeSpec("add", "sm_80", 7, 9999),)}, "the code of 'add' ends at 10006 of 43 bytes"),
        ({"code": (CodeSpec("add", "x86", 0, 1),)}, "'x86' is no GPU architecture"),
        ({"steps": (operand(storage="stack"),) * 2}, "an operand of 'add' is in 'stack', not in one of input, output,"),
        ({"steps": (operand(position=2),) * 2}, "an operand of 'add' is input 2, which there is not"),
        ({"steps": (operand(storage="output", position=1),) * 2}, "is output 1, which there is not"),
        ({"steps": (launch(block=1025),) * 2}, "'add_0' has blocks of 1025 threads, not of 1 to 1024"),
    ],
)
def test_plans_that_do_not_fit_their_module(changes, problem):
    with pytest.raises(ModuleFileError, match="module 'tiny' has a malformed manifest: ") as caught:
        cuda_module(with_plan(tiny_parts(), **changes))
    assert problem in str(caught.value)


def test_no_plan_at_all():
    parts = tiny_parts()
    parts = dataclasses.replace(parts, manifest=dataclasses.replace(parts.manifest, device=None))
    with pytest.raises(ModuleFileError, match="it is for GPUs, but has no plan for one"):
        cuda_module(parts, FakeDevice())


def test_modules_for_a_cpu_load_nothing_for_gpus(tmp_path):
    write_module_file(tmp_path / "m.pcm", static_parts())
    script = """
import sys
import polycomp
module = polycomp.load(sys.argv[1], threads=1)
print([name for name in sys.modules if "cuda" in name or "cupy" in name])
"""
    command = [sys.executable, "-c", script, tmp_path / "m.pcm"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[]\n", "")
