// SPDX-License-Identifier: Apache-2.0
//! How a layer is compressed, and how it is read. In process, always.

use std::io::{self, BufReader, Read};

use crate::error::{Error, Kind, Result};

/// Input is taken from the source in pieces of this size.
const INPUT: usize = 256 << 10;
/// 2^27 bytes: what the zstd command line takes without being told to.
const MAX_WINDOW_LOG: u32 = 27;

/// The compressions that layers come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// A bare tar archive.
    None,
    /// gzip, of one or several members.
    Gzip,
    /// Zstandard.
    Zstd,
}

impl Compression {
    /// What a layer's media type says.
    ///
    /// # Errors
    /// `InvalidArgument` for a media type that is no layer we know.
    pub fn of_media_type(media_type: &str) -> Result<Self> {
        match media_type {
            "application/vnd.oci.image.layer.v1.tar"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar"
            | "application/vnd.docker.image.rootfs.diff.tar" => Ok(Self::None),
            "application/vnd.oci.image.layer.v1.tar+gzip"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
            | "application/vnd.docker.image.rootfs.diff.tar.gzip"
            | "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip" => Ok(Self::Gzip),
            "application/vnd.oci.image.layer.v1.tar+zstd"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"
            | "application/vnd.docker.image.rootfs.diff.tar.zstd" => Ok(Self::Zstd),
            other => Err(Error::new(
                Kind::InvalidArgument,
                format!("unsupported layer media type {:?}", other.chars().take(100).collect::<String>()),
            )),
        }
    }

    /// What the first bytes say.
    #[must_use]
    pub fn sniff(head: &[u8]) -> Self {
        match head {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            _ => Self::None,
        }
    }

    /// Reads `source` uncompressed.
    ///
    /// # Errors
    /// Those of the decompressor's set-up.
    pub fn reader<'a>(self, source: Box<dyn Read + Send + 'a>) -> io::Result<Box<dyn Read + Send + 'a>> {
        Ok(match self {
            Self::None => source,
            Self::Gzip => {
                Box::new(flate2::bufread::MultiGzDecoder::new(BufReader::with_capacity(INPUT, source)))
            }
            Self::Zstd => {
                let mut decoder = zstd::Decoder::with_buffer(BufReader::with_capacity(INPUT, source))?;
                decoder.window_log_max(MAX_WINDOW_LOG)?;
                Box::new(decoder)
            }
        })
    }
}
