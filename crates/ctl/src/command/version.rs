// SPDX-License-Identifier: Apache-2.0
//! `berth version`.

use std::{fmt::Write as _, future::Future};

use berth::api::v1::{VersionRequest, VersionResponse};
use serde::Serialize;

use crate::{
    cli::system::Version,
    context::Context,
    error::{Error, Result},
    output::{self, json, listing, template::Template},
};

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Versions {
    client: Side,
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<Side>,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Side {
    version: String,
    api_version: String,
    git_commit: String,
    rust_version: String,
    os: String,
    arch: String,
    kernel_version: String,
}

/// `berth version`: what is known of this side, also without an engine.
pub(super) async fn version(connect: impl Future<Output = Result<Context>>, args: Version) -> Result<u8> {
    let answer = async {
        let answer = connect.await?.client.system().version(VersionRequest {}).await?;
        Ok::<_, Error>(answer.into_inner())
    }
    .await;
    let (server, error) = match answer {
        Ok(answer) => (Some(side(answer)), None),
        Err(error) => (None, Some(error)),
    };
    let versions = Versions { client: client(), server };
    output::print(&render(&versions, args.format.as_deref())?)?;
    error.map_or(Ok(0), Err)
}

fn render(versions: &Versions, format: Option<&str>) -> Result<String> {
    Ok(match format {
        None => table(versions),
        Some("json") => json::line(versions)? + "\n",
        Some(text) => {
            let value = serde_json::to_value(versions).map_err(|e| Error::new(e.to_string()))?;
            Template::parse(&listing::unescape(text))?.render(&value)? + "\n"
        }
    })
}

fn client() -> Side {
    Side {
        version: env!("CARGO_PKG_VERSION").into(),
        api_version: "v1".into(),
        git_commit: option_env!("BERTH_GIT_COMMIT").unwrap_or_default().into(),
        rust_version: String::new(),
        os: std::env::consts::OS.into(),
        // In the words of images and of the engine.
        arch: match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        }
        .into(),
        kernel_version: String::new(),
    }
}

fn side(answer: VersionResponse) -> Side {
    Side {
        version: answer.version,
        api_version: answer.api_version,
        git_commit: answer.git_commit,
        rust_version: answer.rust_version,
        os: answer.os,
        arch: answer.arch,
        kernel_version: answer.kernel_version,
    }
}

fn table(versions: &Versions) -> String {
    let mut out = String::from("Client:\n");
    lines(&mut out, &versions.client);
    if let Some(server) = &versions.server {
        out.push_str("\nServer:\n");
        lines(&mut out, server);
    }
    out
}

fn lines(out: &mut String, side: &Side) {
    let platform = format!("{}/{}", side.os, side.arch);
    for (name, value) in [
        ("Version", &side.version),
        ("API version", &side.api_version),
        ("Git commit", &side.git_commit),
        ("Rust version", &side.rust_version),
        ("OS/Arch", &platform),
        ("Kernel version", &side.kernel_version),
    ] {
        if !value.is_empty() {
            // Writing to a string can't fail.
            let _ = writeln!(out, " {:<19}{value}", format!("{name}:"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides() {
        let side = |version: &str| Side {
            version: version.into(),
            os: "linux".into(),
            arch: "x86_64".into(),
            ..Side::default()
        };
        let versions = Versions { client: side("1.0.0"), server: Some(side("1.0.1")) };
        assert_eq!(
            render(&versions, None).expect("table"),
            "Client:\n Version:           1.0.0\n OS/Arch:           linux/x86_64\n\n\
             Server:\n Version:           1.0.1\n OS/Arch:           linux/x86_64\n"
        );
        assert_eq!(render(&versions, Some("{{.Server.Version}}")).expect("template"), "1.0.1\n");
        assert!(
            render(&versions, Some("json")).expect("json").starts_with("{\"Client\":{\"Version\":\"1.0.0\"")
        );
    }
}
