#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# From nothing to a running container, and back to nothing: what `make demo`
# runs. Everything lives in one temporary directory and one cgroup, both gone
# at the end, whatever happens on the way.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\n\033[1m==> %s\033[0m\n' "$*"; }
show() { printf '\n$ %s\n' "$*"; "$@"; }
fail() { printf 'make demo: %s\n' "$*" >&2; exit 1; }

[ "$(uname -s)" = Linux ] || fail "containers need Linux; this is $(uname -s)"
[ "$(id -u)" = 0 ] || { echo "make demo needs root: sudo make demo" >&2; exit 1; }
command -v cargo >/dev/null || fail "cargo is missing: see https://rustup.rs (under sudo: sudo env PATH=\$PATH make demo)"

say "Building the engine, the shim and the command line (the first time takes a few minutes)"
cargo build --locked --workspace
bin=${CARGO_TARGET_DIR:-target}/debug
bin=$(cd "$bin" && pwd)

home=$(mktemp -d /tmp/berth-demo.XXXXXX)
cgroup=/berth-demo-$$
engine=

clean_up() {
    local code=$?
    trap - EXIT
    # Containers outlive their engine on purpose, so they go first.
    if [ -n "$engine" ] && kill -0 "$engine" 2>/dev/null; then
        local left
        left=$("$bin/berth" ps -aq 2>/dev/null || true)
        # shellcheck disable=SC2086  # one id a word
        [ -z "$left" ] || "$bin/berth" rm -f $left >/dev/null || true
        kill -TERM "$engine" && wait "$engine" || true
    fi
    if [ "$code" != 0 ] && [ -s "$home/engine.log" ]; then
        echo "--- the engine's log:" >&2
        tail -n 40 "$home/engine.log" >&2
    fi
    find /sys/fs/cgroup -depth -type d -path "*$cgroup*" -exec rmdir {} + 2>/dev/null || true
    rm -rf "$home"
    exit "$code"
}
trap clean_up EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

say "Packing images/hello-world: a static program of ours, in an OCI archive"
images/hello-world/build.sh "$home/hello-world.tar"
ls -l "$home/hello-world.tar"

say "Starting an engine of its own in $home"
export BERTH_ADDRESS=unix://$home/berth.sock
"$bin/berthd" --root "$home/root" --state "$home/state" --address "$BERTH_ADDRESS" --cgroup-parent "$cgroup" \
    >"$home/engine.log" 2>&1 &
engine=$!
for ((tries = 0; ; tries++)); do
    "$bin/berth" version >/dev/null 2>&1 && break
    kill -0 "$engine" 2>/dev/null || fail "the engine has stopped"
    [ "$tries" -lt 300 ] || fail "the engine doesn't answer after 30 s"
    sleep 0.1
done
PATH=$bin:$PATH
show berth version

say "Loading the image, and running it"
show berth load -i "$home/hello-world.tar"
show berth images
show berth run hello-world

say "What is left of that container"
show berth ps -a

say "Removing it and stopping the engine"
show berth rm "$(berth ps -aql)"
kill -TERM "$engine"
wait "$engine"
engine=
echo "Done. Nothing is left running; $home is removed. Next: sudo make install, or make test."
