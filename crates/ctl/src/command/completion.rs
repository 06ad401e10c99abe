// SPDX-License-Identifier: Apache-2.0
//! Completion scripts and manual pages, from clap's definitions.

use std::path::Path;

use clap_complete::{generate, shells};

use crate::{
    cli::{self, Shell},
    error::{Error, Result},
    output,
};

/// `berth completion SHELL`.
pub(super) fn completion(shell: Shell) -> Result<u8> {
    let mut command = cli::command();
    let mut script = Vec::new();
    match shell {
        Shell::Bash => generate(shells::Bash, &mut command, "berth", &mut script),
        Shell::Zsh => generate(shells::Zsh, &mut command, "berth", &mut script),
        Shell::Fish => generate(shells::Fish, &mut command, "berth", &mut script),
    }
    let script = String::from_utf8(script).map_err(|e| Error::new(e.to_string()))?;
    output::print(&script)?;
    Ok(0)
}

/// `berth man DIR`: a page per command, `berth.1`, `berth-run.1`, ….
pub(super) fn man(directory: &Path) -> Result<u8> {
    clap_mangen::generate_to(cli::command(), directory)
        .map_err(|e| Error::io(format_args!("write manual pages to {}", directory.display()), &e))?;
    Ok(0)
}
