"""A real PostgreSQL for tests: on a socket in a folder of its own, gone afterwards."""

import os
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

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


@contextmanager
def running():
    """Run a server and yield the URL of its database."""
    folder, user = Path(tempfile.mkdtemp(prefix="pg-")), _user()
    if user:
        os.chown(folder, user["user"], user["group"])

    def call(name, *arguments):
        line = [str(programs() / name), *map(str, arguments)]
        log = folder.with_suffix(".log")
        with log.open("ab") as file:
            subprocess.run(line, check=True, cwd=folder, stdout=file, stderr=file, **user)

    data = folder / "data"
    options = f"-k {folder} -c listen_addresses='' -c fsync=off"
    try:
        call("initdb", "-D", data, "-U", "test", "-A", "trust", "--no-sync", "-E", "UTF8")
        call("pg_ctl", "-D", data, "-w", "-o", options, "start")
        try:
            yield f"postgresql://test@/postgres?host={folder}"
        finally:
            call("pg_ctl", "-D", data, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        folder.with_suffix(".log").unlink(missing_ok=True)
