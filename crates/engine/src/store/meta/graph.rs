// SPDX-License-Identifier: Apache-2.0
//! What needs what: images their blobs and layers, containers their layers,
//! layers those below. One reading of the database, then plain memory: what a
//! collection, its dry run and the disk's accounts have in common.

use std::collections::{HashMap, HashSet};

use rusqlite::Connection;

use super::{everything, snapshots};
use crate::error::{Context as _, Result};

/// All images, layers and blobs, and their needs.
#[derive(Debug, Default)]
pub struct Graph {
    /// The top layer of each image.
    pub images: HashMap<String, Option<String>>,
    /// All snapshots by their keys.
    pub snapshots: HashMap<String, snapshots::Row>,
    /// Blobs and their sizes.
    pub blobs: HashMap<String, u64>,
    /// The blobs of each image.
    pub needs: HashMap<String, Vec<String>>,
}

/// What some images and all containers need.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Live {
    /// Keys of layers.
    pub layers: HashSet<String>,
    /// Digests of blobs.
    pub blobs: HashSet<String>,
}

impl Graph {
    /// Reads it.
    ///
    /// # Errors
    /// Those of the database.
    pub fn read(c: &Connection) -> Result<Self> {
        let mut graph = Self::default();
        graph.images.extend(everything::images(c)?.into_iter().map(|image| (image.id, image.chain_id)));
        graph.snapshots.extend(snapshots::all(c)?.into_iter().map(|row| (row.key.clone(), row)));
        graph.blobs.extend(everything::blobs(c)?.into_iter().map(|blob| (blob.digest, blob.size)));
        let needs: Vec<(String, String)> = c
            .prepare_cached("SELECT image_id, digest FROM image_blobs")
            .and_then(|mut select| select.query_map((), |r| Ok((r.get(0)?, r.get(1)?)))?.collect())
            .context("list the blobs of images")?;
        for (image, digest) in needs {
            graph.needs.entry(image).or_default().push(digest);
        }
        Ok(graph)
    }

    /// Keys of the layers of `image`, the top first.
    pub fn layers_of<'a>(&'a self, image: &str) -> impl Iterator<Item = &'a str> {
        self.below(self.images.get(image).and_then(Option::as_deref))
    }

    /// The blobs of `image`.
    pub fn blobs_of(&self, image: &str) -> impl Iterator<Item = &str> {
        self.needs.get(image).into_iter().flatten().map(String::as_str)
    }

    /// `key` and what it stands on.
    fn below<'a>(&'a self, key: Option<&'a str>) -> impl Iterator<Item = &'a str> {
        let mut next = key;
        // A damaged database may lead in a circle.
        std::iter::from_fn(move || {
            let row = self.snapshots.get(next?)?;
            next = row.parent.as_deref();
            Some(row.key.as_str())
        })
        .take(1000)
    }

    /// How many images need each layer and each blob.
    pub fn users(&self) -> HashMap<&str, u32> {
        let mut users = HashMap::new();
        for image in self.images.keys() {
            for name in self.layers_of(image).chain(self.blobs_of(image)) {
                *users.entry(name).or_default() += 1;
            }
        }
        users
    }

    /// What only the images `gone` need: keys of layers, and bytes of their
    /// files and of blobs.
    pub fn without(&self, gone: &HashSet<String>) -> (Vec<String>, u64) {
        let (before, after) = (self.live(|_| true), self.live(|image| !gone.contains(image)));
        let layers: Vec<String> = before.layers.difference(&after.layers).cloned().collect();
        let size = |key: &String| self.snapshots.get(key).map_or(0, |row| row.size);
        let blobs = before.blobs.difference(&after.blobs).filter_map(|digest| self.blobs.get(digest));
        let bytes = layers.iter().map(size).sum::<u64>() + blobs.sum::<u64>();
        (layers, bytes)
    }

    /// What containers need, and the images that `keep` says yes to.
    pub fn live(&self, keep: impl Fn(&str) -> bool) -> Live {
        let mut live = Live::default();
        for image in self.images.keys().filter(|image| keep(image)) {
            live.layers.extend(self.layers_of(image).map(str::to_owned));
            live.blobs.extend(self.blobs_of(image).map(str::to_owned));
        }
        for row in self.snapshots.values().filter(|row| row.kind == snapshots::ACTIVE) {
            live.layers.extend(self.below(row.parent.as_deref()).map(str::to_owned));
        }
        live
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph() -> Graph {
        let layer = |key: &str, parent: Option<&str>, kind: &str| {
            let parent = parent.map(str::to_owned);
            (key.to_owned(), snapshots::Row { dir: 1, key: key.into(), parent, kind: kind.into(), size: 1 })
        };
        Graph {
            images: [("one", "b"), ("two", "c")].map(|(i, l)| (i.to_owned(), Some(l.to_owned()))).into(),
            snapshots: [
                layer("a", None, snapshots::COMMITTED),
                layer("b", Some("a"), snapshots::COMMITTED),
                layer("c", Some("a"), snapshots::COMMITTED),
                layer("box", Some("b"), snapshots::ACTIVE),
            ]
            .into(),
            blobs: [("x".to_owned(), 1), ("y".to_owned(), 2)].into(),
            needs: [("one".to_owned(), vec!["x".to_owned()]), ("two".to_owned(), vec!["y".to_owned()])]
                .into(),
        }
    }

    fn set(names: &[&str]) -> HashSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn what_is_kept_keeps_what_it_needs() {
        let live = graph().live(|image| image == "two");
        assert_eq!(live, Live { layers: set(&["a", "b", "c"]), blobs: set(&["y"]) });
        let mut without = graph();
        without.snapshots.remove("box");
        assert_eq!(without.live(|image| image == "two").layers, set(&["a", "c"]));
        assert_eq!(without.live(|_| false), Live::default());
    }

    #[test]
    fn shared_things_have_several_users() {
        let graph = graph();
        let users = graph.users();
        assert_eq!((users["a"], users["b"], users["x"], users.get("box")), (2, 1, 1, None));
    }

    #[test]
    fn what_only_some_need_goes_with_them() {
        let mut graph = graph();
        graph.snapshots.remove("box");
        assert_eq!(graph.without(&set(&["one"])), (vec!["b".to_owned()], 1 + 1));
        assert_eq!(graph.without(&HashSet::new()), (Vec::new(), 0));
    }

    #[test]
    fn a_circle_has_an_end() {
        let mut graph = graph();
        graph.snapshots.get_mut("a").expect("a").parent = Some("b".into());
        assert_eq!(graph.live(|_| true).layers, set(&["a", "b", "c"]));
    }
}
