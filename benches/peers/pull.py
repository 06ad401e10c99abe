# SPDX-License-Identifier: Apache-2.0
"""Pulls, side by side: the same image from one registry on the loopback, into
a store that hasn't it, by each peer in turn."""

import contextlib
import gzip
import hashlib
import io
import itertools
import json
import os
import pathlib
import socket
import statistics
import tarfile
import urllib.request
from collections.abc import Iterator

import host
from host import DISK, MEMORY
from peers import Ctr, Peer, Podman

LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
CONFIG = "application/vnd.docker.container.image.v1+json"
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
MEBIBYTE = 1 << 20
MAX_FILE = 32 * MEBIBYTE


class Skopeo(Peer):
    """Copies into containers-storage, which unpacks."""

    name = program = "skopeo"

    def place(self, reference: str) -> str:
        return f"containers-storage:[overlay@{DISK}/skopeo+{MEMORY}/skopeo]{reference}"

    def pull(self, reference: str) -> list[str]:
        copy = ["skopeo", "--insecure-policy", "copy", "-q", "--src-tls-verify=false"]
        return [*copy, f"docker://{reference}", self.place(reference)]

    def forget(self, reference: str) -> list[list[str]]:
        return [["skopeo", "delete", self.place(reference)]]


def pull_command(peer: Peer, reference: str) -> list[str | os.PathLike]:
    match peer:
        case Skopeo():
            return peer.pull(reference)
        case Podman():
            return peer.client("pull", "-q", "--tls-verify=false", reference)
        case Ctr():
            return peer.client("images", "pull", "--plain-http", reference)
        case _:
            return peer.client("pull", "-q", reference)


def forget_commands(peer: Peer, reference: str) -> list[list[str | os.PathLike]]:
    match peer:
        case Skopeo():
            return peer.forget(reference)
        case Ctr():
            return [peer.client("images", "rm", "--sync", reference)]
        case _:
            return [peer.client("rmi", "-f", reference)]


@contextlib.contextmanager
def registry() -> Iterator[str]:
    """Debian's docker-registry; its `host:port`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    config = DISK / "registry.yml"
    config.write_text(
        "version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\n"
        f"storage: {{filesystem: {{rootdirectory: {DISK}/registry}}}}\nhttp: {{addr: '{address}'}}\n"
    )
    with host.daemon("docker-registry", "docker-registry", "serve", config):
        host.until("answer of the registry", lambda: ask("GET", f"http://{address}/v2/")[0] == 200)
        yield address


def ask(method: str, url: str, body: bytes = b"", kind: str = "application/octet-stream") -> tuple[int, dict]:
    request = urllib.request.Request(url, data=body or None, method=method, headers={"Content-Type": kind})
    with urllib.request.urlopen(request, timeout=600) as answer:
        return answer.status, dict(answer.headers)


def push(address: str, name: str, layers: Iterator[bytes]) -> tuple[str, str]:
    """Uploads an image of these archives; its reference, and what it is."""
    base = f"http://{address}/v2/{name}"
    diff_ids, descriptors, size = [], [], 0

    def upload(blob: bytes, kind: str) -> dict:
        digest = f"sha256:{hashlib.sha256(blob).hexdigest()}"
        location = ask("POST", f"{base}/blobs/uploads/")[1]["Location"]
        ask("PUT", f"{location}&digest={digest}", blob)
        return {"mediaType": kind, "digest": digest, "size": len(blob)}

    for archive in layers:
        size += len(archive)
        diff_ids.append(f"sha256:{hashlib.sha256(archive).hexdigest()}")
        descriptors.append(upload(gzip.compress(archive, 6, mtime=0), LAYER))
    rootfs = {"type": "layers", "diff_ids": diff_ids}
    config = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": rootfs}
    document = {"schemaVersion": 2, "mediaType": MANIFEST, "layers": descriptors}
    document["config"] = upload(json.dumps(config).encode(), CONFIG)
    ask("PUT", f"{base}/manifests/latest", json.dumps(document).encode(), MANIFEST)
    compressed = sum(layer["size"] for layer in descriptors)
    return f"{address}/{name}:latest", f"{len(descriptors)} layers, {size >> 20} MiB, {compressed >> 20} compressed"


def layers(count: int, mebibytes: int) -> Iterator[bytes]:
    """Archives of `mebibytes` in all, of this machine's programs, libraries and
    data as they come below /usr: what gunzip and
    the disk have to do depends on what is in the files."""
    files = itertools.cycle(sorted(usr()))
    for number in range(count):
        archive, written = io.BytesIO(), 0
        with tarfile.open(fileobj=archive, mode="w", format=tarfile.PAX_FORMAT) as tar:
            while written < mebibytes * MEBIBYTE // count:
                path = next(files)
                entry = tarfile.TarInfo(f"l{number}/{path.relative_to('/')}")
                with contextlib.suppress(OSError), path.open("rb") as file:
                    entry.size = path.stat().st_size
                    tar.addfile(entry, file)
                    written += entry.size + tarfile.BLOCKSIZE
        yield archive.getvalue()


def usr() -> Iterator[pathlib.Path]:
    for directory in ("bin", "lib", "share"):
        for path in pathlib.Path("/usr", directory).rglob("*"):
            if path.is_file() and not path.is_symlink() and path.stat().st_size < MAX_FILE:
                yield path


def peak(peer: Peer) -> int:
    """Bytes that the engine has had at most since `forget_peak`."""
    total = 0
    for pid in peer.engine_pids():
        for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                total += int(line.split()[1]) * 1024
    return total


def forget_peak(peer: Peer) -> None:
    for pid in peer.engine_pids():
        pathlib.Path(f"/proc/{pid}/clear_refs").write_text("5")


def measure(ready: list[Peer], rounds: int, mebibytes: int) -> Iterator[str]:
    """The table, line by line."""
    with registry() as address:
        for name, count, size in (("large", 4, mebibytes), ("many", 40, 40)):
            reference, what = push(address, f"bench/{name}", layers(count, size))
            yield from table(ready, rounds, what, reference)


def table(ready: list[Peer], rounds: int, what: str, reference: str) -> Iterator[str]:
    times: dict[str, list[float]] = {peer.name: [] for peer in ready}
    peaks: dict[str, int] = dict.fromkeys(times, 0)
    for number in range(-1, rounds):
        # Removed together and at the end: whoever pulled next would pay for it.
        for peer in ready:
            os.sync()
            forget_peak(peer)
            milliseconds = peer.execute(*pull_command(peer, reference))["nanos"] / 1e6
            peaks[peer.name] = max(peaks[peer.name], peak(peer))
            if number >= 0:
                times[peer.name].append(milliseconds)
        for peer in ready:
            for command in forget_commands(peer, reference):
                peer.execute(*command)
    berth = statistics.median(times["berth"]) if "berth" in times else None
    yield f"Pull of {what}, {rounds} interleaved rounds after one to warm up; seconds."
    yield ""
    yield "| | median | min | max | × berth | engine's peak, MiB |"
    yield "|---|--:|--:|--:|--:|--:|"
    for name, ms in times.items():
        median = statistics.median(ms)
        ratio = f"{median / berth:.2f}" if berth else ""
        seconds = " | ".join(f"{value / 1000:.2f}" for value in (median, min(ms), max(ms)))
        memory = f"{peaks[name] / MEBIBYTE:.0f}" if peaks[name] else "–"
        yield f"| {name} | {seconds} | {ratio} | {memory} |"
    yield ""

