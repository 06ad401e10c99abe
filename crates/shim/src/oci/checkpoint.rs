// SPDX-License-Identifier: Apache-2.0
//! `checkpoint` and `restore`: runc's verbs that this runtime doesn't have.

use super::{Failure, cli::Verb};

pub(super) const CHECKPOINT: Verb = Verb {
    name: "checkpoint",
    usage: "(not supported)",
    arguments: "<container-id>",
    flags: &[],
    flags_until: 0,
    takes: (0, usize::MAX),
    run: |_, _| Err(Failure::new("checkpoint is not supported")),
};

pub(super) const RESTORE: Verb = Verb {
    name: "restore",
    usage: "(not supported)",
    arguments: "<container-id>",
    flags: &[],
    flags_until: 0,
    takes: (0, usize::MAX),
    run: |_, _| Err(Failure::new("restore is not supported")),
};
