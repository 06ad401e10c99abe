// SPDX-License-Identifier: Apache-2.0
//! `berth create`, and what `run` has in common with it: make a container,
//! and fetch its image when it isn't here.

use std::{
    fs::{self, File},
    future::Future,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use berth::api::v1::{ContainerConfig, CreateContainerRequest, CreateContainerResponse};
use tonic::Code;

use super::{
    config::{self, Streams},
    pull::{self, Voice},
};
use crate::{
    cli::create::{Create, Pull},
    context::Context,
    error::{Error, Result},
    output,
    parse::reference::Shown,
};

/// `berth create`.
pub(super) async fn create(connect: impl Future<Output = Result<Context>>, args: Create) -> Result<u8> {
    let work = async {
        let config = config::of(&args, Streams::of(&args))?;
        let container = make(&connect.await?, &args, config).await?;
        output::print(&format!("{}\n", container.id))?;
        Ok(0)
    };
    work.await.map_err(|e: Error| e.of_run("create"))
}

/// Makes the container; pulls its image as `--pull` says.
pub(super) async fn make(
    context: &Context,
    args: &Create,
    config: ContainerConfig,
) -> Result<CreateContainerResponse> {
    let id_file = args.cidfile.as_deref().map(IdFile::reserve).transpose()?;
    if args.pull == Pull::Always {
        fetch(context, args).await?;
    }
    let request = CreateContainerRequest {
        namespace: context.namespace.clone(),
        name: args.name.clone().unwrap_or_default(),
        config: Some(config),
    };
    let mut client = context.client.containers();
    let answer = match client.create(request.clone()).await {
        Err(status) if status.code() == Code::NotFound && args.pull == Pull::Missing => {
            let shown = Shown::of(args.image());
            output::warn(&format!("Unable to find image '{}' locally", shown.familiar));
            fetch(context, args).await?;
            client.create(request).await?
        }
        answer => answer?,
    }
    .into_inner();
    for warning in &answer.warnings {
        output::warn(&format!("WARNING: {warning}"));
    }
    if let Some(file) = id_file {
        file.write(&answer.id)?;
    }
    Ok(answer)
}

async fn fetch(context: &Context, args: &Create) -> Result<()> {
    let voice = if args.quiet { Voice::Silent } else { Voice::Stderr };
    pull::fetch(context, args.image(), args.platform.as_deref(), false, voice).await?;
    Ok(())
}

/// `--cidfile`: reserved before there is an id, gone again without one.
#[derive(Debug)]
struct IdFile {
    path: PathBuf,
    file: Option<File>,
}

impl IdFile {
    fn reserve(path: &Path) -> Result<Self> {
        match File::create_new(path) {
            Ok(file) => Ok(Self { path: path.to_owned(), file: Some(file) }),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Err(Error::new(format!(
                "container ID file found, make sure the other container isn't running or delete {}",
                path.display()
            ))),
            Err(e) => {
                Err(Error::io(format_args!("failed to create the container ID file {}", path.display()), &e))
            }
        }
    }

    fn write(mut self, id: &str) -> Result<()> {
        let Some(mut file) = self.file.take() else { return Ok(()) };
        file.write_all(id.as_bytes())
            .map_err(|e| Error::io(format_args!("failed to write {}", self.path.display()), &e))
    }
}

impl Drop for IdFile {
    fn drop(&mut self) {
        if self.file.is_some() {
            // An empty file would be in the way of the next attempt; that it
            // can't be removed is said by that one.
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_file_is_never_overwritten_and_never_left_empty() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("id");
        drop(IdFile::reserve(&path).expect("reserved"));
        assert!(!path.exists());
        IdFile::reserve(&path).expect("reserved").write("abc").expect("written");
        assert_eq!(fs::read_to_string(&path).expect("read"), "abc");
        let error = IdFile::reserve(&path).expect_err("exists").to_string();
        assert!(error.starts_with("container ID file found"), "{error}");
    }
}
