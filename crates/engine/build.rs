// SPDX-License-Identifier: Apache-2.0
//! Tells the engine which compiler built it, and from which commit when the
//! environment says (`BERTH_GIT_COMMIT`, set by the Makefile).

use std::{env, error::Error, process::Command};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=BERTH_GIT_COMMIT");
    let commit = env::var("BERTH_GIT_COMMIT").unwrap_or_default();
    println!("cargo::rustc-env=BERTH_GIT_COMMIT={commit}");
    let build = if commit.is_empty() { commit } else { format!(", build {commit}") };
    println!("cargo::rustc-env=BERTH_BUILD={build}");
    let rustc = env::var_os("RUSTC").ok_or("RUSTC is not set")?;
    let output = Command::new(rustc).arg("--version").output()?;
    let version = String::from_utf8(output.stdout)?;
    let number = version.split_whitespace().nth(1).ok_or("rustc --version says nothing")?;
    println!("cargo::rustc-env=BERTH_RUST_VERSION={number}");
    Ok(())
}
