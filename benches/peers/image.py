# SPDX-License-Identifier: Apache-2.0
"""The image that all peers run: busybox, in one layer; and the same as a bundle."""

import hashlib
import io
import json
import pathlib
import shutil
import tarfile

import host

NAME = "docker.io/library/bench:latest"
ARGUMENTS = ["true"]
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DIRECTORIES = ["bin", "dev", "etc", "proc", "root", "sys", "tmp"]
FILES = {"etc/passwd": b"root:x:0:0:root:/root:/bin/sh\n", "etc/group": b"root:x:0:\n"}


def busybox() -> pathlib.Path:
    path = shutil.which("busybox")
    if path is None or b"/lib64/ld-linux" in pathlib.Path(path).read_bytes()[:4096]:
        raise host.Unavailable("a static busybox is missing: apt-get install busybox-static")
    return pathlib.Path(path)


def layer() -> bytes:
    """The root file system as a tar archive."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in DIRECTORIES:
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        for name, data, mode in [("bin/busybox", busybox().read_bytes(), 0o755)] + [
            (name, data, 0o644) for name, data in FILES.items()
        ]:
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), mode
            tar.addfile(entry, io.BytesIO(data))
        for name in ["sh", "sleep", "true"]:
            entry = tarfile.TarInfo(f"bin/{name}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(entry)
    return out.getvalue()


def archive() -> pathlib.Path:
    """The image as `docker save` writes it."""
    data = layer()
    diff_id = hashlib.sha256(data).hexdigest()
    config = json.dumps(
        {
            "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[host.os.uname().machine],
            "os": "linux",
            "created": "2026-01-01T00:00:00Z",
            "config": {"Cmd": ["sh"], "Env": [f"PATH={PATH}"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{diff_id}"]},
            "history": [{"created": "2026-01-01T00:00:00Z", "created_by": "benches/peers"}],
        }
    ).encode()
    config_name = hashlib.sha256(config).hexdigest() + ".json"
    layer_name = f"{diff_id}/layer.tar"
    manifest = json.dumps([{"Config": config_name, "RepoTags": [NAME], "Layers": [layer_name]}]).encode()
    path = host.DISK / "image.tar"
    with tarfile.open(path, "w") as tar:
        for name, content in [(layer_name, data), (config_name, config), ("manifest.json", manifest)]:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path


def rootfs() -> pathlib.Path:
    """The layer as a directory, for those that know no images."""
    root = host.DISK / "rootfs"
    if not root.exists():
        with tarfile.open(fileobj=io.BytesIO(layer())) as tar:
            tar.extractall(root)
    return root


def bundle(runtime: str, cgroup: str) -> pathlib.Path:
    """A bundle with the runtime's own default configuration and our command."""
    path = host.MEMORY / f"bundle-{runtime}"
    path.mkdir()
    host.output(runtime, "spec", "--bundle", path) if runtime == "runc" else crun_spec(path)
    config = json.loads((path / "config.json").read_text())
    config["root"]["path"] = str(rootfs())
    config["process"]["terminal"] = False
    config["process"]["args"] = ARGUMENTS
    config["linux"]["cgroupsPath"] = cgroup
    (path / "config.json").write_text(json.dumps(config))
    return path


def crun_spec(path: pathlib.Path) -> None:
    host.output("sh", "-c", f"cd {path} && crun spec")
