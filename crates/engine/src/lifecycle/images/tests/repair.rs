// SPDX-License-Identifier: Apache-2.0
//! What was damaged is found and put right by pulling again.

use std::{fs, path::PathBuf};

use super::*;
use crate::store;

/// An image that is here, and where its parts are.
struct Here {
    image: Arc<TestImage>,
    server: Server,
    place: Place,
}

impl Here {
    async fn pulled() -> Self {
        let image = hello();
        let server = serving(&image);
        let place = Place::mirrored(&server);
        place.pull(Place::request("hello-world")).await.expect("pull");
        Self { image, server, place }
    }

    fn blob(&self, bytes: &[u8]) -> PathBuf {
        self.place.root.path().join("content/blobs/sha256").join(Digest::of(bytes).hex())
    }

    /// The directory of the layer that has `name`; not one that is on its way
    /// out.
    fn layer(&self, name: &str) -> PathBuf {
        let committed = |c: &rusqlite::Connection| {
            let mut select =
                c.prepare("SELECT dir FROM snapshots WHERE kind = 'committed'").context("prepare")?;
            select.query_map((), |row| row.get::<_, i64>(0)).and_then(Iterator::collect).context("query")
        };
        let rows: Vec<i64> = self.place.db.read(committed).expect("rows");
        let base = self.place.root.path().join("snapshots");
        let mut dirs = rows.into_iter().map(|dir| base.join(dir.to_string()).join("fs"));
        dirs.find(|dir| dir.join(name).exists()).expect("the layer")
    }

    async fn pull(&self, verify: bool) -> Result<Pulled> {
        self.place.pull(PullRequest { verify, ..Place::request("hello-world") }).await
    }

    fn assert_right(&self) {
        for blob in self.image.layers.iter().chain([&self.image.config, &self.image.manifest]) {
            assert!(fs::read(self.blob(blob)).expect("the blob") == *blob);
        }
        assert_eq!(fs::read_to_string(self.layer("hello").join("hello")).expect("read"), "world");
        assert_eq!(fs::read_to_string(self.layer("etc/motd").join("etc/motd")).expect("read"), "hi");
        self.place.assert_nothing_partial();
    }
}

/// What is done to the image, whether a pull finds it without being told to
/// look, and how many requests it takes to put it right.
type Damage = (&'static str, bool, usize, fn(&Here));

const DAMAGE: [Damage; 10] = [
    ("nothing", true, 0, |_| {}),
    ("a blob is gone", true, 1, |here| fs::remove_file(here.blob(&here.image.layers[0])).expect("remove")),
    ("a blob is cut", true, 1, |here| {
        fs::write(here.blob(&here.image.layers[0]), b"x").expect("write");
    }),
    ("a blob has another byte", true, 1, |here| {
        let mut bytes = here.image.layers[0].clone();
        bytes[4] ^= 1;
        fs::write(here.blob(&here.image.layers[0]), bytes).expect("write");
    }),
    ("the manifest is damaged", true, 0, |here| {
        fs::write(here.blob(&here.image.manifest), b"{}").expect("write");
    }),
    ("the configuration is gone", true, 0, |here| {
        fs::remove_file(here.blob(&here.image.config)).expect("remove");
    }),
    ("a layer is gone", true, 0, |here| {
        fs::remove_dir_all(here.layer("hello").parent().expect("parent")).expect("remove");
    }),
    ("a file is gone", false, 0, |here| {
        fs::remove_file(here.layer("hello").join("hello")).expect("remove");
    }),
    ("a file has other content", false, 0, |here| {
        fs::write(here.layer("hello").join("hello"), "wor1d").expect("write");
    }),
    ("layer and blob are gone", true, 1, |here| {
        fs::remove_dir_all(here.layer("hello").parent().expect("parent")).expect("remove");
        fs::remove_file(here.blob(&here.image.layers[0])).expect("remove");
    }),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_finds_what_is_damaged_and_repairs_it() {
    if !rooted() {
        return;
    }
    for (damage, found, blobs, inflict) in DAMAGE {
        for verify in [false, true] {
            if !found && !verify {
                continue;
            }
            let here = Here::pulled().await;
            inflict(&here);
            let before = here.server.requests().len();
            let pulled = here.pull(verify).await.expect(damage);
            let asked = here.server.requests()[before..]
                .iter()
                .filter(|r| {
                    here.image.layers.iter().any(|layer| r.path.ends_with(Digest::of(layer).as_str()))
                })
                .count();
            assert_eq!(asked, blobs, "{damage}");
            assert_eq!(pulled.up_to_date, damage == "nothing", "{damage}, verify: {verify}");
            here.assert_right();
            assert!(here.pull(true).await.expect(damage).up_to_date, "{damage}: nothing is left to do");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_is_in_use_is_left_alone() {
    if !rooted() {
        return;
    }
    let here = Here::pulled().await;
    let resolved = here.place.images.resolve(&Namespace::default(), "hello-world").expect("resolve");
    let container = "c0ffee00c0ffee00";
    let chain = resolved.chain_id.expect("layers");
    here.place.images.snapshots.prepare(container, Some(chain.as_str())).expect("prepare");
    let set = |status: &str| {
        let row = "INSERT OR REPLACE INTO containers
                   (namespace, id, name, created_at, image, image_id, summary, document, status)
                   VALUES ('default', ?1, 'n', 1, 'hello-world', 'x', '{}', '{}', ?2)";
        here.place.db.write(|tx| tx.execute(row, [container, status]).context("insert")).expect("container");
    };
    fs::remove_file(here.layer("hello").join("hello")).expect("remove");
    set("running");
    let error = here.pull(true).await.expect_err("in use");
    assert_eq!(error.kind(), Kind::FailedPrecondition, "{}", error.chain());
    assert!(error.chain().contains("container c0ffee00c0ffee00 runs on it"), "{}", error.chain());
    set("exited");
    let id = here.image.id().to_string();
    let mount =
        store::meta::mounts::Row { path: "/mnt".to_owned(), namespace: "default".to_owned(), image_id: id };
    here.place.db.write(|tx| store::meta::mounts::insert(tx, &mount, "boot")).expect("mount");
    let error = here.pull(true).await.expect_err("mounted");
    assert_eq!(error.kind(), Kind::FailedPrecondition, "{}", error.chain());
    assert!(error.chain().contains("an image with it is mounted at /mnt"), "{}", error.chain());
    here.place.db.write(|tx| store::meta::mounts::delete(tx, "/mnt")).expect("unmount");
    assert!(!here.pull(true).await.expect("repaired").up_to_date);
    here.assert_right();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_is_here_without_its_blob_is_fetched_to_be_handed_on() {
    if !rooted() {
        return;
    }
    // The same layers in another compression came by an archive.
    let image = hello();
    let server = serving(&image);
    let place = Place::mirrored(&server);
    let plain = TestImage {
        layers: vec![tar("hello", "world"), tar("etc/motd", "hi")],
        config: image.config.clone(),
        manifest: Vec::new(),
    };
    load(&place, &docker_archive(&plain)).await.expect("load");
    place.pull(Place::request("hello-world")).await.expect("pull");
    for layer in &image.layers {
        let size = place.images.content.size(&Digest::of(layer)).expect("size");
        assert_eq!(size, Some(layer.len() as u64));
    }
}
