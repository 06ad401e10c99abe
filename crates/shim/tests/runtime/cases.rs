// SPDX-License-Identifier: Apache-2.0
//! The cases.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
};

use berth_shim::runtime::{self, Kind};
use serde_json::json;

use crate::harness::{Bundle, Canary, pipes, reap, remove_parents, wait_until};

/// Name and body of each.
pub(crate) const ALL: &[(&str, fn())] = &[("exit_code_and_streams", exit_code_and_streams)];

fn exit_code_and_streams() {
    let output = Bundle::shell("echo out; echo err >&2; exit 42").run().unwrap();
    assert_eq!((output.stdout.as_str(), output.stderr.as_str(), output.status), ("out\n", "err\n", 42));
}
