"""Replace this module by `htdemucs.compat.demucs`, or without htdemucs by another `demucs`."""

import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path

sys.path.remove(str(Path(__file__).parents[1]))
del sys.modules[__name__]
with suppress(ImportError):  # a Python without htdemucs
    import_module("htdemucs.compat").install(replace=True)
import_module("demucs")
