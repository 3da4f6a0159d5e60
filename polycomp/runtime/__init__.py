"""Loading and running compiled modules. Imports numpy and nothing of the compiler."""

from polycomp.runtime.direct import ArgumentPlan
from polycomp.runtime.image import ModuleImage, ModuleParts
from polycomp.runtime.manifest import Manifest, StepSpec, SymbolSpec, TensorSpec
from polycomp.runtime.module import Module, StepProfile, load, load_image, load_parts
from polycomp.runtime.modulefile import read_module_file, write_module_file
from polycomp.runtime.prepared import PreparedRun

__all__ = [
    "ArgumentPlan",
    "Manifest",
    "Module",
    "ModuleImage",
    "ModuleParts",
    "PreparedRun",
    "StepProfile",
    "StepSpec",
    "SymbolSpec",
    "TensorSpec",
    "load",
    "load_image",
    "load_parts",
    "read_module_file",
    "write_module_file",
]
