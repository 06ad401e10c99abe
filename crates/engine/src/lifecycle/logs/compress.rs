// SPDX-License-Identifier: Apache-2.0
//! Compresses segments of a log that were closed. Everything here blocks; no
//! container waits for it, and what isn't done is done with the next rotation.

use std::{
    ffi::OsString,
    fs::{self, File, FileTimes},
    io,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

use berth::log;
use flate2::{Compression, write::GzEncoder};

/// Newest segments that stay as they are: the one that is written, and the one
/// before it, which its readers are about to reach.
const PLAIN: usize = 2;

/// Compresses all that can be, the newest first: the oldest may be about to
/// go.
///
/// # Errors
/// Those of the file system.
pub(in crate::lifecycle) fn compress(path: &Path) -> io::Result<()> {
    let found = log::segments(path)?;
    for (number, forms) in found.into_iter().rev().skip(PLAIN).filter(|(_, forms)| forms.plain) {
        if forms.compressed {
            // Cut off between the last two steps.
            remove(&log::segment(path, number))?;
            continue;
        }
        match compress_one(path, number) {
            // The container's own rotation was faster.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            done => done?,
        }
    }
    Ok(())
}

/// A segment keeps its plain name until the compressed one is safe.
fn compress_one(path: &Path, number: u64) -> io::Result<()> {
    let plain = log::segment(path, number);
    let mut source = File::open(&plain)?;
    let metadata = source.metadata()?;
    let mut temporary = OsString::from(path);
    temporary.push(".compressing");
    let mode = metadata.mode() & 0o777;
    let target = File::options().write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
    let mut encoder = GzEncoder::new(target, Compression::fast());
    let compressed = io::copy(&mut source, &mut encoder).and_then(|_| encoder.finish()).and_then(|target| {
        // Its age decides when it is removed.
        target.set_times(FileTimes::new().set_modified(metadata.modified()?))?;
        target.sync_all()?;
        fs::rename(&temporary, log::compressed(path, number))
    });
    if let Err(e) = compressed {
        drop(fs::remove_file(&temporary));
        return Err(e);
    }
    match fs::remove_file(&plain) {
        // The container's own rotation has removed it meanwhile, and doesn't
        // know of the other.
        Err(e) if e.kind() == io::ErrorKind::NotFound => remove(&log::compressed(path, number)),
        removed => removed,
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{io::Read as _, time::Duration};

    #[test]
    fn closed_segments_are_compressed_but_the_last() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("log");
        let long_ago = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        for number in 1..=5 {
            let file = File::create(log::segment(&path, number)).expect("create");
            io::Write::write_all(&mut &file, format!("segment {number}\n").as_bytes()).expect("write");
            file.set_times(FileTimes::new().set_modified(long_ago)).expect("times");
        }
        // One that was cut off in its middle, one that was all but done.
        fs::write(dir.path().join("log.compressing"), "half").expect("write");
        fs::write(log::compressed(&path, 1), "whole").expect("write");
        compress(&path).expect("compress");
        let found: Vec<_> = log::segments(&path).expect("list").into_iter().collect();
        let is_compressed: Vec<_> = found.iter().map(|(n, f)| (*n, f.compressed, f.plain)).collect();
        let expected =
            [(1, true, false), (2, true, false), (3, true, false), (4, false, true), (5, false, true)];
        assert_eq!(is_compressed, expected);
        let file = File::open(log::compressed(&path, 2)).expect("open");
        assert_eq!(file.metadata().and_then(|m| m.modified()).expect("time"), long_ago);
        let mut text = String::new();
        flate2::read::GzDecoder::new(file).read_to_string(&mut text).expect("gzip");
        assert_eq!(text, "segment 2\n");
        assert!(!dir.path().join("log.compressing").exists());
        compress(&dir.path().join("none/log")).expect("nothing to do");
    }
}
