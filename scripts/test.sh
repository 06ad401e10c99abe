#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Builds the workspace and runs all its tests: unit, architecture, wire and
# end to end. Arguments go to the test runner, so `scripts/test.sh survival`
# runs the tests with that word in their name.
set -euo pipefail
cd "$(dirname "$0")/.."

[ "$(id -u)" = 0 ] || echo "test: not root, so the end-to-end tests will say that they skip"

# The end-to-end tests start the programs themselves, some of them programs
# that can be told where to fail.
scripts/failpoints.sh
cargo build --locked --workspace --bins --examples
if cargo nextest --version >/dev/null 2>&1; then
    cargo nextest run --locked --workspace "$@"
    cargo test --locked --quiet --workspace --doc
else
    cargo test --locked --workspace --lib --bins --tests -- "$@"
    cargo test --locked --quiet --workspace --doc
fi
echo "test: all passed"
