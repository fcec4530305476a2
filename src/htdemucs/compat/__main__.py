"""`python -m htdemucs.compat [--replace] program.py|-m module [words]`: run a program with us.

Python processes that the program starts find `demucs` here too.
"""

import os
import runpy
import sys
from pathlib import Path

from htdemucs.compat import install
from htdemucs.errors import ConfigError

CHILDREN = Path(__file__).parent / "children"


def main() -> None:
    """Run the program that the command line names."""
    words = sys.argv[1:]
    replace = words[:1] == ["--replace"]
    words = words[replace:]
    as_module = words[:1] == ["-m"]
    words = words[as_module:]
    if not words:
        sys.exit("error: name a program, or -m and a module")
    try:
        install(replace)
    except ConfigError as error:
        sys.exit(f"error: {error}")
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(CHILDREN), *([before] if before else [])])
    sys.argv = words
    if as_module:
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    else:
        sys.path[0] = str(Path(words[0]).resolve().parent)
        runpy.run_path(words[0], run_name="__main__")


if __name__ == "__main__":
    main()
