// SPDX-License-Identifier: Apache-2.0
//! Images: references, registries, archives, layers.
//!
//! Everything that understands a format or a protocol of images, and nothing
//! that knows where they are kept: `lifecycle::images` brings this and the
//! store together.

pub mod archive;
pub mod layout;
pub mod manifest;
pub mod platform;
pub mod reference;
pub mod registry;
pub mod unpack;

pub use berth_files::tar;
