// SPDX-License-Identifier: Apache-2.0
//! Layers whose bytes are wrong in some way: by row, what pull, load and
//! import make of each. Nothing of a refused one stays.

use super::*;
use crate::lifecycle::images::import::ImportRequest;

/// An image of one layer, whose blob is `blob` and whose content is said to be
/// `plain`.
fn image(blob: Vec<u8>, media: &str, plain: &[u8]) -> TestImage {
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [Digest::of(plain).to_string()]},
    });
    let config = serde_json::to_vec(&config).expect("json");
    let descriptor = |media_type: &str, bytes: &[u8]| serde_json::json!({"mediaType": media_type, "digest": Digest::of(bytes).as_str(), "size": bytes.len()});
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": [descriptor(&format!("application/vnd.oci.image.layer.v1.tar{media}"), &blob)],
    });
    TestImage { manifest: serde_json::to_vec(&manifest).expect("json"), config, layers: vec![blob] }
}

fn oci_archive(image: &TestImage) -> Vec<u8> {
    let index = documents::index_of(&[documents::entry(&image.manifest, MANIFEST, serde_json::json!(null))]);
    let index = String::from_utf8(index)
        .expect("text")
        .replace(",\"platform\":null", "")
        .replace("\"platform\":null,", "");
    let blob = |bytes: &[u8]| format!("blobs/sha256/{}", Digest::of(bytes).hex());
    archive(&[
        ("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#),
        ("index.json", index.as_bytes()),
        (&blob(&image.manifest), &image.manifest),
        (&blob(&image.config), &image.config),
        (&blob(&image.layers[0]), &image.layers[0]),
    ])
}

/// A member as no library would write it.
fn member(kind: u8, name: &[u8], size: u64, data: &[u8]) -> Vec<u8> {
    let mut header = ::tar::Header::new_gnu();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name);
    header.set_entry_type(::tar::EntryType::new(kind));
    header.set_size(size);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(data);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn plain(kind: u8, name: &[u8], data: &[u8]) -> Vec<u8> {
    member(kind, name, data.len() as u64, data)
}

fn pax(kind: u8, records: &[(&str, &str)]) -> Vec<u8> {
    let record = |(key, value): &(&str, &str)| {
        let rest = format!(" {key}={value}\n");
        let length = (1..).find(|n: &usize| n.to_string().len() + rest.len() == *n).expect("a length");
        format!("{length}{rest}")
    };
    plain(kind, b"pax", records.iter().map(record).collect::<String>().as_bytes())
}

fn whole(members: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = members.concat();
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

fn file() -> Vec<u8> {
    plain(b'0', b"file", b"content")
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).expect("zstd")
}

/// Blob, its compression by name, and the content that the image speaks of.
type Made = (Vec<u8>, &'static str, Vec<u8>);

/// Not compressed, and what it says.
fn bare(plain: Vec<u8>) -> Made {
    (plain.clone(), "", plain)
}

fn changed(mut bytes: Vec<u8>, from_end: usize) -> Vec<u8> {
    let at = bytes.len() - from_end;
    bytes[at] ^= 0x55;
    bytes
}

type Row = (&'static str, fn() -> Made, Option<&'static str>);

const ROWS: [Row; 39] = [
    ("nothing but a trailer", || bare(whole(&[])), None),
    ("no bytes at all", || bare(Vec::new()), None),
    ("a file", || bare(whole(&[file()])), None),
    ("no trailer", || bare(file()), None),
    ("half a trailer", || bare([file(), vec![0; 512]].concat()), None),
    ("a size that is no multiple of 512", || bare(file()[..519].to_vec()), None),
    ("garbage behind the trailer", || bare([whole(&[file()]), vec![b'x'; 777]].concat()), None),
    ("two archives", || bare([whole(&[file()]), whole(&[plain(b'0', b"hidden", b"")])].concat()), None),
    (
        "content after one block of zeros",
        || bare(whole(&[file(), vec![0; 512], file()])),
        Some("single block of zeros"),
    ),
    ("cut in its data", || bare(file()[..515].to_vec()), Some("ends too early")),
    ("cut in a header", || bare(file()[..300].to_vec()), Some("ends too early")),
    (
        "a name of 2 GiB",
        || bare(whole(&[member(b'L', b"long", 1 << 31, b""), file()])),
        Some("extension header too large"),
    ),
    (
        "a million records",
        || bare(whole(&[plain(b'x', b"pax", "6 a=b\n".repeat(1_000_000).as_bytes()), file()])),
        Some("extension header too large"),
    ),
    (
        "a record that lies",
        || bare(whole(&[plain(b'x', b"pax", b"99999999999 path=a\n"), file()])),
        Some("malformed pax record"),
    ),
    (
        "a record without its newline",
        || bare(whole(&[plain(b'x', b"pax", b"8 path=ab"), file()])),
        Some("malformed pax record"),
    ),
    ("a size that shrinks", || bare(whole(&[pax(b'x', &[("size", "0")]), plain(b'0', b"f", &file())])), None),
    (
        "a size that grows",
        || bare(whole(&[pax(b'x', &[("size", "1024")]), member(b'0', b"f", 0, &file())])),
        None,
    ),
    (
        "a size beyond the end",
        || bare(whole(&[pax(b'x', &[("size", "9999")]), file()])),
        Some("ends too early"),
    ),
    (
        "two names",
        || bare(whole(&[pax(b'x', &[("path", "a")]), plain(b'L', b"long", b"b\0"), file()])),
        Some("two names"),
    ),
    (
        "one name in two ways",
        || bare(whole(&[pax(b'x', &[("path", "a")]), plain(b'L', b"long", b"a\0"), file()])),
        None,
    ),
    ("a global name", || bare(whole(&[pax(b'g', &[("path", "../../evil")]), file()])), Some("global header")),
    ("a global comment", || bare(whole(&[pax(b'g', &[("comment", "c")]), file()])), None),
    (
        "a volume's name",
        || bare(whole(&[plain(b'V', b"v", b""), file()])),
        Some("unsupported entry type 'V'"),
    ),
    ("the rest of a file", || bare(whole(&[plain(b'M', b"m", b"")])), Some("unsupported entry type 'M'")),
    ("a dump's directory", || bare(whole(&[plain(b'D', b"d", b"Y\0")])), Some("unsupported entry type 'D'")),
    ("an unknown type", || bare(whole(&[plain(b'?', b"d", b"")])), Some("unsupported entry type '?'")),
    ("a wrong checksum", || bare(changed(whole(&[file()]), 2048 - 3)), Some("checksum is wrong")),
    (
        "a file of 8 EiB",
        || {
            let records = [
                ("GNU.sparse.size", "9223372036854775807"),
                ("GNU.sparse.numblocks", "0"),
                ("GNU.sparse.map", ""),
            ];
            bare(whole(&[pax(b'x', &records), plain(b'0', b"f", b"")]))
        },
        Some("sparse file too large"),
    ),
    ("a member too few of gzip", || (gzip(&whole(&[file()])[..1000]), "+gzip", whole(&[file()])), Some("")),
    ("two members of gzip", || ([gzip(&file()), gzip(&[0; 1024])].concat(), "+gzip", whole(&[file()])), None),
    ("gzip of gzip", || (gzip(&gzip(&whole(&[file()]))), "+gzip", gzip(&whole(&[file()]))), Some("damaged")),
    (
        "garbage behind gzip",
        || ([gzip(&whole(&[file()])), b"garbage".to_vec()].concat(), "+gzip", whole(&[file()])),
        Some("damaged"),
    ),
    (
        "gzip with a wrong checksum",
        || (changed(gzip(&whole(&[file()])), 8), "+gzip", whole(&[file()])),
        Some("damaged"),
    ),
    (
        "gzip with a wrong length",
        || (changed(gzip(&whole(&[file()])), 1), "+gzip", whole(&[file()])),
        Some("damaged"),
    ),
    ("bare, said to be gzip", || (whole(&[file()]), "+gzip", whole(&[file()])), Some("damaged")),
    ("zstd, said to be gzip", || (zstd(&whole(&[file()])), "+gzip", whole(&[file()])), Some("damaged")),
    (
        "frames of zstd that say nothing",
        || {
            let skipped = [&[0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0][..], b"skip"].concat().repeat(50_000);
            ([zstd(&whole(&[file()])), skipped].concat(), "+zstd", whole(&[file()]))
        },
        None,
    ),
    (
        "zstd with a window of 2 GiB",
        // No checksum, no size, a window of 2^31, and one block, the last.
        || {
            (
                [&[0x28, 0xb5, 0x2f, 0xfd, 0, 21 << 3, 0x39, 0, 0][..], b"content"].concat(),
                "+zstd",
                Vec::new(),
            )
        },
        Some("damaged"),
    ),
    (
        "zstd with a dictionary that nobody has",
        || ([&[0x28, 0xb5, 0x2f, 0xfd, 1, 0, 7, 0x39, 0, 0][..], b"content"].concat(), "+zstd", Vec::new()),
        Some("damaged"),
    ),
];

/// What came of a row by one way, and that it is as it should be.
fn judge(row: &str, way: &str, expected: Option<&str>, place: &Place, end: Result<()>) {
    match (end, expected) {
        (Ok(()), None) => {}
        (Err(error), Some(words)) => {
            assert!(
                matches!(error.kind(), Kind::DataLoss | Kind::InvalidArgument),
                "{way}, {row}: {}",
                error.chain()
            );
            assert!(error.chain().contains(words), "{way}, {row}: {}", error.chain());
            assert!(error.chain().len() < 2000, "{way}, {row}: it is said in bounds");
            place.assert_clean();
        }
        (Ok(()), Some(_)) => panic!("{way}, {row}: it was taken"),
        (Err(error), None) => panic!("{way}, {row}: {}", error.chain()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_are_pulled_and_loaded_whole_or_refused() {
    if !rooted() {
        return;
    }
    for (row, make, expected) in ROWS {
        let (blob, media, plain) = make();
        let image = Arc::new(image(blob, media, &plain));
        let server = serving(&image);
        let place = Place::mirrored(&server);
        let pulled = place.pull(Place::request("hello-world")).await;
        judge(row, "pull", expected, &place, pulled.map(drop));
        let place = Place::new(RegistryConfig::default());
        let loaded = load(&place, &oci_archive(&image)).await;
        judge(row, "load", expected, &place, loaded.map(drop));
        place.assert_nothing_partial();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_are_imported_whole_or_refused() {
    if !rooted() {
        return;
    }
    for (row, make, expected) in ROWS {
        let (blob, media, plain) = make();
        // Nobody says how it is compressed, nor what is in it: these are sound.
        let expected = match row {
            "bare, said to be gzip" | "zstd, said to be gzip" | "a member too few of gzip" => None,
            _ => expected,
        };
        let _ = (media, plain);
        let place = Place::new(RegistryConfig::default());
        let mut upload = place.images.upload().await.expect("upload");
        upload.write(&Bytes::from(blob)).await.expect("write");
        let request = ImportRequest {
            namespace: Namespace::default(),
            reference: "imported".to_owned(),
            platform: "linux/amd64".parse::<Platform>().expect("platform"),
            message: String::new(),
            changes: Vec::new(),
        };
        let words = if expected.is_some_and(|words| words == "damaged") { Some("") } else { expected };
        judge(row, "import", words, &place, upload.import(request).await.map(drop));
    }
}

/// Row 12: what there is of a layer up to some point isn't the layer.
#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_is_cut_at_any_kibibyte_is_refused() {
    if !rooted() {
        return;
    }
    let noise = hostile::noise(96 << 10);
    let plain = whole(&[file(), plain(b'0', b"noise", noise.as_bytes()), plain(b'0', b"last", b"")]);
    for (media, blob) in [("", plain.clone()), ("+gzip", gzip(&plain)), ("+zstd", zstd(&plain))] {
        let cuts = (0..blob.len()).step_by(1024);
        let images: Vec<_> = cuts.map(|cut| image(blob[..cut].to_vec(), media, &plain)).collect();
        let images = Arc::new(images);
        let served = Arc::clone(&images);
        let server = Server::start(move |request| {
            let tag = request.path.rsplit_once("/manifests/").and_then(|(_, tag)| tag.parse::<usize>().ok());
            match tag {
                Some(number) => served[number].answer(&request.path),
                None => {
                    let mut answers = served.iter().map(|image| image.answer(&request.path));
                    answers.find(Reply::is_good).unwrap_or_else(|| Reply::status(404))
                }
            }
        });
        let place = Place::mirrored(&server);
        assert!(images.len() > 60, "{} cuts", images.len());
        for (number, image) in images.iter().enumerate() {
            let pulled = place.pull(Place::request(&format!("hello-world:{number}"))).await.map(drop);
            let loaded = load(&place, &oci_archive(image)).await.map(drop);
            for (way, end) in [("pull", pulled), ("load", loaded)] {
                let error = end.expect_err("a layer that isn't whole");
                assert_eq!(error.kind(), Kind::DataLoss, "{way}, {media} {number}: {}", error.chain());
            }
        }
        place.assert_clean();
        place.assert_nothing_partial();
    }
}

/// Ten gibibytes of zeros are a few hundred kilobytes of zstd.
#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_unfolds_without_end_is_stopped() {
    if !rooted() {
        return;
    }
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).expect("zstd");
    encoder.write_all(&whole(&[file()])).expect("zstd");
    std::io::copy(&mut std::io::Read::take(std::io::repeat(0), 1 << 30), &mut encoder).expect("zstd");
    let blob = encoder.finish().expect("zstd");
    assert!(blob.len() < 200_000, "{}", blob.len());
    let image = Arc::new(image(blob, "+zstd", b""));
    let server = serving(&image);
    let place = Place::mirrored(&server);
    let pulled = place.pull(Place::request("hello-world")).await;
    judge("a bomb", "pull", Some("unfolds to more than"), &place, pulled.map(drop));
    let place = Place::new(RegistryConfig::default());
    let loaded = load(&place, &oci_archive(&image)).await;
    judge("a bomb", "load", Some("unfolds to more than"), &place, loaded.map(drop));
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_holes_of_an_archive_of_images_are_bounded() {
    let long = "n".repeat(5000);
    let holes = [("GNU.sparse.size", "5"), ("GNU.sparse.numblocks", "1"), ("GNU.sparse.map", "0,5")];
    let many = |n: usize| {
        [pax(b'x', &[("path", &format!("{n}{}", "/name".repeat(800)))]), plain(b'0', b"f", b"")].concat()
    };
    for (row, bytes, words) in [
        (
            "a long name",
            whole(&[pax(b'x', &[("path", &long)]), plain(b'0', b"f", b"")]),
            "names that are too long",
        ),
        (
            "a long link",
            whole(&[pax(b'x', &[("linkpath", &long)]), plain(b'2', b"f", b"")]),
            "names that are too long",
        ),
        ("many names", whole(&(0..9000).map(many).collect::<Vec<_>>()), "names that are too long"),
        (
            "holes",
            whole(&[pax(b'x', &holes), plain(b'0', b"manifest.json", b"[{}]\n")]),
            "\"manifest.json\" has holes",
        ),
        ("a name that leads out", whole(&[plain(b'0', b"../index.json", b"")]), "leads out of it"),
        ("nothing", whole(&[]), "neither manifest.json nor index.json"),
    ] {
        let place = Place::new(RegistryConfig::default());
        let error = load(&place, &gzip(&bytes)).await.expect_err(row);
        assert_eq!(error.kind(), Kind::InvalidArgument, "{row}: {}", error.chain());
        assert!(error.chain().contains(words), "{row}: {}", error.chain());
        place.assert_clean();
    }
}
