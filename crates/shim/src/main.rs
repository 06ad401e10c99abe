// SPDX-License-Identifier: Apache-2.0
//! `berth-shim`: see [`berth_shim::boot`].

use std::process::ExitCode;

fn main() -> ExitCode {
    berth_shim::boot::main(std::env::args_os())
}
