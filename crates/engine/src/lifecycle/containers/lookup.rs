// SPDX-License-Identifier: Apache-2.0
//! From what a user wrote to a container: id, name, or the beginning of an id.

use std::sync::Arc;

use berth::ids::Namespace;
use rusqlite::Connection;

use super::Containers;
use crate::{
    domain::{record::Record, state::Status},
    error::{Error, Kind, Result},
    store::meta::containers as rows,
};

/// The container that `reference` stands for.
///
/// # Errors
/// `NotFound`, and `InvalidArgument` for an ambiguous prefix.
pub(super) fn resolve(db: &Connection, namespace: &Namespace, reference: &str) -> Result<Record> {
    let none = || Error::new(Kind::NotFound, format!("No such container: {}", reference.escape_debug()));
    let name = reference.strip_prefix('/').unwrap_or(reference);
    if name.is_empty() {
        return Err(none());
    }
    let found = match rows::get(db, namespace, name)? {
        Some(record) => Some(record),
        None => rows::by_name(db, namespace, name)?,
    };
    let found = match found {
        Some(record) => record,
        None => by_prefix(db, namespace, name)?.ok_or_else(none)?,
    };
    if found.status == Status::Creating { Err(none()) } else { Ok(found) }
}

fn by_prefix(db: &Connection, namespace: &Namespace, prefix: &str) -> Result<Option<Record>> {
    if !prefix.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-')) {
        return Ok(None);
    }
    let mut found = rows::by_prefix(db, namespace, prefix)?;
    if found.len() > 1 {
        let what = format!("multiple IDs found with provided prefix: {prefix}");
        return Err(Error::new(Kind::InvalidArgument, what));
    }
    Ok(found.pop())
}

impl Containers {
    /// The container that `reference` stands for.
    ///
    /// # Errors
    /// `NotFound`, and `InvalidArgument` for an ambiguous prefix.
    pub async fn find(self: &Arc<Self>, namespace: &Namespace, reference: &str) -> Result<Record> {
        let (namespace, reference) = (namespace.clone(), reference.to_owned());
        self.blocking(move |this| this.db.read(|c| resolve(c, &namespace, &reference))).await
    }

    /// The container's record as it is now; `None` when it is gone.
    pub(in crate::lifecycle) async fn reload(self: &Arc<Self>, record: &Record) -> Result<Option<Record>> {
        let (namespace, id) = (record.namespace.clone(), record.id.clone());
        self.blocking(move |this| this.db.read(|c| rows::get(c, &namespace, id.as_str()))).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::{
            container::{Document, Summary},
            restart::Restarts,
            state::Exit,
        },
        store::meta::Db,
    };

    fn record(id: &str, name: &str, status: Status) -> Record {
        Record {
            namespace: Namespace::default(),
            id: id.parse().expect("id"),
            name: name.to_owned(),
            created_at: 1,
            image: "i".to_owned(),
            image_id: "sha256:0".to_owned(),
            summary: Summary::default(),
            status,
            paused: false,
            pid: 0,
            exit: Exit::default(),
            started_at: 0,
            shim: None,
            restarts: Restarts::default(),
            health: None,
        }
    }

    #[test]
    fn an_id_goes_before_a_name_and_a_name_before_a_prefix() {
        let dir = tempfile::tempdir().expect("tempdir");
        let db = Db::open(&dir.path().join("meta.db")).expect("open");
        for row in [
            record("abc1", "first", Status::Created),
            record("abc2", "abc", Status::Exited),
            record("f00d", "abc1", Status::Created),
            record("dead", "ghost", Status::Creating),
        ] {
            db.write(|tx| rows::insert(tx, &row, &Document::default())).expect("insert");
        }
        let find =
            |text: &str| db.read(|c| resolve(c, &Namespace::default(), text)).map(|r| r.id.to_string());
        assert_eq!(find("abc1").expect("id"), "abc1");
        assert_eq!(find("abc").expect("name"), "abc2");
        assert_eq!(find("/first").expect("name"), "abc1");
        assert_eq!(find("f0").expect("prefix"), "f00d");
        let error = find("ab").expect_err("ambiguous");
        assert_eq!(error.to_string(), "multiple IDs found with provided prefix: ab");
        for nobody in ["x", "", "/", "a%", "ghost", "dead", "de", "a\0"] {
            let error = find(nobody).expect_err(nobody);
            assert_eq!(error.kind(), Kind::NotFound);
            assert!(error.to_string().starts_with("No such container: "), "{error}");
        }
    }
}
