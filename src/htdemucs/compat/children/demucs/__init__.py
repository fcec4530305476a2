"""Makes room for `htdemucs.compat.demucs`, or without it for any other `demucs`."""

import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path

sys.path.remove(str(Path(__file__).parents[1]))
del sys.modules[__name__]
with suppress(ImportError):  # a Python that lacks this package
    import_module("htdemucs.compat").install(replace=True)
import_module("demucs")
