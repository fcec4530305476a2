"""Processes of Python that start at once, as forks of one that has imported torch.

As a program, that one: its standard input is a socket, from which it takes what to run.
"""

import ctypes
import gc
import inspect
import json
import os
import runpy
import socket
import subprocess
import sys
from pathlib import Path

SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER: orphans below this process become its children
SIZE = 1 << 17  # bytes of a request at most
NO_PIPE = -1


class Forked(subprocess.Popen):
    """`python -m MODULE`, `-c CODE` and `FILE` as forks, everything else as ever.

    What Python and libraries read at their start is that of the test's process: Python's options,
    OMP_NUM_THREADS, and so on.
    """

    _channel = None

    @classmethod
    def prepare(cls):
        """Start the process that forks."""
        ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)
        cls._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            cls._server = subprocess.Popen([sys.executable, __file__], stdin=theirs)

    @classmethod
    def end(cls):
        cls._channel.close()
        cls._channel = None
        cls._server.wait()
        ctypes.CDLL(None).prctl(SUBREAPER, 0, 0, 0, 0)

    def _execute_child(self, *arguments):
        given = inspect.signature(super()._execute_child).bind(*arguments).arguments
        python, *words = map(os.fsdecode, given["args"])
        if python != sys.executable or (words[0][0] == "-" and words[0] not in ("-m", "-c")):
            super()._execute_child(*arguments)
            return
        import torch

        pipes = [given[name] for name in ("p2cread", "c2pwrite", "errwrite")]
        ends = [ours if end == NO_PIPE else end for ours, end in enumerate(pipes)]
        request = {
            "words": words,
            "folder": os.fsdecode(given["cwd"] or Path.cwd()),
            "environment": dict(os.environ if given["env"] is None else given["env"]),
            "threads": torch.get_num_threads(),
        }
        socket.send_fds(self._channel, [json.dumps(request).encode()], ends)
        self.pid, self._child_created = int(self._channel.recv(SIZE)), True
        self._close_pipe_fds(
            *(given[name] for name in ("p2cread", "p2cwrite", "c2pread", "c2pwrite")),
            *(given[name] for name in ("errread", "errwrite")),
        )


def fork_requests(channel):
    """Fork for every request, and return it, where it is to be run; end with the requests."""
    while True:
        request, ends, _, _ = socket.recv_fds(channel, SIZE, 3)
        if not request:
            os._exit(0)
        read, write = os.pipe()
        between = os.fork()
        if not between:
            pid = os.fork()
            if pid:
                os.write(write, str(pid).encode())
                os._exit(0)
            for number, end in enumerate(ends):
                os.dup2(end, number)
            channel.close()
            for end in (read, write, *ends):
                os.close(end)
            return json.loads(request)
        os.waitpid(between, 0)  # now the other one is an orphan
        channel.send(os.read(read, SIZE))
        for end in (read, write, *ends):
            os.close(end)


def run(words, folder, environment, threads):
    """Do what `python WORDS` does."""
    import torch

    for number, name in enumerate(("stdin", "stdout", "stderr")):  # they knew other files
        before = getattr(sys, name)
        made = open(  # noqa: SIM115
            number, before.mode, 1 if name == "stderr" else -1, before.encoding, before.errors,
            closefd=False,
        )  # fmt: skip
        setattr(sys, name, made)
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    if words[0] == "-m":
        sys.argv, sys.path[0] = words[1:], folder
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    elif words[0] == "-c":
        sys.argv, sys.path[0] = ["-c", *words[2:]], ""
        exec(words[1], {"__name__": "__main__"})
    else:
        sys.argv, sys.path[0] = words, str(Path(words[0]).resolve().parent)
        runpy.run_path(words[0], run_name="__main__")


if __name__ == "__main__":
    from htdemucs import LiveSeparator, load_model, separate_file  # noqa: F401

    gc.freeze()  # its objects are not looked through in the forks, which would copy them
    channel = socket.socket(fileno=os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    run(**fork_requests(channel))
