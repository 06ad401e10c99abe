// SPDX-License-Identifier: Apache-2.0
//! Compiles `proto/` into the tree that `src/api.rs` includes, without protoc.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

/// Every file that holds a service or a message of the contract; imports follow.
const PROTOS: [&str; 10] = [
    "berth/v1/containers.proto",
    "berth/v1/execs.proto",
    "berth/v1/images.proto",
    "berth/v1/events.proto",
    "berth/v1/system.proto",
    "berth/shim/v1/options.proto",
    "berth/shim/v1/files.proto",
    "containerd/task/v3/shim.proto",
    "containerd/cgroups/v1/metrics.proto",
    "containerd/cgroups/v2/metrics.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    let descriptors = protox::compile(PROTOS, ["proto"])?;
    fs::write(out.join("descriptor_set.bin"), descriptors.encode_to_vec())?;

    let grpc = env::var_os("CARGO_FEATURE_GRPC").is_some();
    let client = env::var_os("CARGO_FEATURE_CLIENT").is_some();
    let server = env::var_os("CARGO_FEATURE_SERVER").is_some();
    tonic_prost_build::configure()
        .out_dir(&out)
        .include_file("api.rs")
        .bytes(".berth.v1")
        // An RPC may be called Connect, like tonic's own constructor.
        .build_transport(false)
        .build_client(grpc && client)
        .build_server(grpc && server)
        .compile_fds(descriptors)?;
    Ok(())
}
