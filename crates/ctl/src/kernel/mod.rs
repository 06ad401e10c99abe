// SPDX-License-Identifier: Apache-2.0
//! The only unsafe code of the command line: one ioctl.

pub(crate) mod tty;
