"""A real PostgreSQL for tests: on a socket in a folder of its own, gone afterwards."""

import os
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

VERSIONS = Path("/usr/lib/postgresql")  # where Debian's packages are


def programs():
    """Return the folder of initdb and pg_ctl; None if there is none."""
    found = sorted(VERSIONS.glob("*/bin/initdb"))
    if found:
        return found[-1].parent
    path = shutil.which("initdb")
    return Path(path).parent if path else None


def _user():
    """The server refuses to be root's."""
    if os.getuid():
        return {}
    import pwd

    names = {entry.pw_name: entry for entry in pwd.getpwall()}
    entry = names.get("postgres") or names["nobody"]
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def restart(url):
    """Stop the server at once, as a crash would, and start it again."""
    folder = Path(url.partition("host=")[2])
    _run(folder, "pg_ctl", "-D", folder / "data", "-w", "-m", "immediate", "restart")


def _run(folder, name, *arguments):
    line = [str(programs() / name), *map(str, arguments)]
    with folder.with_suffix(".log").open("ab") as file:
        subprocess.run(line, check=True, cwd=folder, stdout=file, stderr=file, **_user())


@contextmanager
def running():
    """Run a server and yield the URL of its database; skip the test if none is installed."""
    if programs() is None:
        pytest.skip("there is no PostgreSQL (Debian: apt install postgresql)")
    folder, user = Path(tempfile.mkdtemp(prefix="pg-")), _user()
    if user:
        os.chown(folder, user["user"], user["group"])

    data = folder / "data"
    options = f"-k {folder} -c listen_addresses='' -c fsync=off"
    try:
        _run(folder, "initdb", "-D", data, "-U", "test", "-A", "trust", "--no-sync", "-E", "UTF8")
        _run(folder, "pg_ctl", "-D", data, "-w", "-o", options, "start")
        try:
            yield f"postgresql://test@/postgres?host={folder}"
        finally:
            _run(folder, "pg_ctl", "-D", data, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        folder.with_suffix(".log").unlink(missing_ok=True)
