// SPDX-License-Identifier: Apache-2.0
//! `berth-oci`: see [`berth_shim::oci`].

use std::process::ExitCode;

fn main() -> ExitCode {
    berth_shim::oci::main(std::env::args_os())
}
