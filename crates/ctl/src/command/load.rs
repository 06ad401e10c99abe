// SPDX-License-Identifier: Apache-2.0
//! `berth load`.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use berth::api::v1::{LoadImageRequest, LoadedImage, load_image_response::Kind};
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{
    layout_dir,
    pull::{Voice, draw},
};
use crate::{
    cli::image::Load,
    context::Context,
    error::{Error, Result},
    output::{progress::Progress, text},
    terminal,
};

/// Bytes in a message.
const PIECE: usize = 256 * 1024;
/// Messages read ahead.
const QUEUE: usize = 4;

/// `berth load`.
pub(super) async fn load(context: &Context, args: Load) -> Result<u8> {
    let archive = open(args.input.as_deref())?;
    let (sender, queue) = mpsc::channel(QUEUE);
    let first = LoadImageRequest {
        namespace: context.namespace.clone(),
        platform: args.platform.unwrap_or_default(),
        data: Bytes::new(),
    };
    // A thread of its own: files block. It ends with the archive, or when the
    // engine has hung up.
    let reader = std::thread::spawn(move || send(archive, first, &sender));
    let voice = if args.quiet { Voice::Silent } else { Voice::Stdout };
    let result = receive(context, ReceiverStream::new(queue), voice).await;
    // An archive that can't be read explains whatever the engine made of it.
    // The thread may wait for input that nobody needs any more: no join then.
    if reader.is_finished()
        && let Ok(Err(error)) = reader.join()
    {
        return Err(Error::io("read the archive", &error));
    }
    match result? {
        0 => Err(Error::new("the archive holds no image")),
        _ => Ok(0),
    }
}

/// Sends the archive and tells what came of it. The number of images.
async fn receive(
    context: &Context,
    archive: ReceiverStream<LoadImageRequest>,
    voice: Voice,
) -> Result<usize> {
    let mut progress = Progress::new(voice.style());
    let mut stream = context.client.images().load(archive).await?.into_inner();
    let mut loaded = 0;
    while let Some(answer) = stream.message().await? {
        match answer.kind {
            Some(Kind::Layer(layer)) => {
                // Lines for a pipe name results only.
                let _ = progress.update(&layer);
                draw(&mut progress, voice)?;
            }
            Some(Kind::Loaded(image)) => {
                loaded += 1;
                Voice::Stdout.say(&text::visible(&lines(&image)))?;
            }
            None => {}
        }
    }
    Ok(loaded)
}

fn open(path: Option<&Path>) -> Result<Box<dyn Read + Send>> {
    match path {
        Some(path) if path.is_dir() => layout_dir::read(path),
        Some(path) => match File::open(path) {
            Ok(file) => Ok(Box::new(file)),
            Err(error) => Err(Error::io(format_args!("open {}", path.display()), &error)),
        },
        None if terminal::stdin_is_terminal() => {
            Err(Error::new("requested load from stdin, but stdin is a terminal: use -i FILE, or a pipe"))
        }
        None => Ok(Box::new(io::stdin())),
    }
}

fn send(
    mut archive: Box<dyn Read + Send>,
    first: LoadImageRequest,
    queue: &mpsc::Sender<LoadImageRequest>,
) -> io::Result<()> {
    let mut message = first;
    loop {
        if queue.blocking_send(message).is_err() {
            return Ok(());
        }
        let mut data = Vec::with_capacity(PIECE);
        archive.by_ref().take(PIECE as u64).read_to_end(&mut data)?;
        if data.is_empty() {
            return Ok(());
        }
        message = LoadImageRequest { data: data.into(), ..LoadImageRequest::default() };
    }
}

fn lines(image: &LoadedImage) -> String {
    if image.references.is_empty() {
        return format!("Loaded image ID: {}\n", image.id);
    }
    image.references.iter().map(|name| format!("Loaded image: {name}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_without_a_name_is_known_by_its_id() {
        let image = LoadedImage { id: "sha256:a".into(), references: vec![] };
        assert_eq!(lines(&image), "Loaded image ID: sha256:a\n");
        let image = LoadedImage { id: "sha256:a".into(), references: vec!["a:1".into(), "a:2".into()] };
        assert_eq!(lines(&image), "Loaded image: a:1\nLoaded image: a:2\n");
    }
}
