// SPDX-License-Identifier: Apache-2.0
//! What the tests stand on: an engine in a temporary place, a registry, images
//! made in memory, a terminal. Nothing here asserts how berth behaves, except
//! that it leaves nothing behind.

pub(crate) mod command;
pub(crate) mod engine;
pub(crate) mod fake_registry;
pub(crate) mod http;
pub(crate) mod image;
pub(crate) mod leaks;
pub(crate) mod peers;
pub(crate) mod pki;
pub(crate) mod pty;
pub(crate) mod registry;
pub(crate) mod wait;

pub(crate) use command::Output;
pub(crate) use engine::Engine;
pub(crate) use fake_registry::FakeRegistry;
pub(crate) use image::Image;
pub(crate) use pki::Pki;
pub(crate) use pty::Pty;
pub(crate) use registry::Registry;
pub(crate) use wait::until;
