// SPDX-License-Identifier: Apache-2.0
//! `-info`: who this shim is, as containerd's `RuntimeInfo` message.

use prost::Message;

use super::{Failure, print};

/// `containerd.runtime.v1.RuntimeInfo`, as far as there is something to say.
#[derive(Clone, PartialEq, Message)]
struct RuntimeInfo {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    version: Option<RuntimeVersion>,
}

#[derive(Clone, PartialEq, Message)]
struct RuntimeVersion {
    #[prost(string, tag = "1")]
    version: String,
}

pub(super) fn run() -> Result<(), Failure> {
    let version = Some(RuntimeVersion { version: env!("CARGO_PKG_VERSION").to_owned() });
    let info = RuntimeInfo { name: "io.containerd.berth.v1".to_owned(), version };
    print(&info.encode_to_vec())
}
