// SPDX-License-Identifier: Apache-2.0
//! `berth pull`, and the pull inside `berth run`.

use std::{
    io::{self, Write as _},
    time::Duration,
};

use berth::api::v1::{
    ListTagsRequest, PullDone, PullImageRequest, PullImageResponse, pull_image_response::Kind,
};
use tokio::time::{self, MissedTickBehavior};
use tonic::Streaming;

use crate::{
    auth,
    cli::image::Pull,
    context::Context,
    error::{Error, Result},
    output::progress::{Progress, Style},
    output::text,
    parse::reference::{Shown, split_tag},
    terminal,
};

/// Between two frames: fast enough for the eye.
const FRAME: Duration = Duration::from_millis(60);

/// Where a pull tells what it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Voice {
    /// `berth pull`.
    Stdout,
    /// `berth run`, whose stdout is the container's.
    Stderr,
    /// `-q`.
    Silent,
}

impl Voice {
    /// Writes. Progress is no reason to fail, so only stdout's errors count.
    pub(super) fn say(self, text: &str) -> Result<()> {
        match self {
            Self::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(text.as_bytes())?;
                out.flush()?;
            }
            Self::Stderr => {
                let _ = io::stderr().lock().write_all(text.as_bytes());
            }
            Self::Silent => {}
        }
        Ok(())
    }

    pub(super) fn style(self) -> Style {
        match self {
            Self::Stdout => terminal::progress_style(&io::stdout()),
            Self::Stderr => terminal::progress_style(&io::stderr()),
            Self::Silent => Style::Lines,
        }
    }
}

/// `berth pull`.
pub(super) async fn pull(context: &Context, args: Pull) -> Result<u8> {
    let voice = if args.quiet { Voice::Silent } else { Voice::Stdout };
    let shown = Shown::of(&args.image);
    if args.all_tags {
        return pull_all(context, &args, &shown, voice).await;
    }
    if shown.defaulted {
        voice.say("Using default tag: latest\n")?;
    }
    let done = fetch(context, &args.image, args.platform.as_deref(), args.verify, voice).await?;
    Voice::Stdout.say(&format!("{}\n", text::visible(&done.reference)))?;
    Ok(0)
}

/// As Docker does it: each tag in turn, up to the first that fails, and the
/// status once for all of them.
async fn pull_all(context: &Context, args: &Pull, shown: &Shown, voice: Voice) -> Result<u8> {
    if !shown.defaulted {
        return Err(Error::new("tag can't be used with --all-tags/-a"));
    }
    let request = ListTagsRequest { repository: args.image.clone(), auth: auth::for_image(&args.image)? };
    let tags = context.client.images().list_tags(request).await?.into_inner().tags;
    let (mut name, mut up_to_date) = (None, true);
    for tag in tags {
        let image = format!("{}:{tag}", args.image);
        let done = receive(context, &image, args.platform.as_deref(), args.verify, voice).await?;
        name = Some(split_tag(&done.reference).0.to_owned());
        up_to_date &= done.up_to_date;
    }
    let Some(name) = name else {
        return Err(Error::new(format!("repository {} has no tags", args.image)));
    };
    let familiar = Shown::of(&name).familiar;
    voice.say(&status(up_to_date, split_tag(&familiar).0))?;
    Voice::Stdout.say(&format!("{}\n", text::visible(&name)))?;
    Ok(0)
}

/// Fetches an image and tells about it; ends with digest and status.
pub(super) async fn fetch(
    context: &Context,
    image: &str,
    platform: Option<&str>,
    verify: bool,
    voice: Voice,
) -> Result<PullDone> {
    let done = receive(context, image, platform, verify, voice).await?;
    voice.say(&status(done.up_to_date, &Shown::of(&done.reference).familiar))?;
    Ok(done)
}

fn status(up_to_date: bool, name: &str) -> String {
    let status = if up_to_date { "Image is up to date" } else { "Downloaded newer image" };
    format!("Status: {status} for {}\n", text::visible(name))
}

/// Fetches an image and tells about it; ends with the digest.
async fn receive(
    context: &Context,
    image: &str,
    platform: Option<&str>,
    verify: bool,
    voice: Voice,
) -> Result<PullDone> {
    let request = PullImageRequest {
        namespace: context.namespace.clone(),
        image: image.to_owned(),
        platform: platform.unwrap_or_default().to_owned(),
        auth: auth::for_image(image)?,
        verify,
    };
    let mut stream = context.client.images().pull(request).await?.into_inner();
    let done = follow(&mut stream, image, voice).await?;
    voice.say(&text::visible(&format!("Digest: {}\n", done.digest)))?;
    Ok(done)
}

async fn follow(stream: &mut Streaming<PullImageResponse>, image: &str, voice: Voice) -> Result<PullDone> {
    let mut progress = Progress::new(voice.style());
    let mut frames = time::interval(FRAME);
    frames.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let message = tokio::select! {
            message = stream.message() => message,
            _ = frames.tick() => {
                draw(&mut progress, voice)?;
                continue;
            }
        };
        // What is known is drawn before an error is told below it.
        let message = match message {
            Ok(message) => message,
            Err(status) => {
                draw(&mut progress, voice)?;
                return Err(status.into());
            }
        };
        match message.and_then(|m| m.kind) {
            Some(Kind::Resolved(resolved)) => {
                let shown =
                    Shown::of(if resolved.reference.is_empty() { image } else { &resolved.reference });
                voice.say(&text::visible(&format!("{}: Pulling from {}\n", shown.tag, shown.path)))?;
                progress.expect(&resolved.layers);
            }
            Some(Kind::Layer(layer)) => {
                if let Some(line) = progress.update(&layer) {
                    voice.say(&text::visible(&line))?;
                }
            }
            Some(Kind::Done(done)) => {
                draw(&mut progress, voice)?;
                return Ok(done);
            }
            None => return Err(Error::new("the engine ended the pull without a result")),
        }
    }
}

/// Draws the next frame, when there is something new.
pub(super) fn draw(progress: &mut Progress, voice: Voice) -> Result<()> {
    match progress.draw() {
        Some(frame) => voice.say(&frame),
        None => Ok(()),
    }
}
