// SPDX-License-Identifier: Apache-2.0
//! Pulls an image, runs a command in it, streams its output, waits for its
//! end and removes it: the life of a container through berth's API.
//!
//! ```text
//! cargo run --example run_container -- busybox sh -c 'echo hello; exit 3'
//! ```
//!
//! `BERTH_ADDRESS` names the engine's socket; unset, it is the usual one. The
//! example ends with the container's exit code.

use std::{env, io::Write as _, process::ExitCode};

use anyhow::{Context as _, Result, bail};
use berth::{Client, api::v1};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode> {
    let mut arguments = env::args().skip(1);
    let Some(image) = arguments.next() else { bail!("usage: run_container IMAGE [COMMAND [ARG...]]") };
    let address = env::var("BERTH_ADDRESS").unwrap_or_else(|_| berth::DEFAULT_ADDRESS.to_owned());

    let client = Client::connect(&address).await.context("is berthd running?")?;
    pull(&client, &image).await?;
    let container = create(&client, image, arguments.collect()).await?;
    let result = run(&client, &container).await;
    // Also when something went wrong: it is ours to tidy up.
    let request = v1::RemoveContainerRequest { container, force: true, ..Default::default() };
    client.containers().remove(request).await?;
    Ok(ExitCode::from(result?))
}

/// Fetches the image, and says on standard error how it goes.
async fn pull(client: &Client, image: &str) -> Result<()> {
    let request = v1::PullImageRequest { image: image.to_owned(), ..Default::default() };
    let mut progress = client.images().pull(request).await?.into_inner();
    while let Some(message) = progress.try_next().await? {
        match message.kind {
            Some(v1::pull_image_response::Kind::Layer(layer))
                if layer.phase() == v1::layer_progress::Phase::Complete =>
            {
                eprintln!("{}: complete", layer.digest);
            }
            Some(v1::pull_image_response::Kind::Done(done)) if done.up_to_date => {
                eprintln!("{} is up to date", done.reference);
            }
            Some(v1::pull_image_response::Kind::Done(done)) => {
                eprintln!("{} is {}", done.reference, done.digest);
            }
            _ => {}
        }
    }
    Ok(())
}

/// Makes the container; nothing runs yet. Gives its id.
async fn create(client: &Client, image: String, command: Vec<String>) -> Result<String> {
    let config = v1::ContainerConfig { image, command, ..Default::default() };
    let request = v1::CreateContainerRequest { config: Some(config), ..Default::default() };
    let created = client.containers().create(request).await?.into_inner();
    for warning in &created.warnings {
        eprintln!("warning: {warning}");
    }
    Ok(created.id)
}

/// Starts the container and copies its output until it ends. Gives its code.
async fn run(client: &Client, container: &str) -> Result<u8> {
    let mut containers = client.containers();

    // Attach first, start second: then no byte of output is missed. The
    // request stream stays open for as long as we want to listen.
    let (input, requests) = tokio::sync::mpsc::channel(1);
    let open = v1::attach_request::Open {
        container: container.to_owned(),
        stdout: true,
        stderr: true,
        ..Default::default()
    };
    input.send(v1::AttachRequest { kind: Some(v1::attach_request::Kind::Open(open)) }).await?;
    let mut output = containers.attach(ReceiverStream::new(requests)).await?.into_inner();
    let first = output.try_next().await?.and_then(|m| m.kind);
    if !matches!(first, Some(v1::attach_response::Kind::Attached(_))) {
        bail!("expected the engine to say that we are attached");
    }

    let request = v1::StartContainerRequest { container: container.to_owned(), ..Default::default() };
    containers.start(request).await?;

    // The stream ends when the container's output does.
    while let Some(message) = output.try_next().await? {
        if let Some(v1::attach_response::Kind::Output(chunk)) = message.kind {
            match chunk.stream() {
                v1::Stream::Stderr => std::io::stderr().write_all(&chunk.data)?,
                _ => std::io::stdout().write_all(&chunk.data)?,
            }
        }
    }
    drop(input);

    let request = v1::WaitContainerRequest { container: container.to_owned(), ..Default::default() };
    let ended = containers.wait(request).await?.into_inner();
    Ok(u8::try_from(ended.exit_code)?)
}
