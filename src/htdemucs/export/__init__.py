"""Write models for other runtimes: ONNX.

Imports `model` and the modules at the root. Start reading at `export_onnx` in `onnx.py`; the
operations that a file has in another form are in `operations.py`. Add a runtime as a module with a
function that writes a file and checks it, called in `cli/models.py`.
"""

from htdemucs.export.onnx import export_onnx

__all__ = ["export_onnx"]
