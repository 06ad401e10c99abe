// SPDX-License-Identifier: Apache-2.0
//! The engine: a gRPC server that owns images and containers.

pub mod api;
pub mod config;
pub mod daemon;
pub mod domain;
pub mod error;
pub mod image;
pub mod kernel;
pub mod lifecycle;
pub mod shim;
pub mod store;
