"""Models for other runtimes."""

from htdemucs.export.onnx import export_onnx

__all__ = ["export_onnx"]
