// SPDX-License-Identifier: Apache-2.0
//! Links `berth-shim` and `berth-oci` statically where the C library allows it
//! (docs/adr/0019-static-shim.md).
//!
//! `-C target-feature=+crt-static` would do that, but is for everything that
//! a command compiles, and `berthd` has to use the host's own resolver. So
//! the linker is told alone: the libraries that rustc names (`-lgcc_s`, `-lc`,
//! `-lm`) are found as scripts which name the archives in their place.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::Command,
};

const PROGRAMS: [&str; 2] = ["berth-shim", "berth-oci"];

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=RUSTC_LINKER");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("OUT_DIR is not set"))?);
    let gnu = env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux")
        && env::var("CARGO_CFG_TARGET_ENV").is_ok_and(|c| c == "gnu");
    if !gnu || !write_scripts(&out)? {
        return Ok(());
    }
    for program in PROGRAMS {
        for argument in [&format!("-L{}", out.display()), "-static", "-no-pie"] {
            println!("cargo::rustc-link-arg-bin={program}={argument}");
        }
    }
    Ok(())
}

/// False when one of the archives isn't installed.
fn write_scripts(out: &Path) -> io::Result<bool> {
    let archives = ["libc.a", "libm.a", "libgcc.a", "libgcc_eh.a"].map(archive);
    let [Some(c), Some(m), Some(gcc), Some(gcc_eh)] = archives else { return Ok(false) };
    fs::write(out.join("libgcc_s.so"), format!("GROUP ( {gcc_eh} {gcc} {c} )\n"))?;
    fs::write(out.join("libc.so"), format!("GROUP ( {c} {gcc_eh} {gcc} )\n"))?;
    fs::write(out.join("libm.so"), format!("GROUP ( {m} {c} )\n"))?;
    Ok(true)
}

/// Where the linker has it; a bare name is what it answers when it hasn't.
fn archive(name: &str) -> Option<String> {
    let linker = env::var_os("RUSTC_LINKER").unwrap_or_else(|| "cc".into());
    let answer = Command::new(linker).arg(format!("-print-file-name={name}")).output().ok()?;
    let path = String::from_utf8(answer.stdout).ok()?.trim().to_owned();
    Path::new(&path).is_absolute().then_some(path)
}
