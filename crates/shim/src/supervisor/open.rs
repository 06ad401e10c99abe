// SPDX-License-Identifier: Apache-2.0
//! The streams of a process that is about to be made, as the runtime takes
//! them.

use berth::ttrpc::Status;

use super::answer::internal;
use crate::{io::stdio::Stdio, kernel::tty::Size, runtime};

/// The kernel's default for a terminal whose size nobody has set.
const NO_SIZE: Size = Size { rows: 0, columns: 0 };

/// Opens the process' ends of its streams.
pub(super) fn runtime_stdio(streams: &mut Stdio) -> Result<runtime::Stdio, Status> {
    let pipes = streams.open().map_err(|e| internal("open the standard streams", &e))?;
    Ok(match pipes {
        Some(pipes) => {
            runtime::Stdio::Pipes { stdin: pipes.stdin, stdout: pipes.stdout, stderr: pipes.stderr }
        }
        None => {
            let size = streams.size().unwrap_or(NO_SIZE);
            runtime::Stdio::Terminal { rows: size.rows, columns: size.columns, plain: false }
        }
    })
}
