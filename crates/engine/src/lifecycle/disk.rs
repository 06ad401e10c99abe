// SPDX-License-Identifier: Apache-2.0
//! What the engine's root takes of its disk, and what for. The shares add up
//! to what du(1) says: everything is counted where it lies, and what belongs
//! to nothing else is metadata.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
    sync::Arc,
};

use berth::ids::Namespace;
use berth_files::usage::Usage;
use nix::errno::Errno;
use tokio::task::spawn_blocking;

use super::system::System;
use crate::{
    domain::{record::Record, state::Status},
    error::{Context as _, Result},
    kernel::{fs, paths},
    store::meta::{containers, graph::Graph, images as rows, snapshots},
    store::snapshot::INIT,
};

/// Beginning of the names of a container's log files.
const LOG: &str = "container.log";

/// What a kind of things takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Share {
    /// How many there are.
    pub total: u32,
    /// How many of them are of use.
    pub active: u32,
    /// Bytes on the disk.
    pub size: u64,
    /// What removing all others would free.
    pub reclaimable: u64,
}

/// An image's part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageUsage {
    /// Its id.
    pub id: String,
    /// Bytes of its layers and blobs.
    pub size: u64,
    /// Of these, what other images have as well.
    pub shared: u64,
}

/// A container's part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerUsage {
    /// Its id.
    pub id: String,
    /// Bytes of its writable layer and its directory.
    pub size: u64,
    /// Bytes of its log.
    pub log: u64,
}

/// All of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DiskUsage {
    /// Layers and blobs.
    pub images: Share,
    /// Writable layers, and what else is kept for containers.
    pub containers: Share,
    /// Their logs.
    pub logs: Share,
    /// What is on its way, or was.
    pub partial: Share,
    /// The rest.
    pub metadata: Share,
    /// The sum.
    pub size: u64,
    /// The namespace's images.
    pub image_list: Vec<ImageUsage>,
    /// The namespace's containers.
    pub container_list: Vec<ContainerUsage>,
}

impl System {
    /// Measures the root; the lists are of `namespace`.
    ///
    /// # Errors
    /// Those of the host and of the database.
    pub async fn disk_usage(self: &Arc<Self>, namespace: Namespace) -> Result<DiskUsage> {
        let this = Arc::clone(self);
        spawn_blocking(move || this.measure(&namespace)).await.context("measure the disk")?
    }

    fn measure(&self, namespace: &Namespace) -> Result<DiskUsage> {
        let (graph, containers, used, own_images) = self.db().read(|c| {
            let own: Vec<String> = rows::all(c, namespace.as_str())?.into_iter().map(|row| row.id).collect();
            let mut used = HashSet::new();
            let graph = Graph::read(c)?;
            for id in graph.images.keys() {
                if rows::is_used(c, id)? {
                    used.insert(id.clone());
                }
            }
            Ok((graph, containers::every(c)?, used, own))
        })?;
        let found = Found::look(self.root(), &graph)?;
        let mut usage = found.add_up(&graph, &containers, &used);
        let users = graph.users();
        usage.image_list = own_images.iter().map(|id| found.image(&graph, &users, id)).collect();
        let own = containers.iter().filter(|record| record.namespace == *namespace);
        usage.container_list = own.map(|record| found.container(record)).collect();
        Ok(usage)
    }
}

/// Bytes on the disk, by what they are.
#[derive(Debug, Default)]
struct Found {
    blobs: HashMap<String, u64>,
    /// By the key of the snapshot.
    layers: HashMap<String, u64>,
    /// By container.
    directories: HashMap<String, u64>,
    logs: HashMap<String, u64>,
    partials: u32,
    partial: u64,
    metadata: u64,
}

impl Found {
    fn look(root: &Path, graph: &Graph) -> Result<Self> {
        let mut found = Self::default();
        let mut ruler = Ruler {
            root: File::open(root).with_context(|| format!("open {}", root.display()))?.into(),
            usage: Usage::default(),
        };
        for algorithm in ["sha256", "sha512"] {
            for (name, size) in ruler.children(&format!("content/blobs/{algorithm}"))? {
                found.blobs.insert(format!("{algorithm}:{name}"), size);
            }
        }
        for (_, size) in ruler.children("content/ingest")? {
            found.add_partial(size);
        }
        let rows: HashMap<String, _> =
            graph.snapshots.values().map(|row| (row.dir.to_string(), row)).collect();
        for (name, size) in ruler.children("snapshots")? {
            match rows.get(&name) {
                Some(row) if row.kind != snapshots::PREPARING => {
                    found.layers.insert(row.key.clone(), size);
                }
                // The layer of every container; the rest is on its way in or out.
                _ if name == INIT => found.metadata += size,
                _ => found.add_partial(size),
            }
        }
        for namespace in ruler.names("containers")? {
            for id in ruler.names(&format!("containers/{namespace}"))? {
                for (name, size) in ruler.children(&format!("containers/{namespace}/{id}"))? {
                    let map = if name.starts_with(LOG) { &mut found.logs } else { &mut found.directories };
                    *map.entry(id.clone()).or_default() += size;
                }
            }
        }
        found.metadata += ruler.measure(Path::new("."))?;
        Ok(found)
    }

    fn add_partial(&mut self, size: u64) {
        self.partials += 1;
        self.partial += size;
    }

    fn add_up(&self, graph: &Graph, containers: &[Record], used: &HashSet<String>) -> DiskUsage {
        let is_layer =
            |key: &&String| graph.snapshots.get(*key).is_some_and(|row| row.kind == snapshots::COMMITTED);
        let kept = graph.live(|image| used.contains(image));
        let layers = self.layers.iter().filter(|(key, _)| is_layer(key));
        let mut images = Share {
            total: count(graph.images.len()),
            active: count(used.len()),
            size: layers.clone().map(|(_, size)| size).chain(self.blobs.values()).sum(),
            reclaimable: 0,
        };
        let unused_layers = layers.filter(|(key, _)| !kept.layers.contains(*key)).map(|(_, size)| size);
        let unused_blobs = self.blobs.iter().filter(|(digest, _)| !kept.blobs.contains(*digest));
        images.reclaimable = unused_layers.chain(unused_blobs.map(|(_, size)| size)).sum();

        let at_rest = |record: &&Record| {
            matches!(record.status, Status::Created | Status::Exited) && !record.is_restarting()
        };
        let size_of = |record: &Record| self.container(record).size;
        let log_of = |record: &Record| self.container(record).log;
        let (mut rw, mut logs) = (Share::default(), Share::default());
        (rw.total, logs.total) = (count(containers.len()), count(self.logs.len()));
        rw.size = self.layers.iter().filter(|(key, _)| !is_layer(key)).map(|(_, size)| size).sum::<u64>()
            + self.directories.values().sum::<u64>();
        logs.size = self.logs.values().sum();
        let resting = containers.iter().filter(at_rest);
        rw.active = count(containers.len() - resting.clone().count());
        logs.active = count(
            self.logs.len() - resting.clone().filter(|r| self.logs.contains_key(r.id.as_str())).count(),
        );
        rw.reclaimable = resting.clone().map(size_of).sum();
        logs.reclaimable = resting.map(log_of).sum();

        let partial = Share { total: self.partials, size: self.partial, ..Share::default() };
        let metadata = Share { size: self.metadata, ..Share::default() };
        let size = [&images, &rw, &logs, &partial, &metadata].iter().map(|share| share.size).sum();
        DiskUsage { images, containers: rw, logs, partial, metadata, size, ..DiskUsage::default() }
    }

    fn image(&self, graph: &Graph, users: &HashMap<&str, u32>, id: &str) -> ImageUsage {
        let mut usage = ImageUsage { id: id.to_owned(), size: 0, shared: 0 };
        let layers = graph.layers_of(id).map(|key| (key, self.layers.get(key)));
        let blobs = graph.blobs_of(id).map(|digest| (digest, self.blobs.get(digest)));
        for (name, size) in layers.chain(blobs) {
            let shared = users.get(name).is_some_and(|&users| users > 1);
            usage.size += size.unwrap_or(&0);
            usage.shared += size.filter(|_| shared).unwrap_or(&0);
        }
        usage
    }

    fn container(&self, record: &Record) -> ContainerUsage {
        let id = record.id.as_str();
        let of = |map: &HashMap<String, u64>| map.get(id).copied().unwrap_or(0);
        ContainerUsage {
            id: id.to_owned(),
            size: of(&self.layers) + of(&self.directories),
            log: of(&self.logs),
        }
    }
}

fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// Measures below one directory, everything once.
struct Ruler {
    root: OwnedFd,
    usage: Usage,
}

impl Ruler {
    /// Bytes of what wasn't measured before.
    fn measure(&mut self, path: &Path) -> Result<u64> {
        self.usage
            .add(self.root.as_fd(), path.as_os_str())
            .with_context(|| format!("measure {}", path.display()))
    }

    /// What is in the directory `path`; nothing in one that isn't there.
    fn names(&self, path: &str) -> Result<Vec<String>> {
        let names = match paths::open_dir(self.root.as_fd(), Path::new(path)) {
            Ok(dir) => fs::children(dir.as_fd()),
            Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(Vec::new()),
            Err(e) => Err(e),
        };
        let names = names.with_context(|| format!("list {path}"))?;
        Ok(names.iter().map(|name| name.to_string_lossy().into_owned()).collect())
    }

    fn children(&mut self, path: &str) -> Result<Vec<(String, u64)>> {
        let names = self.names(path)?;
        let mut measured = |name: String| Ok((name.clone(), self.measure(&Path::new(path).join(name))?));
        names.into_iter().map(&mut measured).collect()
    }
}
