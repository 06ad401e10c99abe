#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The long runs, whose figures are in docs/reliability.md: those of the tests'
# binary `soak`, at full length, one at a time. Arguments choose among them:
# `scripts/soak.sh chaos`. BERTH_SEED repeats what was random; BERTH_PROFILE=dev
# runs the unoptimised programs that the tests use.
set -euo pipefail
cd "$(dirname "$0")/.."

[ "$(id -u)" = 0 ] || { echo "soak: engines need root" >&2; exit 1; }

profile=${BERTH_PROFILE:-release}
cargo build --locked --profile "$profile" --workspace --bins
export BERTH_SOAK=full
# Each prints its figures; failpoints are a test of every change.
cargo test --locked --profile "$profile" --test soak -- \
    --test-threads 1 --nocapture --skip failpoints "$@"
echo "soak: all held"
