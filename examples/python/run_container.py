#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Pulls an image, runs a command in it, streams its output, waits for its end
and removes it: the life of a container through berth's API.

    python run_container.py busybox sh -c 'echo hello; exit 3'

The client code is generated from proto/ when the program starts, into a
temporary directory. BERTH_ADDRESS names the engine's socket; unset, it is the
usual one. The program ends with the container's exit code.
"""

import importlib
import os
import pathlib
import queue
import sys
import tempfile

import grpc
from grpc_tools import protoc

PROTO = pathlib.Path(__file__).resolve().parents[2] / "proto"


def generate(directory):
    """Turns proto/berth/v1 into Python modules; gives (messages, stubs)."""
    files = sorted(str(p.relative_to(PROTO)) for p in PROTO.glob("berth/v1/*.proto"))
    # Google's own well-known types come with grpc_tools.
    google = pathlib.Path(protoc.__file__).parent / "_proto"
    arguments = ["protoc", f"-I{PROTO}", f"-I{google}", f"--python_out={directory}", f"--grpc_python_out={directory}"]
    if protoc.main(arguments + files) != 0:
        sys.exit("generating the client from the protos failed")
    sys.path.insert(0, directory)
    modules = {}
    for name in ("containers", "images"):
        modules[name] = importlib.import_module(f"berth.v1.{name}_pb2")
        modules[f"{name}_grpc"] = importlib.import_module(f"berth.v1.{name}_pb2_grpc")
    return modules


def pull(api, channel, image):
    """Fetches the image, and says on standard error how it goes."""
    images = api["images_grpc"].ImagesStub(channel)
    for progress in images.Pull(api["images"].PullImageRequest(image=image)):
        if progress.HasField("done"):
            word = "is up to date" if progress.done.up_to_date else f"is {progress.done.digest}"
            print(f"{progress.done.reference} {word}", file=sys.stderr)


def run(api, containers, container):
    """Starts the container and copies its output; gives its exit code."""
    messages = api["containers"]
    # Attach first, start second: then no byte of output is missed. What we
    # send is an iterator; it goes on for as long as we want to listen.
    requests = queue.SimpleQueue()
    requests.put(
        messages.AttachRequest(open=messages.AttachRequest.Open(container=container, stdout=True, stderr=True))
    )
    output = containers.Attach(iter(requests.get, None))
    if not next(output).HasField("attached"):
        raise RuntimeError("expected the engine to say that we are attached")

    containers.Start(messages.StartContainerRequest(container=container))

    # The stream ends when the container's output does.
    for message in output:
        chunk = message.output
        stream = sys.stderr if chunk.stream == messages.STREAM_STDERR else sys.stdout
        stream.buffer.write(chunk.data)
        stream.buffer.flush()
    requests.put(None)

    return containers.Wait(messages.WaitContainerRequest(container=container)).exit_code


def main():
    if len(sys.argv) < 2:
        sys.exit("usage: run_container.py IMAGE [COMMAND [ARG...]]")
    image, command = sys.argv[1], sys.argv[2:]
    address = os.environ.get("BERTH_ADDRESS", "unix:///run/berth/berth.sock")

    with tempfile.TemporaryDirectory() as directory:
        api = generate(directory)
        # A unix socket has no host name; this is what gRPC shall say instead.
        options = [("grpc.default_authority", "localhost")]
        with grpc.insecure_channel(address, options=options) as channel:
            messages = api["containers"]
            containers = api["containers_grpc"].ContainersStub(channel)
            pull(api, channel, image)
            config = messages.ContainerConfig(image=image, command=command)
            container = containers.Create(messages.CreateContainerRequest(config=config)).id
            try:
                code = run(api, containers, container)
            finally:
                containers.Remove(messages.RemoveContainerRequest(container=container, force=True))
    sys.exit(code)


if __name__ == "__main__":
    try:
        main()
    except grpc.RpcError as error:
        sys.exit(f"{error.code().name}: {error.details()}")
