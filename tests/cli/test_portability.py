"""What the package may not take for granted: that the system is POSIX."""

import subprocess
import sys

POSIX_ONLY = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"}
WITHOUT = f"""
import os, subprocess, sys, types, warnings
warnings.filterwarnings("error", category=EncodingWarning, module="htdemucs")
for name in {sorted(POSIX_ONLY - {"posix"})}:
    sys.modules[name] = None  # importing it fails
for name in ("getuid", "geteuid", "getgid", "sched_getaffinity", "mkfifo", "getpgid", "killpg"):
    delattr(os, name)
sys.modules["msvcrt"] = types.SimpleNamespace(LK_NBLCK=2, locking=lambda *_: None)
from htdemucs.cli.main import main
for _ in range(2):
    try:
        main()
    except SystemExit as ended:
        if ended.code:
            raise
"""


def test_separate_runs_without_what_only_posix_has(model_folder, song, tmp_path):
    words = ["separate", song, "-n", model_folder, "-d", "cpu", "-o", tmp_path, "-v"]
    command = [sys.executable, "-X", "warn_default_encoding", "-c", WITHOUT, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "  drums, bass, other, vocals -> " in done.stderr
    assert "already there: drums, bass" in done.stderr  # the second time
    assert len(list(tmp_path.rglob("*.wav"))) == 4
