"""ONNX models to graphs of canonical operators."""

from polycomp.importers.onnx.importer import import_onnx

__all__ = ["import_onnx"]
