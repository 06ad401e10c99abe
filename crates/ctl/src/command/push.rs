// SPDX-License-Identifier: Apache-2.0
//! `berth push`.

use std::time::Duration;

use berth::api::v1::{PushImageRequest, PushImageResponse, push_image_response::Kind};
use tokio::time::{self, MissedTickBehavior};
use tonic::Streaming;

use super::pull::{Voice, draw};
use crate::{
    auth,
    cli::image::Push,
    context::Context,
    error::{Error, Result},
    output::{progress::Progress, text},
    parse::reference::Shown,
};

/// Between two frames: fast enough for the eye.
const FRAME: Duration = Duration::from_millis(60);

/// `berth push`.
pub(super) async fn push(context: &Context, args: Push) -> Result<u8> {
    let shown = Shown::of(&args.image);
    if args.all_tags && !shown.defaulted {
        return Err(Error::new("tag can't be used with --all-tags/-a"));
    }
    let voice = if args.quiet { Voice::Silent } else { Voice::Stdout };
    if shown.defaulted && !args.all_tags {
        voice.say("Using default tag: latest\n")?;
    }
    let request = PushImageRequest {
        namespace: context.namespace.clone(),
        image: args.image.clone(),
        all_tags: args.all_tags,
        auth: auth::for_image(&args.image)?,
    };
    let mut stream = context.client.images().push(request).await?.into_inner();
    follow(&mut stream, voice).await?;
    if args.quiet {
        let name = if args.all_tags { args.image } else { shown.familiar };
        Voice::Stdout.say(&format!("{}\n", text::visible(&name)))?;
    }
    Ok(0)
}

async fn follow(stream: &mut Streaming<PushImageResponse>, voice: Voice) -> Result<()> {
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
        let Some(kind) = message.inspect_err(|_| drop(draw(&mut progress, voice)))?.map(|m| m.kind) else {
            return Ok(());
        };
        match kind {
            Some(Kind::Resolved(resolved)) => {
                let name = text::visible(&resolved.reference).into_owned();
                voice.say(&format!("The push refers to repository [{name}]\n"))?;
                progress.expect(&resolved.layers);
            }
            Some(Kind::Layer(layer)) => {
                if let Some(line) = progress.update(&layer) {
                    voice.say(&text::visible(&line))?;
                }
            }
            Some(Kind::Pushed(tag)) => {
                draw(&mut progress, voice)?;
                let line = format!("{}: digest: {} size: {}\n", tag.tag, tag.digest, tag.size);
                voice.say(&text::visible(&line))?;
                if !tag.left_out.is_empty() {
                    let line = format!(
                        "Not all multiplatform-content is present: only this platform was pushed\n{} -> {}\n",
                        tag.left_out, tag.digest
                    );
                    voice.say(&text::visible(&line))?;
                }
            }
            None => {}
        }
    }
}
