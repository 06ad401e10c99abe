# SPDX-License-Identifier: Apache-2.0
"""What the measurements need of the host: processes, memory, waiting."""

import contextlib
import os
import pathlib
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")

TAG = os.environ["BERTH_BENCH_TAG"]
# Data on the disk, sockets and bundles below /run in memory, as on an
# installed host.
DISK = pathlib.Path(os.environ["BERTH_BENCH_DISK"])
MEMORY = pathlib.Path(os.environ["BERTH_BENCH_MEMORY"])

ENVIRONMENT = {"PATH": os.environ["PATH"], "HOME": str(DISK), "LC_ALL": "C"}


class Unavailable(Exception):
    """This peer can't be measured here, and why."""


def output(*command: str | os.PathLike, stdin: int = subprocess.DEVNULL) -> str:
    """Standard output of a command that must succeed."""
    done = subprocess.run(command, stdin=stdin, capture_output=True, text=True, env=ENVIRONMENT, timeout=120)
    if done.returncode != 0:
        raise Unavailable(f"{command[0]} failed with {done.returncode}: {done.stderr.strip()[-500:]}")
    return done.stdout.strip()


def until(what: str, ready: Callable[[], T], seconds: float = 30) -> T:
    """The first true answer of `ready`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(Unavailable, OSError, subprocess.TimeoutExpired):
            if answer := ready():
                return answer
        time.sleep(0.02)
    raise Unavailable(f"no {what} within {seconds} s")


@contextlib.contextmanager
def daemon(name: str, *command: str | os.PathLike) -> Iterator[subprocess.Popen]:
    """A server with its log in `<disk>/<name>.log`; stopped at the end."""
    log = DISK / f"{name}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=ENVIRONMENT)
    try:
        yield process
    except Unavailable as e:
        tail = "\n    ".join(log.read_text(errors="replace").splitlines()[-8:])
        raise Unavailable(f"{e}\n    {tail}") from None
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def parent_of(pid: int) -> int:
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(status.split("PPid:")[1].split()[0])


def name_of(pid: int) -> str:
    return pathlib.Path(f"/proc/{pid}/comm").read_text().strip()


def memory_of(pid: int) -> dict[str, int]:
    """Bytes: `private` (not shared with anybody), `pss`, `rss`."""
    sums: dict[str, int] = {}
    for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        key, value, _ = line.split()
        sums[key.rstrip(":")] = int(value) * 1024
    private = sums["Private_Clean"] + sums["Private_Dirty"]
    return {"private": private, "pss": sums["Pss"], "rss": sums["Rss"]}


def threads_of(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/task"))
