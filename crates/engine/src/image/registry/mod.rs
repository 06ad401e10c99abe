// SPDX-License-Identifier: Apache-2.0
//! The client side of the OCI distribution protocol.

pub mod auth;
pub mod hosts;
