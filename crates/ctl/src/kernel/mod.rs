// SPDX-License-Identifier: Apache-2.0
//! The only unsafe code of the command line: one ioctl, one registration.

pub(crate) mod events;
pub(crate) mod tty;
