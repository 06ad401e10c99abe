#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Builds the hello-world image as an OCI archive: build.sh ARCHIVE
#
# Needs sh, tar, gzip, sha256sum and rustc with a linker. The same compiler
# gives the same archive, bit for bit: no times, no names, no order of a
# directory gets in.
set -eu

archive=${1:?usage: build.sh ARCHIVE}
source=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

case $(uname -m) in
    x86_64) architecture=amd64 ;;
    aarch64) architecture=arm64 ;;
    *) echo "build.sh: no hello-world for $(uname -m)" >&2; exit 1 ;;
esac

# 1. The program: static, nothing but its own code and text.
mkdir -p "$work/root" "$work/oci/blobs/sha256"
rustc --edition 2024 --crate-name hello --remap-path-prefix "$source=." \
    -C target-feature=+crt-static -C relocation-model=static -C opt-level=z -C panic=abort -C strip=symbols \
    -C link-arg=-nostartfiles -C link-arg=-nostdlib \
    -C link-arg=-Wl,--build-id=none \
    -o "$work/root/hello" "$source/hello.rs"
chmod 0755 "$work/root/hello"

# pack DIRECTORY FILE...: a tar of them, on standard output.
pack() {
    (cd "$1" && shift && tar --format=ustar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -cf - "$@")
}

# blob FILE: stores it by digest; digest and size are left in $digest, $size.
blob() {
    digest=$(sha256sum <"$1" | cut -d ' ' -f 1)
    size=$(wc -c <"$1" | tr -d ' ')
    mv "$1" "$work/oci/blobs/sha256/$digest"
}

# 2. The layer: one file. Its identity in the configuration is the digest of
#    the uncompressed tar.
pack "$work/root" hello >"$work/layer.tar"
diff_id=$(sha256sum <"$work/layer.tar" | cut -d ' ' -f 1)
gzip -n9 "$work/layer.tar"
blob "$work/layer.tar.gz"
layer=$(printf '{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"sha256:%s","size":%s}' "$digest" "$size")

# 3. The configuration: how to run it.
printf '{"created":"1970-01-01T00:00:00Z","architecture":"%s","os":"linux","config":{"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],"Cmd":["/hello"],"WorkingDir":"/"},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]},"history":[{"created":"1970-01-01T00:00:00Z","created_by":"images/hello-world/build.sh"}]}' \
    "$architecture" "$diff_id" >"$work/config.json"
blob "$work/config.json"
config=$(printf '{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:%s","size":%s}' "$digest" "$size")

# 4. The manifest that ties them together, and the index that names it.
printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":%s,"layers":[%s]}' \
    "$config" "$layer" >"$work/manifest.json"
blob "$work/manifest.json"
printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:%s","size":%s,"platform":{"architecture":"%s","os":"linux"},"annotations":{"io.containerd.image.name":"docker.io/library/hello-world:latest","org.opencontainers.image.ref.name":"docker.io/library/hello-world:latest"}}]}' \
    "$digest" "$size" "$architecture" >"$work/oci/index.json"
printf '{"imageLayoutVersion":"1.0.0"}' >"$work/oci/oci-layout"

# 5. The archive, complete or not at all.
mkdir -p "$(dirname "$archive")"
pack "$work/oci" blobs index.json oci-layout >"$archive.tmp"
mv "$archive.tmp" "$archive"
