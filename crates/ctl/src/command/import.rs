// SPDX-License-Identifier: Apache-2.0
//! `berth import`.

use std::{
    fs::File,
    io::{self, Read},
};

use berth::api::v1::{ImportImageRequest, import_image_request as request};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::{
    cli::files::Import,
    context::Context,
    error::{Error, Result},
    output, terminal,
};

/// Bytes in a message.
const PIECE: u64 = 256 * 1024;
/// Messages read ahead.
const QUEUE: usize = 4;

/// `berth import`: the new image's id.
pub(super) async fn import(context: &Context, args: Import) -> Result<u8> {
    let archive = open(&args.source)?;
    let open = request::Open {
        namespace: context.namespace.clone(),
        reference: args.reference.unwrap_or_default(),
        platform: args.platform.unwrap_or_default(),
        message: args.message.unwrap_or_else(|| format!("Imported from {}", args.source)),
        changes: args.change,
    };
    let (sender, queue) = mpsc::channel(QUEUE);
    // A thread of its own: files block. It ends with the archive, or when the
    // engine has hung up.
    let reader = std::thread::spawn(move || send(archive, open, &sender));
    let made = context.client.images().import(ReceiverStream::new(queue)).await;
    // An archive that can't be read explains whatever the engine made of it.
    // The thread may wait for input that nobody needs any more: no join then.
    if reader.is_finished()
        && let Ok(Err(error)) = reader.join()
    {
        return Err(Error::io("read the archive", &error));
    }
    output::print(&format!("{}\n", made?.into_inner().image_id))?;
    Ok(0)
}

fn open(source: &str) -> Result<Box<dyn Read + Send>> {
    match source {
        "-" if terminal::stdin_is_terminal() => {
            Err(Error::new("requested import from stdin, but stdin is a terminal: use a file, or a pipe"))
        }
        "-" => Ok(Box::new(io::stdin())),
        url if url.contains("://") => {
            Err(Error::new("importing from a URL is not supported: use curl -fsSL URL | berth import -"))
        }
        path => match File::open(path) {
            Ok(file) => Ok(Box::new(file)),
            Err(error) => Err(Error::io(format_args!("open {path}"), &error)),
        },
    }
}

/// The archive is whole only when the last message says so.
fn send(
    mut archive: Box<dyn Read + Send>,
    open: request::Open,
    queue: &mpsc::Sender<ImportImageRequest>,
) -> io::Result<()> {
    let mut kind = request::Kind::Open(open);
    loop {
        let last = matches!(kind, request::Kind::End(_));
        if queue.blocking_send(ImportImageRequest { kind: Some(kind) }).is_err() || last {
            return Ok(());
        }
        let mut data = Vec::new();
        archive.by_ref().take(PIECE).read_to_end(&mut data)?;
        kind = match data.is_empty() {
            true => request::Kind::End(request::End {}),
            false => request::Kind::Data(data.into()),
        };
    }
}
