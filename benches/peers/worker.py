# SPDX-License-Identifier: Apache-2.0
"""Runs commands for one peer and says how long each took.

One process per peer, because peers disagree about the mounts that they want to
see. Reads a JSON array per line (the command), answers with a JSON object per
line. The time is from the spawn of the command to its exit; standard output is
/dev/null, standard error is kept.
"""

import argparse
import ctypes
import json
import os
import subprocess
import sys
import time

CLONE_NEWNS = 0x00020000
MS_REC_PRIVATE = 0x4000 | 0x40000


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--hide", help="unmount this in a mount namespace of our own")
    hide = arguments.parse_args().hide
    if hide and os.path.ismount(hide):
        unmount_privately(hide)
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), flush=True)


def run(command: list[str]) -> dict:
    begin = time.perf_counter_ns()
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    nanos = time.perf_counter_ns() - begin
    stdout, stderr = (text.decode(errors="replace").strip() for text in (done.stdout, done.stderr))
    return {"nanos": nanos, "code": done.returncode, "stdout": stdout, "stderr": stderr[-500:]}


def unmount_privately(path: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    for result in (
        libc.unshare(CLONE_NEWNS),
        libc.mount(b"none", b"/", None, MS_REC_PRIVATE, None),
        libc.umount2(path.encode(), 0),
    ):
        if result != 0:
            raise OSError(ctypes.get_errno(), f"hide {path}")


main()
