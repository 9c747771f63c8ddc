"""Training runs as processes of their own, one or several that were started together."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from command_line import ROOT

from cyclesh.runtime.logs import read_rows

# What begins a program of a test that allocates by itself.
LIBC = """
import ctypes
libc = ctypes.CDLL(None)
libc.malloc.argtypes, libc.malloc.restype = (ctypes.c_size_t,), ctypes.c_void_p
libc.free.argtypes = (ctypes.c_void_p,)
"""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def virtual_devices(count: int) -> dict[str, str]:
    """The environment of a process that takes its CPU for so many devices."""
    return {"XLA_FLAGS": f"--xla_force_host_platform_device_count={count}"}


class Group:
    """Processes of one training run on this machine, on a CPU each."""

    def __init__(self, workdir: Path, count: int, *words: str, env: list[dict] | None = None):
        self.workdir = workdir
        port = free_port()
        command = [sys.executable, "-m", "cyclesh.main", *words, f"--workdir={workdir}"]
        self.processes = []
        for process in range(count):
            place = (f"--coordinator=127.0.0.1:{port}", f"--processes={count}")
            own = [] if env else [*place, f"--process={process}"]
            self.processes.append(
                subprocess.Popen(
                    [*command, *own],
                    cwd=ROOT,
                    env=os.environ | {"JAX_PLATFORMS": "cpu"} | (env[process] if env else {}),
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )

    def signal_after(self, rows: int, process: int, number: signal.Signals) -> float:
        """Send it once so many rows are written; returns when that was."""
        while len(read_rows(self.workdir)) < rows:
            assert all(p.poll() is None for p in self.processes), self.wait()
            time.sleep(0.05)
        self.processes[process].send_signal(number)
        return time.monotonic()

    def wait(self) -> list[tuple[int, str, str]]:
        """Exit status, stdout and stderr of each."""
        ends = []
        for process in self.processes:
            out, err = process.communicate(timeout=900)
            ends.append((process.returncode, out, err))
        return ends
