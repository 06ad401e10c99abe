// SPDX-License-Identifier: Apache-2.0
//! `berth save`.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use berth::api::v1::{SaveImageRequest, save_image_request};

use super::layout_dir::LayoutDir;
use crate::{
    cli::image::{Compress, Save, SaveFormat},
    context::Context,
    error::{Error, Result},
    terminal,
};

/// `berth save`.
pub(super) async fn save(context: &Context, args: Save) -> Result<u8> {
    let is_dir = args.format == Some(SaveFormat::OciDir);
    if is_dir && (args.output.is_none() || args.compress.is_some()) {
        return Err(Error::new("oci-dir is a directory: it needs -o DIR, and takes no --compress"));
    }
    if args.output.is_none() && terminal::stdout_is_terminal() {
        return Err(Error::new("cowardly refusing to save to a terminal. Use the -o flag or redirect"));
    }
    let format = match args.format {
        None => save_image_request::Format::Unspecified,
        Some(SaveFormat::DockerArchive) => save_image_request::Format::Docker,
        Some(SaveFormat::OciArchive | SaveFormat::OciDir) => save_image_request::Format::Oci,
    };
    let compression = match args.compress {
        None => save_image_request::Compression::Unspecified,
        Some(Compress::Gzip) => save_image_request::Compression::Gzip,
        Some(Compress::Zstd) => save_image_request::Compression::Zstd,
    };
    let request = SaveImageRequest {
        namespace: context.namespace.clone(),
        images: args.images,
        format: format.into(),
        compression: compression.into(),
    };
    let mut stream = context.client.images().save(request).await?.into_inner();
    if let Some(directory) = args.output.as_deref().filter(|_| is_dir) {
        let layout = LayoutDir::create(directory)?;
        return layout.receive(stream).await.map(|()| 0);
    }
    let mut output = Output::open(args.output.as_deref())?;
    while let Some(part) = stream.message().await? {
        output.write(&part.data)?;
    }
    output.finish()?;
    Ok(0)
}

/// A file appears under its name when it is whole.
pub(super) enum Output {
    Stdout(io::Stdout),
    File {
        file: File,
        partial: PathBuf,
        path: PathBuf,
    },
    /// A device or a pipe, which can't be replaced.
    Special(File, PathBuf),
}

impl Output {
    pub(super) fn open(path: Option<&Path>) -> Result<Self> {
        let Some(path) = path else { return Ok(Self::Stdout(io::stdout())) };
        let failed = |error: &io::Error| Error::io(format_args!("open {}", path.display()), error);
        match fs::metadata(path) {
            Ok(found) if found.is_dir() => Err(failed(&io::ErrorKind::IsADirectory.into())),
            Ok(found) if !found.is_file() => {
                let file = OpenOptions::new().write(true).open(path).map_err(|e| failed(&e))?;
                Ok(Self::Special(file, path.to_owned()))
            }
            _ => {
                let mut name = path.file_name().unwrap_or_default().to_owned();
                name.push(format!(".{}.partial", std::process::id()));
                let partial = path.with_file_name(name);
                let mut options = OpenOptions::new();
                let file = options.write(true).create_new(true).mode(0o600).open(&partial);
                Ok(Self::File { file: file.map_err(|e| failed(&e))?, partial, path: path.to_owned() })
            }
        }
    }

    pub(super) fn write(&mut self, data: &[u8]) -> Result<()> {
        match self {
            Self::Stdout(stdout) => stdout.write_all(data).map_err(|e| Error::io("write the archive", &e)),
            Self::File { file, path, .. } | Self::Special(file, path) => {
                file.write_all(data).map_err(|e| Error::io(format_args!("write {}", path.display()), &e))
            }
        }
    }

    pub(super) fn finish(mut self) -> Result<()> {
        match &mut self {
            Self::Stdout(stdout) => stdout.flush().map_err(|e| Error::io("write the archive", &e)),
            Self::Special(..) => Ok(()),
            Self::File { file, partial, path } => file
                .sync_all()
                .and_then(|()| fs::rename(&*partial, &*path))
                .map_err(|e| Error::io(format_args!("write {}", path.display()), &e)),
        }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if let Self::File { partial, .. } = self {
            // After finish there is none.
            let _ = fs::remove_file(partial);
        }
    }
}
