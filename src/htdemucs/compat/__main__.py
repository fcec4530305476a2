"""`python -m htdemucs.compat [--replace] program.py|-m module|-c code [arguments]`: run a program.

Python processes that the program starts import the same `demucs`.
"""

import os
import runpy
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from htdemucs.compat import install
from htdemucs.errors import ConfigError

SUBPROCESS_PATH = Path(__file__).parent / "subprocess_path"  # for PYTHONPATH


def main() -> None:
    """Run the program that the command line names."""
    arguments = sys.argv[1:]
    replace = arguments[:1] == ["--replace"]
    arguments = arguments[replace:]
    option = arguments[0] if arguments[:1] in (["-m"], ["-c"]) else ""
    arguments = arguments[bool(option) :]
    if not arguments:
        sys.exit("error: specify a program, -m and a module, or -c and code")
    try:
        install(replace)
    except ConfigError as error:
        sys.exit(f"error: {error}; on the command line, pass --replace")
    inherited = os.environ.get("PYTHONPATH")
    paths = [str(SUBPROCESS_PATH), *([inherited] if inherited else [])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    sys.argv = arguments
    if option == "-c":
        sys.argv = ["-c", *arguments[1:]]
        main_module = ModuleType("__main__")
        sys.modules["__main__"] = main_module
        exec(compile(arguments[0], "<string>", "exec"), vars(main_module))
    elif option == "-m":
        if not _module_exists(arguments[0]):
            sys.exit(f"error: there is no module {arguments[0]}")
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    elif not Path(arguments[0]).exists():
        sys.exit(f"error: there is no program {arguments[0]}")
    else:
        sys.path[0] = str(Path(arguments[0]).resolve().parent)
        runpy.run_path(arguments[0], run_name="__main__")


def _module_exists(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):  # of a parent that does not exist, or an impossible name
        return False


if __name__ == "__main__":
    main()
