"""Run programs that were written for the published `demucs` package.

`install()` makes `import demucs` import the modules of `htdemucs.compat.demucs`; `python -m
htdemucs.compat program.py` does so for a program that cannot be changed. May import every package
except `cli`. Start reading in `demucs/api.py`; `networks.py` and `engine.py` adapt the models and
the separator. A module that programs import is added in `demucs/` under its published name.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from htdemucs.errors import ConfigError

__all__ = ["install"]
_NAME = "demucs"


def install(replace: bool = False) -> None:
    """Make `import demucs` import this package's modules, in this process.

    Args:
        replace: do so even if another `demucs` is installed or imported.

    Raises:
        ConfigError: another `demucs` is installed, and `replace` is False.
    """
    other = None if any(isinstance(f, _Finder) for f in sys.meta_path) else find_spec(_NAME)
    path = (other and other.origin) or "an unknown path"
    # A program that was started by `python -m htdemucs.compat` finds the module for its processes.
    ours = Path(path).is_relative_to(Path(__file__).parent)
    if other is not None and not ours and not replace:
        raise ConfigError(
            f"another demucs is installed at {path}; uninstall it, or call install(replace=True)"
        )
    for name in [name for name in sys.modules if _is_demucs(name)]:
        del sys.modules[name]
    sys.meta_path[:] = [_Finder(), *(f for f in sys.meta_path if not isinstance(f, _Finder))]
    # Under these names checkpoints store the classes, and torch's `safe_globals` looks for them.
    for name in ("HTDemucs", "HDemucs", "Demucs"):
        module = import_module(f"{__name__}.{_NAME}.{name.lower()}")
        getattr(module, name).__module__ = f"{_NAME}.{name.lower()}"


def _is_demucs(name: str) -> bool:
    return name.partition(".")[0] == _NAME


class _Finder(MetaPathFinder, Loader):
    """Finds the modules of `htdemucs.compat.demucs` under the published names."""

    def __init__(self) -> None:
        self._specs: dict[str, ModuleSpec | None] = {}

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        """Return the module's specification; None for a module that this package lacks."""
        ours = find_spec(f"{__name__}.{fullname}") if _is_demucs(fullname) else None
        if ours is None:
            return None
        package = ours.submodule_search_locations is not None
        return ModuleSpec(fullname, self, origin=ours.origin, is_package=package)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return the module of this package."""
        module = import_module(f"{__name__}.{spec.name}")
        self._specs[spec.name] = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Restore the module's own specification. It has been executed already."""
        assert module.__spec__ is not None
        module.__spec__ = self._specs.pop(module.__spec__.name)

    def get_code(self, fullname: str) -> CodeType:
        """Return the module's code, for `python -m`."""
        ours: Any = find_spec(f"{__name__}.{fullname}")
        code: CodeType = ours.loader.get_code(ours.name)
        return code
