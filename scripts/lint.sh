#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# What a change must satisfy besides the tests.
set -euo pipefail
cd "$(dirname "$0")/.."

step() { printf '\nlint: %s\n' "$*"; }

step "formatting"
cargo fmt --all --check

step "clippy"
cargo clippy --locked --workspace --all-targets -- -D warnings

step "documentation"
# Readers of these pages have the sources too: links to private items are fine.
RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" \
    cargo doc --locked --quiet --no-deps --workspace

step "dependencies: licences, bans, sources"
if ! cargo deny --version >/dev/null 2>&1; then
    # Kept outside the target directory's profiles, so built once.
    tools=$(pwd)/${CARGO_TARGET_DIR:-target}/tools
    [ -x "$tools/bin/cargo-deny" ] || cargo install --quiet --locked --root "$tools" cargo-deny
    PATH=$tools/bin:$PATH
fi
cargo deny --locked --workspace check --hide-inclusion-graph bans licenses sources
# The advisories are a git repository of their own, which not every machine
# can reach: then that check is left out, and says so.
if cargo deny --locked fetch db >/dev/null 2>&1; then
    cargo deny --locked --workspace check --hide-inclusion-graph advisories
else
    echo "lint: NOT CHECKED: advisories (their database can't be fetched from here)"
fi

printf '\nlint: all clean\n'
