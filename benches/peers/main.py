# SPDX-License-Identifier: Apache-2.0
"""berth beside its peers, measured in one interleaved run; prints Markdown.

Absolute times drift on a shared machine, so the peers take turns (A B C A B
C ...) and what counts is the ratio of the medians. A peer that isn't installed
or doesn't work here is left out, and the reason is printed.
"""

import argparse
import contextlib
import datetime
import json
import os
import pathlib
import platform
import statistics
import sys
from collections.abc import Callable, Iterator

import host
import image
import peers
import pull
from host import Unavailable
from peers import Peer

SLEEPERS = 5


def main() -> int:
    options = arguments()
    host.ENVIRONMENT["PATH"] = f"{options.bin}:{host.ENVIRONMENT['PATH']}"
    os.environ["PATH"] = host.ENVIRONMENT["PATH"]
    image.archive()
    with contextlib.ExitStack() as stack:
        ready = start(stack, options)
        if not ready:
            return 1
        note(f"{', '.join(peer.name for peer in ready)}: {options.rounds} rounds")
        if options.pull:
            for line in pull.measure(ready, options.rounds, options.pull):
                print(line, flush=True)
            return 0
        rest = {peer.name: memory_at_rest(peer) for peer in ready if peer.engine_pids()}
        times = measure(ready, options.rounds, options.warm_up)
        execs = measure_execs(ready, options.rounds, options.warm_up)
        monitors = {peer.name: monitor for peer in ready if (monitor := monitor_memory(peer))}
        versions = {peer.name: peer.version() for peer in ready}
    print("\n".join(report(options, ready, versions, times, execs, monitors, rest)))
    if options.json:
        facts = {"versions": versions, "milliseconds": times, "execs": execs, "monitors": monitors, "at_rest": rest}
        options.json.write_text(json.dumps(facts, indent=2) + "\n")
    return 0


def arguments() -> argparse.Namespace:
    root = pathlib.Path(__file__).resolve().parents[2]
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", root / "target"))
    parser = argparse.ArgumentParser(prog="benches/peers/run.sh", description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=20, help="measured rounds (20)")
    parser.add_argument("--warm-up", type=int, default=2, help="rounds before that (2)")
    parser.add_argument("--only", type=lambda names: names.split(","), help="peers, with commas between")
    parser.add_argument("--bin", type=pathlib.Path, default=target / "release", help="where berth's programs are")
    parser.add_argument("--pull", type=int, metavar="MIB", help="measure pulls instead, of an image of so much")
    parser.add_argument("--json", type=pathlib.Path, help="also write every single time there")
    options = parser.parse_args()
    if options.pull and options.json:
        parser.error("--json is not for --pull, which prints a range")
    return options


def note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def start(stack: contextlib.ExitStack, options: argparse.Namespace) -> list[Peer]:
    """Makes every wanted peer ready; says which ones are left out, and why."""
    containerd = peers.Containerd()
    makers: dict[str, Callable[[], Peer]] = {
        "berth": peers.Berth,
        "docker": lambda: peers.Docker(containerd),
        "podman": peers.Podman,
        "ctr": lambda: peers.Ctr(containerd),
        "runc": lambda: peers.Runtime("runc"),
        "crun": lambda: peers.Runtime("crun"),
        "unshare": peers.Namespaces,
    }
    if options.pull:
        engines = ("berth", "docker", "podman", "ctr")
        makers = {name: makers[name] for name in engines} | {"skopeo": pull.Skopeo}
    wanted = [name for name in makers if options.only is None or name in options.only]
    if {"docker", "ctr"} & set(wanted):
        with left_out("docker, ctr"):
            stack.enter_context(containerd.started())
    ready = []
    for name in wanted:
        with left_out(name):
            peer = makers[name]()
            ready.append(stack.enter_context(peer.ready()))
    return ready


@contextlib.contextmanager
def left_out(name: str) -> Iterator[None]:
    try:
        yield
    except (Unavailable, OSError) as e:
        note(f"left out: {name}: {e}")


def measure(ready: list[Peer], rounds: int, warm_up: int) -> dict[str, list[float]]:
    return interleaved({peer.name: peer.run_true for peer in ready}, rounds, warm_up)


def measure_execs(ready: list[Peer], rounds: int, warm_up: int) -> dict[str, list[float]]:
    """`exec` of the same command in a container that sleeps."""
    name = f"{host.TAG}-exec"
    able = [peer for peer in ready if peer.sleeper(name) is not None]
    times = interleaved({peer.name: lambda peer=peer: peer.exec_true(name) for peer in able}, rounds, warm_up)
    for peer in able:
        peer.wake(name)
    return times


def interleaved(works: dict[str, Callable[[], float]], rounds: int, warm_up: int) -> dict[str, list[float]]:
    """Milliseconds of each, by turns."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for number in range(-warm_up, rounds):
        for name, work in works.items():
            milliseconds = work()
            if number >= 0:
                times[name].append(milliseconds)
    return times


def memory_at_rest(peer: Peer) -> list[dict]:
    return [{"program": host.name_of(pid), **host.memory_of(pid)} for pid in peer.engine_pids()]


def monitor_memory(peer: Peer) -> dict | None:
    """What a sleeping container costs besides itself: its parent process."""
    names = [f"{host.TAG}-sleep-{n}" for n in range(SLEEPERS)]
    pids = [peer.sleeper(name) for name in names[:1]]
    if pids[0] is None:
        return None
    pids += [peer.sleeper(name) for name in names[1:]]
    monitors = [host.parent_of(pid) for pid in pids]
    memory = [host.memory_of(pid) for pid in monitors]
    facts = {key: int(statistics.median(m[key] for m in memory)) for key in memory[0]}
    facts |= {"program": host.name_of(monitors[0]), "threads": host.threads_of(monitors[0])}
    for name in names:
        peer.wake(name)
    return facts


def report(
    options: argparse.Namespace,
    ready: list[Peer],
    versions: dict[str, str],
    times: dict[str, list[float]],
    execs: dict[str, list[float]],
    monitors: dict[str, dict],
    rest: dict[str, list[dict]],
) -> Iterator[str]:
    yield f"{datetime.date.today()}, {cpu()}, {os.cpu_count()} CPUs, Linux {platform.release()};"
    yield f"{options.rounds} interleaved rounds after {options.warm_up} to warm up. Milliseconds."
    yield ""
    yield "| | version | work | median | min | max | × berth |"
    yield "|---|---|---|--:|--:|--:|--:|"
    for peer in ready:
        columns = [peer.name, versions[peer.name], f"{peer.work} `{image.ARGUMENTS[0]}`"]
        yield f"| {' | '.join(columns + row(peer.name, times))} |"
    yield ""
    yield f"`exec` of `{image.ARGUMENTS[0]}` in a container that sleeps, in as many rounds. Milliseconds."
    yield ""
    yield "| | median | min | max | × berth |"
    yield "|---|--:|--:|--:|--:|"
    for name in execs:
        yield f"| {' | '.join([name, *row(name, execs)])} |"
    yield ""
    yield f"Beside a sleeping container, median of {SLEEPERS}; KiB."
    yield ""
    yield "| | process | private | PSS | RSS | threads |"
    yield "|---|---|--:|--:|--:|--:|"
    for name, m in monitors.items():
        sizes = " | ".join(str(m[key] // 1024) for key in ("private", "pss", "rss"))
        yield f"| {name} | {m['program']} | {sizes} | {m['threads']} |"
    yield ""
    yield "The engine with one image and no container; MiB."
    yield ""
    yield "| | processes | RSS | private |"
    yield "|---|---|--:|--:|"
    for name, processes in rest.items():
        programs = " + ".join(process["program"] for process in processes)
        sizes = (f"{sum(p[key] for p in processes) / 2**20:.1f}" for key in ("rss", "private"))
        yield f"| {name} | {programs} | {' | '.join(sizes)} |"


def row(name: str, times: dict[str, list[float]]) -> list[str]:
    median = statistics.median(times[name])
    berth = statistics.median(times["berth"]) if "berth" in times else None
    ratio = f"{median / berth:.2f}" if berth else ""
    return [f"{median:.1f}", f"{min(times[name]):.1f}", f"{max(times[name]):.1f}", ratio]


def cpu() -> str:
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


try:
    sys.exit(main())
except Unavailable as e:
    sys.exit(f"benches/peers: {e}")
