// SPDX-License-Identifier: Apache-2.0
//! Images made in memory, from the host's busybox, its bash, or the bundled
//! hello-world; written as archives or pushed to a registry.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tar::{EntryType, Header};

use super::command::sh;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A whole image: every blob, and the manifest on top.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    /// Configuration and compressed layers, by digest.
    blobs: BTreeMap<String, Vec<u8>>,
    manifest: Vec<u8>,
    /// An index with the manifest in it, where the image has one.
    index: Option<Vec<u8>>,
    config: String,
    layers: Vec<String>,
}

impl Image {
    /// Debian's static busybox with all its names, some users and /tmp.
    pub(crate) fn busybox() -> Self {
        Self::busybox_with(json!({"Cmd": ["sh"]}))
    }

    /// Two layers of 2 MiB that don't compress.
    pub(crate) fn noisy() -> Self {
        let layers = [1_u32, 2].map(|seed| {
            let mut state = seed;
            let next = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                state.to_be_bytes()[0]
            };
            let mut layer = Layer::new();
            let noise: Vec<u8> = std::iter::repeat_with(next).take(2 << 20).collect();
            layer.file(&format!("noise{seed}"), 0o644, &noise);
            layer
        });
        layers.into_iter().fold(Builder::new(), Builder::layer).build()
    }

    /// Busybox with another configuration (`Env` is added).
    pub(crate) fn busybox_with(config: Value) -> Self {
        Builder::new().layer(busybox_layer()).config(config).build()
    }

    /// Something like Debian's image: bash and a few programs with their
    /// libraries, from this host.
    pub(crate) fn debian() -> Self {
        let mut layer = Layer::new();
        for dir in ["bin/", "usr/", "usr/bin/", "tmp/", "root/", "etc/"] {
            layer.dir(dir, if dir == "tmp/" { 0o1777 } else { 0o755 });
        }
        let mut libraries = BTreeMap::new();
        for program in ["bash", "cat", "env", "id", "ls", "sleep", "stty", "uname"] {
            let source = PathBuf::from("/bin").join(program);
            layer.host_file(&format!("bin/{program}"), &source);
            for word in sh("ldd", &[source.to_str().expect("UTF-8")]).split_whitespace() {
                if word.starts_with('/') {
                    libraries.insert(word.to_owned(), ());
                }
            }
        }
        layer.symlink("bin/sh", "bash");
        for library in libraries.into_keys() {
            layer.host_file(library.trim_start_matches('/'), Path::new(&library));
        }
        layer.file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/bash\n");
        Builder::new().layer(layer).config(json!({"Cmd": ["bash"]})).build()
    }

    /// The bundled hello-world, built by its own script, and its greeting.
    pub(crate) fn hello_world() -> (Self, String) {
        let dir = tempfile::tempdir().expect("tempdir");
        let archive = hello_world_archive(dir.path());
        let image = Self::read(&archive);
        let layer = &image.blobs[&image.layers[0]];
        tar::Archive::new(GzDecoder::new(&layer[..])).unpack(dir.path()).expect("unpack");
        let greeting = sh(dir.path().join("hello").to_str().expect("UTF-8"), &[]);
        (image, greeting)
    }

    /// Configuration and layers, by digest.
    pub(crate) fn blobs(&self) -> impl Iterator<Item = (&String, &Vec<u8>)> {
        self.blobs.iter()
    }

    /// What an index on top needs to be there first: digest, type, bytes.
    pub(crate) fn manifests(&self) -> Vec<(String, &'static str, &[u8])> {
        self.index.iter().map(|_| (digest(&self.manifest), MANIFEST, &self.manifest[..])).collect()
    }

    /// What a tag stands for: digest, type, bytes.
    pub(crate) fn top(&self) -> (&'static str, &[u8]) {
        match &self.index {
            Some(index) => (INDEX, index),
            None => (MANIFEST, &self.manifest),
        }
    }

    /// Digest of what a tag stands for.
    pub(crate) fn digest(&self) -> String {
        digest(self.top().1)
    }

    /// Digest of the configuration: the image's id.
    pub(crate) fn config_digest(&self) -> &str {
        &self.config
    }

    /// Digests of the compressed layers, the base first.
    pub(crate) fn layers(&self) -> &[String] {
        &self.layers
    }

    /// An archived OCI layout that holds it as `name` (fully qualified).
    pub(crate) fn oci_archive(&self, name: &str) -> Vec<u8> {
        let (media_type, top) = self.top();
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [{
            "mediaType": media_type, "digest": digest(top), "size": top.len(),
            "annotations": {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name},
        }]});
        let mut archive = Layer::new();
        archive.file("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#);
        archive.file("index.json", 0o644, index.to_string().as_bytes());
        let documents = [Some(&self.manifest), self.index.as_ref()];
        let documents = documents.into_iter().flatten().map(|bytes| (digest(bytes), bytes));
        for (name, bytes) in self.blobs.iter().map(|(d, b)| (d.clone(), b)).chain(documents) {
            archive.file(&format!("blobs/{}", name.replace(':', "/")), 0o644, bytes);
        }
        archive.finish()
    }

    /// An archive as `docker save` wrote it before it knew OCI layouts.
    pub(crate) fn docker_archive(&self, tag: &str) -> Vec<u8> {
        let config = format!("{}.json", self.config.trim_start_matches("sha256:"));
        let names: Vec<_> = (0..self.layers.len()).map(|n| format!("layer{n}/layer.tar")).collect();
        let mut archive = Layer::new();
        archive.file(&config, 0o644, &self.blobs[&self.config]);
        for (name, layer) in names.iter().zip(&self.layers) {
            let mut plain = Vec::new();
            GzDecoder::new(&self.blobs[layer][..]).read_to_end(&mut plain).expect("gunzip");
            archive.file(name, 0o644, &plain);
        }
        let manifest = json!([{"Config": config, "RepoTags": [tag], "Layers": names}]);
        archive.file("manifest.json", 0o644, manifest.to_string().as_bytes());
        archive.finish()
    }

    /// Reads an archived OCI layout with one image.
    fn read(archive: &Path) -> Self {
        let mut files = BTreeMap::new();
        let mut archive = tar::Archive::new(fs::File::open(archive).expect("open"));
        for entry in archive.entries().expect("entries") {
            let mut entry = entry.expect("entry");
            let path = entry.path().expect("path").to_string_lossy().into_owned();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).expect("read");
            files.insert(path, bytes);
        }
        let parse = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).expect("JSON");
        let text = |value: &Value| value.as_str().expect("a string").to_owned();
        let blob = |digest: &str| files[&format!("blobs/{}", digest.replace(':', "/"))].clone();
        let index = parse(&files["index.json"]);
        let manifest = blob(&text(&index["manifests"][0]["digest"]));
        let content = parse(&manifest);
        let config = text(&content["config"]["digest"]);
        let layers: Vec<_> =
            content["layers"].as_array().expect("layers").iter().map(|l| text(&l["digest"])).collect();
        let blobs = layers.iter().chain([&config]).map(|d| (d.clone(), blob(d))).collect();
        Self { blobs, manifest, index: None, config, layers }
    }
}

/// Builds images/hello-world into `dir`.
pub(crate) fn hello_world_archive(dir: &Path) -> PathBuf {
    let archive = dir.join("hello-world.tar");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/images/hello-world/build.sh");
    let status = Command::new(script).arg(&archive).status().expect(script);
    assert!(status.success(), "{script}: {status}");
    archive
}

/// An image in the making.
pub(crate) struct Builder {
    /// What is in each, by digest, and its blob.
    layers: Vec<(String, Vec<u8>)>,
    config: Value,
    architecture: String,
    in_index: bool,
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Builder {
    /// Without layers, for this machine.
    pub(crate) fn new() -> Self {
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        Self { layers: vec![], config: json!({}), architecture: architecture.to_owned(), in_index: false }
    }

    /// Adds a layer on top.
    pub(crate) fn layer(self, layer: Layer) -> Self {
        let plain = layer.finish();
        self.compressed(digest(&plain), gzip(&plain))
    }

    /// Adds a layer that is compressed already, whose content has, or is said to
    /// have, the digest `diff_id`.
    pub(crate) fn compressed(mut self, diff_id: String, blob: Vec<u8>) -> Self {
        self.layers.push((diff_id, blob));
        self
    }

    /// Sets what the image's `config` says, in the specification's names.
    pub(crate) fn config(mut self, config: Value) -> Self {
        self.config = config;
        self
    }

    /// Claims to be for another machine, and says so in an index.
    pub(crate) fn for_architecture(mut self, architecture: &str) -> Self {
        architecture.clone_into(&mut self.architecture);
        self.in_index = true;
        self
    }

    /// Packs it.
    pub(crate) fn build(self) -> Image {
        let mut blobs = BTreeMap::new();
        let mut store = |bytes: Vec<u8>| {
            let (name, size) = (digest(&bytes), bytes.len());
            blobs.insert(name.clone(), bytes);
            (name, size)
        };
        let (mut diff_ids, mut layers) = (vec![], vec![]);
        for (diff_id, blob) in self.layers {
            diff_ids.push(diff_id);
            layers.push(store(blob));
        }
        let mut config = self.config;
        let env = config.as_object_mut().expect("an object").entry("Env").or_insert_with(|| json!([]));
        env.as_array_mut().expect("a list").insert(0, json!(PATH));
        let document = json!({
            "created": "2024-05-06T07:08:09Z", "architecture": self.architecture, "os": "linux",
            "config": config, "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let (config, size) = store(document.to_string().into_bytes());
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, "digest": config, "size": size},
            "layers": layers.iter().map(|(d, s)| json!({"mediaType": LAYER, "digest": d, "size": s})).collect::<Vec<_>>(),
        })
        .to_string()
        .into_bytes();
        let index = self.in_index.then(|| {
            json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [{
                "mediaType": MANIFEST, "digest": digest(&manifest), "size": manifest.len(),
                "platform": {"architecture": self.architecture, "os": "linux"},
            }]})
            .to_string()
            .into_bytes()
        });
        Image { blobs, manifest, index, config, layers: layers.into_iter().map(|(d, _)| d).collect() }
    }
}

/// A tar in the making.
pub(crate) struct Layer(tar::Builder<Vec<u8>>);

impl std::fmt::Debug for Layer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Layer")
    }
}

impl Layer {
    /// An empty one.
    pub(crate) fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    /// A directory; `path` is relative.
    pub(crate) fn dir(&mut self, path: &str, mode: u32) {
        self.entry(path, mode, 0, EntryType::Directory, b"");
    }

    /// A file of root.
    pub(crate) fn file(&mut self, path: &str, mode: u32, bytes: &[u8]) {
        self.entry(path, mode, 0, EntryType::Regular, bytes);
    }

    /// A directory of user and group `id`.
    pub(crate) fn dir_of(&mut self, path: &str, mode: u32, id: u64) {
        self.entry(path, mode, id, EntryType::Directory, b"");
    }

    /// A symbolic link.
    pub(crate) fn symlink(&mut self, path: &str, target: &str) {
        let mut header = header(0o777, 0, EntryType::Symlink, 0);
        self.0.append_link(&mut header, path, target).expect("append");
    }

    /// The contents and mode of a file of this host.
    pub(crate) fn host_file(&mut self, path: &str, source: &Path) {
        let bytes = fs::read(source).unwrap_or_else(|e| panic!("{}: {e}", source.display()));
        let mode = fs::metadata(source).expect("stat").permissions().mode() & 0o777;
        self.file(path, mode, &bytes);
    }

    /// Whatever else an archive can have.
    pub(crate) fn raw(&mut self) -> &mut tar::Builder<Vec<u8>> {
        &mut self.0
    }

    fn entry(&mut self, path: &str, mode: u32, id: u64, kind: EntryType, bytes: &[u8]) {
        let mut header = header(mode, id, kind, bytes.len());
        self.0.append_data(&mut header, path, bytes).expect("append");
    }

    /// The tar.
    pub(crate) fn finish(self) -> Vec<u8> {
        self.0.into_inner().expect("a tar")
    }
}

fn header(mode: u32, id: u64, kind: EntryType, size: usize) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(id);
    header.set_gid(id);
    header.set_mtime(1_700_000_000);
    header.set_size(size as u64);
    header
}

/// What [`Image::busybox`] consists of.
pub(crate) fn busybox_layer() -> Layer {
    let mut layer = Layer::new();
    for dir in ["bin/", "etc/", "root/", "home/", "usr/", "usr/bin/"] {
        layer.dir(dir, 0o755);
    }
    layer.dir("tmp/", 0o1777);
    layer.dir_of("home/app/", 0o755, 1000);
    let busybox = sh("sh", &["-c", "command -v busybox"]);
    layer.host_file("bin/busybox", Path::new(busybox.trim()));
    for applet in sh("busybox", &["--list"]).lines().filter(|a| *a != "busybox") {
        layer.symlink(&format!("bin/{applet}"), "busybox");
    }
    layer.file(
        "etc/passwd",
        0o644,
        b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
    );
    layer.file("etc/group", 0o644, b"root:x:0:\napp:x:1000:\naudio:x:29:app\nnogroup:x:65534:\n");
    layer.file("etc/readable", 0o644, b"not a program\n");
    layer
}

/// Fast rather than small: it is unpacked a moment later.
fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("gzip in memory")
}

/// `sha256:…` of `bytes`.
pub(crate) fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}
