#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# berth beside docker, podman, ctr, runc and crun, in one interleaved run: what
# `make bench` starts. See `run.sh --help` and README.md.
#
# Everything runs in mount, pid and network namespaces of its own. When this
# ends, however it ends, the kernel ends every process and mount in there; the
# cgroups and the temporary directory are removed here.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

BERTH_BENCH_TAG=berth-bench-$$
BERTH_BENCH_MEMORY=/run/berth-bench
export BERTH_BENCH_TAG BERTH_BENCH_DISK BERTH_BENCH_MEMORY
case " $* " in *" --help "* | *" -h "*) BERTH_BENCH_DISK='' exec python3 "$here/main.py" --help ;; esac
[ "$(id -u)" = 0 ] || { echo "benches/peers: containers need root" >&2; exit 1; }

BERTH_BENCH_DISK=$(mktemp -d "${TMPDIR:-/var/tmp}/$BERTH_BENCH_TAG.XXXXXX")
child=

# What is busy until its last process has been reaped.
leftovers_gone() {
    find /sys/fs/cgroup -depth -type d -path "*$BERTH_BENCH_TAG*" -exec rmdir {} + 2>/dev/null || true
    rm -rf "$BERTH_BENCH_DISK" "$BERTH_BENCH_DISK.ext4" 2>/dev/null &&
        [ -z "$(find /sys/fs/cgroup -type d -name "$BERTH_BENCH_TAG*" -print -quit)" ]
}

clean_up() {
    local code=$? tries=100
    trap - EXIT
    # unshare takes its pid namespace with it. It ignores everything else.
    [ -z "$child" ] || { kill -KILL "$child" && wait "$child"; } 2>/dev/null || true
    until leftovers_gone; do
        [ $((tries--)) -gt 0 ] || { echo "benches/peers: can't remove everything of $BERTH_BENCH_TAG" >&2; break; }
        sleep 0.1
    done
    exit "$code"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# The shell in the middle is init of the pid namespace: it reaps the orphans.
# It covers what engines write to whatever they are told.
# shellcheck disable=SC2016
inner='
    set -e
    mount -t tmpfs -o mode=0755 tmpfs /run
    mount -t tmpfs -o mode=1777 tmpfs /dev/shm
    [ ! -d /var/lib/containers ] || mount -t tmpfs tmpfs /var/lib/containers
    mkdir -m 0700 "$BERTH_BENCH_MEMORY"
    # A file system of its own, with the journal that most hosts have: without
    # one ext4 goes around inodes that were deleted in the last minutes, and
    # whoever makes many files pays for what another has removed.
    truncate -s 40G "$BERTH_BENCH_DISK.ext4"
    mkfs.ext4 -q -F "$BERTH_BENCH_DISK.ext4"
    mount -o loop "$BERTH_BENCH_DISK.ext4" "$BERTH_BENCH_DISK"
    ip link set lo up
    python3 "$@" &
    wait $!'
unshare --mount --pid --net --fork --kill-child --mount-proc --propagation private \
    bash -c "$inner" bash "$here/main.py" "$@" &
child=$!
code=0
wait $child || code=$?
child=
exit $code
