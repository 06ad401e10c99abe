// SPDX-License-Identifier: Apache-2.0
//! `berth`, the command line. Everything is in the library, for its tests.

use std::process::ExitCode;

fn main() -> ExitCode {
    berth_ctl::main()
}
