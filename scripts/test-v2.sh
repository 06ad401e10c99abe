#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs the runtime's tests, and of the engine's those of a container's life, in
# a virtual machine: Debian's kernel and systemd, with cgroup v2, which most
# hosts have, or another layout, in software emulation. The guest's systemd
# starts the packaged unit.
#
#   scripts/test-v2.sh [v2|hybrid|v1] [CASE]
#
# The root file system is made once, by debootstrap, and kept in target/v2.
set -euo pipefail
cd "$(dirname "$0")/.."

layout=${1:-v2}
filter=${2:-}
case $layout in
    v2) options="systemd.unified_cgroup_hierarchy=1" ;;
    hybrid) options="systemd.unified_cgroup_hierarchy=0" ;;
    v1) options="systemd.unified_cgroup_hierarchy=0 systemd.legacy_systemd_cgroup_controller=yes" ;;
    *) echo "test-v2: no layout $layout: v2, hybrid or v1" >&2; exit 2 ;;
esac
# Of the engine's tests those that say most of a kernel; each takes half a minute
# here.
engine_filter="pause:: lifecycle::step_by_step lifecycle::stop_asks lifecycle::kill_sends \
lifecycle::wait_hears lifecycle::a_container_with_rm lifecycle::a_files_changes"
# Emulation is slow; nothing hangs for ever.
limit=${BERTH_TEST_V2_SECONDS:-1200}

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "test-v2: needs root, and a Debian to take the guest's system from" >&2
    exit 1
fi
missing=()
for need in qemu-system-x86_64:qemu-system-x86 debootstrap:debootstrap busybox:busybox-static; do
    command -v "${need%%:*}" >/dev/null || missing+=("${need##*:}")
done
if [ ${#missing[@]} -gt 0 ]; then
    echo "test-v2: installing ${missing[*]}"
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}" </dev/null
fi

target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
cache=$target/v2
packages=systemd,systemd-sysv,dbus,busybox-static,iproute2,util-linux,procps,uidmap,strace,kmod,docker-registry
suite=bookworm
# Another list of packages, or another version of this script's recipe, makes
# another root.
key=$(echo "4 $suite $packages" | sha256sum | cut -c1-12)
root=$cache/root-$key
kernel=$cache/kernel-$key
mkdir -p "$cache"

if [ ! -e "$kernel/complete" ]; then
    echo "test-v2: fetching a kernel"
    rm -rf "$kernel"
    mkdir -p "$kernel/deb"
    image=$(apt-cache depends linux-image-amd64 | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -1)
    (cd "$kernel/deb" && apt-get download -q "$image")
    dpkg-deb -x "$kernel"/deb/*.deb "$kernel"
    rm -rf "$kernel/deb"
    touch "$kernel/complete"
fi
if [ ! -e "$root/complete" ]; then
    echo "test-v2: making a root file system (once, about a minute)"
    rm -rf "$root"
    debootstrap --variant=minbase --include="$packages" "$suite" "$root" >"$cache/debootstrap.log" 2>&1 || {
        tail -20 "$cache/debootstrap.log" >&2
        exit 1
    }
    rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/usr/share/{doc,man,locale}
    mkdir -p "$root/modules"
    find "$kernel/lib/modules" \( -name overlay.ko -o -name fuse.ko -o -name veth.ko -o -name dummy.ko \
        -o -name bridge.ko -o -name stp.ko -o -name llc.ko -o -name loop.ko -o -name ext4.ko \
        -o -name jbd2.ko -o -name mbcache.ko -o -name crc16.ko -o -name crc32c_generic.ko \) \
        -exec cp {} "$root/modules" \;
    for unit in docker-registry getty@tty1 serial-getty@ttyS0 systemd-udevd systemd-udev-trigger systemd-timesyncd; do
        ln -sf /dev/null "$root/etc/systemd/system/$unit.service"
    done
    ln -sf /lib/systemd/system/multi-user.target "$root/etc/systemd/system/default.target"
    # The first root can't be left by pivot_root(2), which the runtime uses.
    cat >"$root/init" <<'EOF'
#!/bin/busybox sh
/bin/busybox mkdir -p /n
/bin/busybox mount -t tmpfs -o size=2g none /n
for entry in /*; do
    case $entry in /n | /proc | /sys | /dev | /tmp) ;; *) /bin/busybox cp -a "$entry" /n/ ;; esac
done
/bin/busybox mkdir -p /n/proc /n/sys /n/dev /n/tmp
/bin/busybox mount -t devtmpfs none /n/dev
exec /bin/busybox switch_root /n /lib/systemd/systemd
EOF
    chmod +x "$root/init"
    cat >"$root/etc/systemd/system/berth-tests.service" <<'EOF'
[Unit]
After=basic.target
[Service]
Type=oneshot
Delegate=yes
TimeoutStartSec=infinity
ExecStart=/tests/run
[Install]
WantedBy=multi-user.target
EOF
    mkdir -p "$root/etc/systemd/system/multi-user.target.wants"
    ln -sf ../berth-tests.service "$root/etc/systemd/system/multi-user.target.wants/"
    touch "$root/complete"
fi

echo "test-v2: building the tests"
cargo build -q --workspace --bins
built() { # PACKAGE TEST: the path of a test's program
    cargo test -p "$1" --test "$2" --no-run 2>&1 | sed -n 's/.*Executable.*(\(.*\))$/\1/p'
}
tests=$(built berth-shim runtime)
engine_tests=$(built berth e2e)
[ -x "$tests" ] && [ -x "$engine_tests" ] || { echo "test-v2: the tests weren't built" >&2; exit 1; }

work=$(mktemp -d "$cache/run.XXXXXX")
machine=
cleanup() {
    [ -z "$machine" ] || kill "$machine" 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT
mkdir -p "$work/tests"
cp "$tests" "$work/tests/runtime"
# Where these look for the programs: in the directory above their own.
mkdir -p "$work/tests/deps"
cp "$engine_tests" "$work/tests/deps/e2e"
cp "$target"/debug/{berth-oci,berth-shim,berthd,berth} "$work/tests/"
strip -g "$work"/tests/{runtime,deps/e2e,berth-oci,berth-shim,berthd,berth}
cp contrib/systemd/berth.service "$work/tests/"
cat >"$work/tests/run" <<EOF
#!/bin/bash
exec >/dev/ttyS0 2>&1 </dev/null
# Again and again: some need others.
for module in /modules/*.ko /modules/*.ko /modules/*.ko; do insmod "\$module" 2>/dev/null; done
# A disk for what the tests make: this kernel's tmpfs can't map ids.
truncate -s 2G /disk && mkfs.ext4 -q /disk && mount -o loop /disk /tmp || echo "no disk for /tmp"
echo "kernel \$(uname -r), cgroups: \$(stat -fc %T /sys/fs/cgroup) \$(cat /sys/fs/cgroup/cgroup.controllers 2>/dev/null)"
export RUST_BACKTRACE=0 BERTH_OCI=/tests/berth-oci
cd /tests && ./runtime $filter
status=\$?
if [ -z "$filter" ]; then
    echo "the engine:"
    # Few at a time: emulated processors are slow, and these have deadlines.
    deps/e2e --test-threads 2 $engine_filter || status=1
    echo "the unit:"
    sed 's|/usr/local/bin/berthd|/tests/berthd|' berth.service >/run/systemd/system/berth.service
    systemctl daemon-reload
    if systemd-analyze verify --man=no /run/systemd/system/berth.service && systemctl start berth &&
        ./berth version && systemctl stop berth; then
        echo "the unit starts, answers and stops: ok"
    else
        systemctl status --no-pager --full berth
        status=1
    fi
fi
echo "exit status \$status"
sync
echo o >/proc/sysrq-trigger
EOF
chmod +x "$work/tests/run"
# An archive is unpacked over the one before it.
(cd "$root" && find . | busybox cpio -o -H newc 2>/dev/null) >"$work/initrd"
(cd "$work" && find tests | busybox cpio -o -H newc 2>/dev/null) >>"$work/initrd"

echo "test-v2: booting ($layout)"
timeout "$limit" qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -m 3G \
    -nographic -no-reboot -nic none -kernel "$kernel"/boot/vmlinuz-* -initrd "$work/initrd" \
    -append "console=ttyS0 rdinit=/init quiet loglevel=3 systemd.show_status=0 panic=-1 swapaccount=1 $options" \
    </dev/null >"$work/log" 2>&1 &
machine=$!
wait "$machine" || true
machine=
tr -d '\r' <"$work/log" | sed -n 's/.*kernel \([0-9].*, cgroups:\)/kernel \1/; /^kernel /,$p'
tr -d '\r' <"$work/log" | grep -q '^exit status 0$' || {
    echo "test-v2: FAILED ($layout)" >&2
    exit 1
}
echo "test-v2: passed ($layout)"
