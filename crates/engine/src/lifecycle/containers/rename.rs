// SPDX-License-Identifier: Apache-2.0
//! Giving a container another name: a row and an event, whatever it is doing.

use std::sync::Arc;

use berth::failpoint;

use super::{Containers, create, event};
use crate::{
    domain::record::Record,
    error::{Error, Kind, Result},
    store::meta::{containers as rows, events},
};

impl Containers {
    /// Gives a container the name `name`.
    ///
    /// # Errors
    /// `InvalidArgument` for no name and the one it has, `AlreadyExists`.
    pub async fn rename(self: &Arc<Self>, record: Record, name: String) -> Result<()> {
        self.blocking(move |this| this.rename_now(&record, &name)).await
    }

    fn rename_now(&self, record: &Record, name: &str) -> Result<()> {
        let invalid = |why: &str| Error::new(Kind::InvalidArgument, why);
        let name = create::check_name(name)
            .map_err(explain)?
            .ok_or_else(|| invalid("Neither old nor new names may be empty"))?;
        self.db.write(|tx| {
            let gone = || Error::new(Kind::NotFound, format!("No such container: {}", record.id));
            let mut record = rows::any(tx, &record.id)?.ok_or_else(gone)?;
            if record.name == name.as_str() {
                return Err(invalid("Renaming a container with the same name as its current name"));
            }
            let name = create::vacant(tx, &record.namespace, name.as_str()).map_err(explain)?;
            rows::rename(tx, &record.id, &name)?;
            let old = std::mem::replace(&mut record.name, name);
            events::append(tx, &event(&record, "rename", &[("oldName", format!("/{old}"))]))
        })?;
        failpoint::pass("rename.done");
        self.events.committed();
        Ok(())
    }
}

fn explain(error: Error) -> Error {
    Error::new(error.kind(), "Error when allocating new name").with_source(error.chain())
}
