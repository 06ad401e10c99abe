# SPDX-License-Identifier: Apache-2.0
"""The peers: how each is started, runs `true`, and keeps a container asleep."""

import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Iterator

import host
import image
from host import DISK, MEMORY, TAG, Unavailable

SLEEP = ["sleep", "1000000"]


class Peer:
    """One engine or runtime. Subclasses say what differs."""

    name: str
    program: str
    # How the work is described in the table.
    work = "run --rm --network none"
    # crun 1.8 takes a cgroup v2 mount without controllers for a pure v2 host.
    hide: str | None = None

    def __init__(self) -> None:
        if not shutil.which(self.program):
            raise Unavailable(f"{self.program} is not installed")
        self.runs = 0
        self._worker: subprocess.Popen | None = None

    @contextlib.contextmanager
    def ready(self) -> Iterator["Peer"]:
        """Starts what has to run, loads the image; stops it at the end."""
        worker = [sys.executable, pathlib.Path(__file__).with_name("worker.py")]
        worker += ["--hide", self.hide] if self.hide else []
        pipe = subprocess.PIPE
        with subprocess.Popen(worker, stdin=pipe, stdout=pipe, text=True, env=host.ENVIRONMENT) as self._worker:
            try:
                with self.started():
                    yield self
            finally:
                self._worker.stdin.close()

    @contextlib.contextmanager
    def started(self) -> Iterator[None]:
        yield

    def execute(self, *command: str | os.PathLike) -> dict:
        """Runs a command in the peer's worker; it must succeed."""
        self._worker.stdin.write(json.dumps([str(word) for word in command]) + "\n")
        self._worker.stdin.flush()
        answer = self._worker.stdout.readline()
        if not answer:
            raise Unavailable(f"the worker of {self.name} has died")
        result = json.loads(answer)
        if result["code"] != 0:
            raise Unavailable(f"{' '.join(map(str, command))}: {result['code']}: {result['stderr']}")
        return result

    def version(self) -> str:
        """As the program has it, without its name."""
        words = host.output(self.program, "--version").splitlines()[0].replace(",", "").split()
        return next((word for word in words if word[0].isdigit()), "?")

    def run_true(self) -> float:
        """Milliseconds of one `run` of `true`."""
        self.runs += 1
        return self.execute(*self.run_command(f"{TAG}-{self.runs}"))["nanos"] / 1e6

    def run_command(self, name: str) -> list[str | os.PathLike]:
        raise NotImplementedError

    def exec_true(self, name: str) -> float:
        """Milliseconds of one `exec` of `true` in a container that sleeps."""
        self.runs += 1
        return self.execute(*self.exec_command(name))["nanos"] / 1e6

    def exec_command(self, name: str) -> list[str | os.PathLike]:
        """Of those that have a `sleeper`."""
        return self.client("exec", name, *image.ARGUMENTS)

    def sleeper(self, name: str) -> int | None:
        """Leaves a container asleep; pid of its first process."""
        return None

    def wake(self, name: str) -> None:
        """Removes that container."""

    def engine_pids(self) -> list[int]:
        """The processes that run when no container does."""
        return []


class Berth(Peer):
    name = program = "berth"

    def __init__(self) -> None:
        super().__init__()
        self.address = f"unix://{MEMORY}/berth.sock"

    @contextlib.contextmanager
    def started(self) -> Iterator[None]:
        command = ["berthd", "--root", DISK / "berth", "--state", MEMORY / "berth", "--address", self.address]
        with host.daemon("berthd", *command, "--cgroup-parent", f"/{TAG}-berth") as self.engine:
            host.until("answer of berthd", lambda: self.execute(*self.client("version")))
            self.execute(*self.client("load", "-i", DISK / "image.tar"))
            yield

    def client(self, *words: str | os.PathLike) -> list[str | os.PathLike]:
        return ["berth", "--address", self.address, *words]

    def run_command(self, name: str) -> list[str | os.PathLike]:
        return self.client("run", "--rm", "--network", "none", image.NAME, *image.ARGUMENTS)

    def sleeper(self, name: str) -> int | None:
        self.execute(*self.client("run", "-d", "--name", name, "--network", "none", image.NAME, *SLEEP))
        answer = self.execute(*self.client("inspect", name))["stdout"]
        return int(json.loads(answer)[0]["State"]["Pid"])

    def wake(self, name: str) -> None:
        self.execute(*self.client("rm", "-f", name))

    def engine_pids(self) -> list[int]:
        return [self.engine.pid]


class Containerd:
    """One for docker and ctr, as an installed host has it."""

    address = MEMORY / "containerd.sock"

    @contextlib.contextmanager
    def started(self) -> Iterator[None]:
        config = DISK / "containerd.toml"
        config.write_text(
            "version = 2\n"
            f'root = "{DISK}/containerd"\nstate = "{MEMORY}/containerd"\n'
            'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
            f'[grpc]\naddress = "{self.address}"\n'
        )
        with host.daemon("containerd", "containerd", "--config", config) as self.process:
            host.until("answer of containerd", lambda: host.output("ctr", "-a", self.address, "version"))
            yield


class Ctr(Peer):
    name = program = "ctr"
    work = "run --rm"

    def __init__(self, containerd: Containerd) -> None:
        super().__init__()
        self.containerd = containerd

    @contextlib.contextmanager
    def started(self) -> Iterator[None]:
        self.execute(*self.client("images", "import", DISK / "image.tar"))
        yield

    def client(self, *words: str | os.PathLike) -> list[str | os.PathLike]:
        # ctr's default cgroup is /<namespace>/<id>.
        return ["ctr", "-a", self.containerd.address, "-n", f"{TAG}-ctr", *words]

    def run_command(self, name: str) -> list[str | os.PathLike]:
        return self.client("run", "--rm", image.NAME, name, *image.ARGUMENTS)

    def sleeper(self, name: str) -> int | None:
        self.execute(*self.client("run", "-d", image.NAME, name, *SLEEP))
        tasks = self.execute(*self.client("tasks", "ls"))["stdout"].splitlines()[1:]
        return next(int(line.split()[1]) for line in tasks if line.split()[0] == name)

    def exec_command(self, name: str) -> list[str | os.PathLike]:
        return self.client("tasks", "exec", "--exec-id", f"e{self.runs}", name, *image.ARGUMENTS)

    def wake(self, name: str) -> None:
        self.execute(*self.client("tasks", "rm", "-f", name))
        self.execute(*self.client("containers", "rm", name))

    def engine_pids(self) -> list[int]:
        return [self.containerd.process.pid]


class Docker(Peer):
    name = program = "docker"

    def __init__(self, containerd: Containerd) -> None:
        super().__init__()
        if not shutil.which("dockerd"):
            raise Unavailable("dockerd is not installed")
        self.containerd = containerd
        self.socket = f"unix://{MEMORY}/docker.sock"

    @contextlib.contextmanager
    def started(self) -> Iterator[None]:
        (DISK / "daemon.json").write_text("{}")
        command = ["dockerd", "--config-file", DISK / "daemon.json", "--host", self.socket]
        command += ["--data-root", DISK / "docker", "--exec-root", MEMORY / "docker"]
        command += ["--pidfile", MEMORY / "docker.pid", "--containerd", self.containerd.address]
        command += ["--containerd-namespace", f"{TAG}-docker", "--cgroup-parent", f"/{TAG}-docker"]
        command += ["--storage-driver", "overlay2", "--bridge=none", "--iptables=false", "--ip6tables=false"]
        command += ["--ip-forward=false", "--ip-masq=false"]
        with host.daemon("dockerd", *command) as self.engine:
            host.until("answer of dockerd", lambda: self.execute(*self.client("version")), 60)
            self.execute(*self.client("load", "-i", DISK / "image.tar"))
            yield

    def client(self, *words: str | os.PathLike) -> list[str | os.PathLike]:
        return ["docker", "--host", self.socket, *words]

    def run_command(self, name: str) -> list[str | os.PathLike]:
        return self.client("run", "--rm", "--network", "none", image.NAME, *image.ARGUMENTS)

    def version(self) -> str:
        return self.execute(*self.client("version", "--format", "{{.Server.Version}}"))["stdout"].split("+")[0]

    def sleeper(self, name: str) -> int | None:
        self.execute(*self.client("run", "-d", "--name", name, "--network", "none", image.NAME, *SLEEP))
        return int(self.execute(*self.client("inspect", "-f", "{{.State.Pid}}", name))["stdout"])

    def wake(self, name: str) -> None:
        self.execute(*self.client("rm", "-f", name))

    def engine_pids(self) -> list[int]:
        return [self.engine.pid, self.containerd.process.pid]


class Podman(Peer):
    name = program = "podman"
    hide = "/sys/fs/cgroup/unified"

    @contextlib.contextmanager
    def started(self) -> Iterator[None]:
        self.execute(*self.client("load", "-i", DISK / "image.tar"))
        yield

    def client(self, *words: str | os.PathLike) -> list[str | os.PathLike]:
        places = ["--root", DISK / "podman", "--runroot", MEMORY / "podman", "--tmpdir", MEMORY / "libpod"]
        return ["podman", *places, "--storage-driver", "overlay", "--cgroup-manager=cgroupfs", *words]

    def run_command(self, name: str) -> list[str | os.PathLike]:
        return self.client("run", "--rm", *self.options(), image.NAME, *image.ARGUMENTS)

    def options(self) -> list[str]:
        # Limits that a host which withholds CAP_SYS_RESOURCE can set.
        limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096"]
        return ["--network", "none", "--cgroup-parent", f"/{TAG}-podman", *limits]

    def sleeper(self, name: str) -> int | None:
        self.execute(*self.client("run", "-d", "--name", name, *self.options(), image.NAME, *SLEEP))
        return int(self.execute(*self.client("inspect", "-f", "{{.State.Pid}}", name))["stdout"])

    def wake(self, name: str) -> None:
        self.execute(*self.client("rm", "-f", "-t", "0", name))


class Runtime(Peer):
    """runc or crun with a bundle: no image, no engine, no log."""

    work = "run of a bundle"

    def __init__(self, program: str) -> None:
        self.name = self.program = program
        self.hide = Podman.hide if program == "crun" else None
        super().__init__()

    @contextlib.contextmanager
    def started(self) -> Iterator[None]:
        self.bundle = image.bundle(self.program, f"/{TAG}-{self.program}/c")
        yield

    def run_command(self, name: str) -> list[str | os.PathLike]:
        return [self.program, "--root", MEMORY / self.program, "run", "--bundle", self.bundle, name]


class Namespaces(Peer):
    """The floor: util-linux makes the same namespaces and executes the command."""

    name = "unshare"
    program = "unshare"
    work = "the same namespaces, nothing else"

    def run_command(self, name: str) -> list[str | os.PathLike]:
        kinds = ["--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--fork"]
        return ["unshare", *kinds, f"--root={image.rootfs()}", "/bin/busybox", *image.ARGUMENTS]
