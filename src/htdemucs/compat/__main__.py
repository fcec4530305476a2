"""`python -m htdemucs.compat [--replace] program.py|-m module [arguments]`: run a program.

Python processes that the program starts import the same `demucs`.
"""

import os
import runpy
import sys
from pathlib import Path

from htdemucs.compat import install
from htdemucs.errors import ConfigError

SUBPROCESS_PATH = Path(__file__).parent / "subprocess_path"  # for PYTHONPATH


def main() -> None:
    """Run the program that the command line names."""
    arguments = sys.argv[1:]
    replace = arguments[:1] == ["--replace"]
    arguments = arguments[replace:]
    as_module = arguments[:1] == ["-m"]
    arguments = arguments[as_module:]
    if not arguments:
        sys.exit("error: specify a program, or -m and a module")
    try:
        install(replace)
    except ConfigError as error:
        sys.exit(f"error: {error}; on the command line, pass --replace")
    inherited = os.environ.get("PYTHONPATH")
    paths = [str(SUBPROCESS_PATH), *([inherited] if inherited else [])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    sys.argv = arguments
    if as_module:
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    else:
        sys.path[0] = str(Path(arguments[0]).resolve().parent)
        runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    main()
