// SPDX-License-Identifier: Apache-2.0
//! Where a copy goes, by what is there and by how both paths end: the rules of
//! `docker cp`, which are nearly those of `cp -a`. Pure.

/// What is at the destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum There {
    /// Nothing, in a directory that exists.
    Nothing,
    /// Something that is no directory.
    File,
    /// A directory.
    Directory,
}

/// What is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// Anything but a directory.
    File,
    /// A directory, with its name.
    Directory,
    /// What is in a directory (`/.` at the end).
    Contents,
}

/// Where it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Into the destination, under its own name.
    Into,
    /// Into the destination, without its top.
    Contents,
    /// As the destination.
    As,
}

/// Why there is no such place. The words are Docker's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// A directory onto a file.
    CannotCopyDirectory,
    /// `name/`, and there is no such directory.
    NoSuchDirectory,
    /// `name/`, and it is a file.
    NotADirectory,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::CannotCopyDirectory => "cannot copy directory",
            Self::NoSuchDirectory => "no such directory",
            Self::NotADirectory => "not a directory",
        })
    }
}

/// Where `what` goes; `slash` says that the destination ends with one.
///
/// # Errors
/// When it can go nowhere.
pub fn place(what: What, there: There, slash: bool) -> Result<Place, Refusal> {
    match (what, there) {
        (What::Contents, There::Directory) => Ok(Place::Contents),
        (_, There::Directory) => Ok(Place::Into),
        (What::Directory | What::Contents, There::File) => Err(Refusal::CannotCopyDirectory),
        (What::File, There::File) if slash => Err(Refusal::NotADirectory),
        (What::File, There::Nothing) if slash => Err(Refusal::NoSuchDirectory),
        (_, There::File | There::Nothing) => Ok(Place::As),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_table() {
        use Place::{As, Contents, Into};
        for (what, there, slash, place_) in [
            (What::File, There::Nothing, false, Ok(As)),
            (What::File, There::Nothing, true, Err(Refusal::NoSuchDirectory)),
            (What::File, There::File, false, Ok(As)),
            (What::File, There::File, true, Err(Refusal::NotADirectory)),
            (What::File, There::Directory, false, Ok(Into)),
            (What::Directory, There::Nothing, false, Ok(As)),
            (What::Directory, There::Nothing, true, Ok(As)),
            (What::Directory, There::File, false, Err(Refusal::CannotCopyDirectory)),
            (What::Directory, There::Directory, false, Ok(Into)),
            (What::Contents, There::Directory, false, Ok(Contents)),
            (What::Contents, There::Nothing, false, Ok(As)),
            (What::Contents, There::File, false, Err(Refusal::CannotCopyDirectory)),
        ] {
            assert_eq!(place(what, there, slash), place_, "{what:?} {there:?} {slash}");
        }
    }
}
