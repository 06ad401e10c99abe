// SPDX-License-Identifier: Apache-2.0
//! Directories with an OCI image layout: `berth save --format oci-dir`, and
//! `berth load -i` of one. The engine knows archives alone; between the two
//! there is no second copy.

use std::{
    fs::{self, File},
    io::{self, Read, Write as _},
    os::fd::AsFd as _,
    path::{Component, Path, PathBuf},
};

use berth::api::v1::SaveImageResponse;
use berth_files::{
    kernel::paths,
    pack::{Mounts, Packer},
    tar::{Kind, Reader, Writer},
};

use super::pipe::{self, Sink, Source};
use crate::error::{Error, Result};

/// A layout in the making: under its name when it is whole.
#[derive(Debug)]
pub(super) struct LayoutDir {
    partial: PathBuf,
    path: PathBuf,
}

impl LayoutDir {
    /// `path` has to be new, or an empty directory.
    pub(super) fn create(path: &Path) -> Result<Self> {
        let failed = |e: &io::Error| Error::io(format_args!("make {}", path.display()), e);
        match fs::read_dir(path).map(|mut entries| entries.next().is_none()) {
            Ok(true) => {}
            Ok(false) => return Err(Error::new(format!("{}: the directory is not empty", path.display()))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(failed(&e)),
        }
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.partial", std::process::id()));
        let partial = path.with_file_name(name);
        fs::create_dir(&partial).map_err(|e| failed(&e))?;
        Ok(Self { partial, path: path.to_owned() })
    }

    /// Writes what the engine sends.
    pub(super) async fn receive(self, mut stream: tonic::Streaming<SaveImageResponse>) -> Result<()> {
        let (pieces, queue) = pipe::queue();
        let partial = self.partial.clone();
        let writer = tokio::task::spawn_blocking(move || unpack(Source::new(queue), &partial));
        while let Some(part) = stream.message().await? {
            if pieces.send(part.data).await.is_err() {
                // The writer says why.
                break;
            }
        }
        drop(pieces);
        let written = writer.await.map_err(|e| Error::new(e.to_string()))?;
        written.map_err(|e| Error::io(format_args!("write {}", self.path.display()), &e))?;
        fs::rename(&self.partial, &self.path)
            .map_err(|e| Error::io(format_args!("make {}", self.path.display()), &e))
    }
}

impl Drop for LayoutDir {
    fn drop(&mut self) {
        // After a rename there is none.
        let _ = fs::remove_dir_all(&self.partial);
    }
}

/// A layout has files and directories, under plain names.
fn unpack(source: Source, into: &Path) -> io::Result<()> {
    let mut archive = Reader::new(io::BufReader::with_capacity(256 << 10, source));
    let mut buffer = vec![0; 256 << 10];
    while let Some(entry) = archive.next_entry()? {
        let name = String::from_utf8_lossy(&entry.path).into_owned();
        let plain = Path::new(&name).components().all(|part| matches!(part, Component::Normal(_)));
        if !plain {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("unexpected name {name:?}")));
        }
        let path = into.join(name);
        match entry.kind {
            Kind::Directory => fs::create_dir_all(&path)?,
            Kind::File => {
                let mut file = File::create_new(&path)?;
                loop {
                    let read = archive.read_data(&mut buffer)?;
                    if read == 0 {
                        break;
                    }
                    file.write_all(&buffer[..read])?;
                }
                file.sync_all()?;
            }
            _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "neither a file nor a directory")),
        }
    }
    archive.drain()
}

/// The layout in `path`, to be read as an archive.
pub(super) fn read(path: &Path) -> Result<Box<dyn Read + Send>> {
    let failed = |e: &io::Error| Error::io(format_args!("open {}", path.display()), e);
    let dir = File::open(path).map_err(|e| failed(&e))?;
    if !path.join("index.json").is_file() {
        return Err(Error::new(format!("{}: no OCI image layout: it has no index.json", path.display())));
    }
    let (pieces, queue) = pipe::queue();
    let writer = std::thread::spawn(move || pack(&dir, Sink::new(pieces)));
    Ok(Box::new(Packed { source: Source::new(queue), writer: Some(writer) }))
}

fn pack(dir: &File, sink: Sink) -> io::Result<()> {
    let descriptors = paths::descriptors()?;
    let mut writer = Writer::new(sink);
    let mut packer = Packer::new(&mut writer, descriptors.as_fd(), Mounts::Stay);
    packer.directory(dir.as_fd(), b"").map_err(|e| e.into_parts().1)?;
    writer.finish()?.flush()
}

/// An archive that is being packed. It ends where the packer ended, well or
/// not.
struct Packed {
    source: Source,
    writer: Option<std::thread::JoinHandle<io::Result<()>>>,
}

impl Read for Packed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(buffer)?;
        if read == 0
            && let Some(writer) = self.writer.take()
        {
            writer.join().map_err(|_| io::Error::other("the packer failed"))??;
        }
        Ok(read)
    }
}
