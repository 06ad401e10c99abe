#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Installs what the tests need and this machine lacks: a registry to pull
# from, a static busybox to make images of, gRPC for the Python example,
# libseccomp to compare our filters with, and the engines that run containers
# by berth-oci.
# Does nothing, in milliseconds, when all of it is there.
set -euo pipefail
cd "$(dirname "$0")/.."

# A program, and the Debian package that brings it.
needs=(
    docker-registry:docker-registry
    busybox:busybox-static
    cc:gcc
    setpriv:util-linux
    newuidmap:uidmap
    strace:strace
    python3:python3
    openssl:openssl
    dockerd:docker.io
    containerd:containerd
    podman:podman
    skopeo:skopeo
    umoci:umoci
    getfattr:attr
    mkfs.ext4:e2fsprogs
    runc:runc
)
missing=()
for need in "${needs[@]}"; do
    command -v "${need%%:*}" >/dev/null || missing+=("${need##*:}")
done
[ -e /usr/include/seccomp.h ] || missing+=(libseccomp-dev)
# The dynamic busybox is of no use inside an image.
if command -v busybox >/dev/null && ldd "$(command -v busybox)" >/dev/null 2>&1; then
    missing+=(busybox-static)
fi
if command -v python3 >/dev/null; then
    python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
else
    missing+=(python3-venv)
fi

if [ ${#missing[@]} -gt 0 ]; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "test-deps: the tests need these packages: ${missing[*]}" >&2
        echo "test-deps: install them (on Debian: sudo apt-get install ${missing[*]}) and run again" >&2
        exit 1
    fi
    echo "test-deps: installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q
    apt-get install -q -y --no-install-recommends "${missing[@]}" </dev/null
fi

# gRPC for examples/python. A file says that the environment is complete, so
# that a broken download is tried again.
venv=${CARGO_TARGET_DIR:-target}/python
wanted=$(sha256sum <examples/python/requirements.txt)
if [ "$(cat "$venv/complete" 2>/dev/null)" != "$wanted" ]; then
    echo "test-deps: making $venv"
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --requirement examples/python/requirements.txt
    echo "$wanted" >"$venv/complete"
fi
