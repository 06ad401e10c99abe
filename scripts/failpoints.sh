#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Builds engine and shim with their failpoints and puts them aside, so that the
# programs which all other tests run, and which are installed, have none.
set -euo pipefail
cd "$(dirname "$0")/.."

target=${CARGO_TARGET_DIR:-target}/debug
cargo build --locked --package berth-engine --package berth-shim --bins \
    --features berth-engine/failpoints,berth-shim/failpoints
mkdir -p "$target/failpoints"
for program in berthd berth-shim; do
    # Under a new name first: the old one may be running.
    cp "$target/$program" "$target/failpoints/.$program"
    mv "$target/failpoints/.$program" "$target/failpoints/$program"
done
# The others are built again by whoever builds next; here, so that nobody
# finds the wrong ones.
cargo build --locked --package berth-engine --package berth-shim --bins
