// SPDX-License-Identifier: Apache-2.0
//! The architecture as rules that the sources are held to.
//!
//! Each rule is a function from a source file to its breaches. Two tests per
//! rule: the repository keeps it, and a made-up file that breaks it is caught.
//! What the rules are for is in ARCHITECTURE.md.

#[path = "architecture/source.rs"]
mod source;

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use source::Source;

/// Who may name whom: a module, and the modules (or items) of its crate that it
/// may name besides itself. A crate's root (`lib.rs`, `main.rs`) may name all.
type Layers = &'static [(&'static str, &'static [&'static str])];

const PLAIN: [&str; 3] = ["config", "domain", "error"];

/// api → lifecycle → {image, store, net, shim} → kernel.
const ENGINE: Layers = &[
    ("daemon", &["api", "lifecycle", "image", "store", "net", "shim", "kernel", "domain", "error", "config"]),
    ("api", &["lifecycle", "domain", "error", "config"]),
    ("lifecycle", &["image", "store", "net", "shim", "kernel", "domain", "error", "config"]),
    ("image", &["kernel", "domain", "error", "config"]),
    ("store", &["kernel", "domain", "error", "config"]),
    ("net", &["kernel", "domain", "error", "config"]),
    ("shim", &["kernel", "domain", "error", "config"]),
    ("kernel", &PLAIN),
    ("domain", &["error"]),
    ("config", &["domain", "error"]),
    ("error", &[]),
];

/// boot → serve → supervisor → {runtime, io} → cgroup → kernel; `oci` is the
/// other program, on the same {runtime, io}. `runtime` and
/// `init` are the two sides of a clone, parent and child: one layer. A kernel
/// object's errors are the runtime's.
const SHIM: Layers = &[
    ("boot", &["serve", "files", "supervisor", "runtime", "io", "cgroup", "kernel"]),
    ("files", &["runtime", "init::overlay", "kernel"]),
    ("serve", &["supervisor", "runtime", "io", "kernel"]),
    ("oci", &["runtime", "init::passwd", "io", "cgroup", "kernel"]),
    ("supervisor", &["runtime", "io", "cgroup::Placement", "kernel"]),
    ("io", &["kernel"]),
    ("runtime", &["init", "cgroup", "kernel"]),
    ("init", &["runtime", "kernel"]),
    ("cgroup", &["runtime::Error", "runtime::Kind", "runtime::Result", "kernel"]),
    ("kernel", &[]),
];

/// command → session → terminal → output → parse.
const CTL: Layers = &[
    ("command", &["cli", "auth", "context", "session", "terminal", "output", "parse", "error", "kernel"]),
    ("auth", &["parse", "error"]),
    ("session", &["context", "terminal", "output", "parse", "error", "kernel"]),
    ("context", &["error"]),
    ("terminal", &["output", "parse", "error", "kernel"]),
    ("output", &["parse", "error"]),
    ("cli", &["parse", "error", "session::detach::Keys"]),
    ("parse", &["error"]),
    ("kernel", &["error"]),
    ("error", &[]),
];

/// extract, pack → walk, make → name, tar → kernel.
const FILES: Layers = &[
    ("extract", &["walk", "make", "name", "tar", "kernel", "error", "pack"]),
    ("pack", &["make", "name", "tar", "kernel", "error"]),
    ("walk", &["name", "kernel", "error"]),
    ("usage", &["kernel"]),
    ("make", &["tar", "kernel", "error"]),
    ("place", &[]),
    ("name", &["error"]),
    ("tar", &[]),
    ("kernel", &[]),
    ("error", &[]),
];

/// Crates of this workspace that a package must not name.
const STRANGERS: [(&str, &[&str]); 6] = [
    ("", &["berth_engine", "berth_shim", "berth_ctl", "berth_seccomp", "berth_files"]),
    ("crates/engine", &["berth_shim", "berth_ctl"]),
    ("crates/shim", &["berth_engine", "berth_ctl", "tonic"]),
    ("crates/ctl", &["berth_engine", "berth_shim", "berth_seccomp"]),
    ("crates/seccomp", &["berth", "berth_engine", "berth_shim", "berth_ctl", "berth_files"]),
    ("crates/files", &["berth", "berth_engine", "berth_shim", "berth_ctl", "berth_seccomp"]),
];

/// Lines of a file that are not tests.
const MAX_LINES: usize = 600;

/// A rule that was broken, as it's printed.
#[derive(Debug, PartialEq, Eq)]
struct Breach {
    file: String,
    line: usize,
    what: String,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.what)
    }
}

fn breach(source: &Source, line: usize, what: impl Into<String>) -> Breach {
    Breach { file: source.file.clone(), line, what: what.into() }
}

// --- the rules ---

fn layers_of(package: &str) -> Layers {
    match package {
        "crates/engine" => ENGINE,
        "crates/shim" => SHIM,
        "crates/ctl" => CTL,
        "crates/files" => FILES,
        _ => &[],
    }
}

/// A module names only the layers below it.
fn layering(source: &Source) -> Vec<Breach> {
    let layers = layers_of(source.package());
    let module = source.module();
    let Some(here) = module.first().filter(|m| *m != "bin").filter(|_| !layers.is_empty()) else {
        return Vec::new();
    };
    let Some((_, allowed)) = layers.iter().find(|(name, _)| name == here) else {
        return vec![breach(source, 1, format!("module {here} has no place in tests/architecture.rs"))];
    };
    let is_module = |name: &str| layers.iter().any(|(module, _)| *module == name);
    let is_allowed = |path: &[String]| {
        let is_within = |entry: &&str| entry.split("::").zip(path).all(|(a, b)| a == b);
        path[0] == *here
            || allowed.iter().any(|entry| entry.split("::").count() <= path.len() && is_within(entry))
    };
    source
        .paths
        .iter()
        .filter_map(|path| path.segments.split_first().map(|(root, below)| (root, below, path.line)))
        .filter(|(root, below, _)| *root == "crate" && below.first().is_some_and(|name| is_module(name)))
        .filter(|(_, below, _)| !is_allowed(below))
        .map(|(_, below, line)| breach(source, line, format!("{here} names {}", below.join("::"))))
        .collect()
}

/// The facades (`api/berth`, `api/containerd`, …) don't know each other; what
/// they share is in a file directly below `api/`.
fn facades_apart(source: &Source) -> Vec<Breach> {
    const FACADES: [&str; 4] = ["berth", "containerd", "cri", "docker"];
    let module = source.module();
    let here = match (source.package(), &module[..]) {
        ("crates/engine", [api, facade, ..]) if api == "api" && FACADES.contains(&facade.as_str()) => facade,
        _ => return Vec::new(),
    };
    let other = |path: &source::Path| match &path.segments[..] {
        [root, api, facade, ..] if root == "crate" && api == "api" => {
            (facade != here && FACADES.contains(&facade.as_str())).then(|| facade.clone())
        }
        _ => None,
    };
    let named = source.paths.iter().filter_map(|path| Some((other(path)?, path.line)));
    named.map(|(facade, line)| breach(source, line, format!("facade {here} names facade {facade}"))).collect()
}

/// The programs meet in the contract (the root package) only.
fn programs_apart(source: &Source) -> Vec<Breach> {
    if !source.file.contains("src/") {
        return Vec::new();
    }
    let strangers =
        STRANGERS.iter().find(|(package, _)| *package == source.package()).map_or(&[][..], |s| s.1);
    let first = source.paths.iter().map(|path| (&path.segments[0], path.line));
    first
        .filter(|(name, _)| strangers.contains(&name.as_str()))
        .map(|(name, line)| breach(source, line, format!("names the crate {name}")))
        .collect()
}

/// `unsafe` is below `kernel/` and nowhere else; nothing switches the lint off
/// elsewhere either.
fn unsafe_in_kernel(source: &Source) -> Vec<Breach> {
    if source.module().iter().any(|m| m == "kernel") {
        return Vec::new();
    }
    let unsafe_words = source.words.iter().filter(|w| w.text == "unsafe" || w.text == "unsafe_code");
    unsafe_words.map(|w| breach(source, w.line, "unsafe code outside kernel/")).collect()
}

/// D1: where an image chose the names, no path is resolved but by the one
/// primitive in `kernel/`. So the runtime and its init know no function of
/// the standard library that takes a path.
fn no_path_functions(source: &Source) -> Vec<Breach> {
    const MODULES: [&str; 2] = ["runtime", "init"];
    const OPENERS: [&str; 4] = ["open", "create", "create_new", "options"];
    const METHODS: [&str; 10] = [
        "canonicalize",
        "exists",
        "is_dir",
        "is_file",
        "is_symlink",
        "read_dir",
        "read_link",
        "symlink_metadata",
        "try_exists",
        "set_current_dir",
    ];
    let module = source.module();
    if source.package() != "crates/shim" || !module.first().is_some_and(|m| MODULES.contains(&m.as_str())) {
        return Vec::new();
    }
    let by_path = source.paths.iter().filter(|path| {
        let names: Vec<&str> = path.segments.iter().map(String::as_str).collect();
        match names[..] {
            // A File that was made from a descriptor is fine.
            ["std", "fs"] | ["std", "fs", "File"] => false,
            ["std", "fs", "File", function, ..] => OPENERS.contains(&function),
            ["std" | "tokio", "fs", ..] => true,
            _ => false,
        }
    });
    let by_path = by_path.map(|path| (path.segments.join("::"), path.line));
    let methods = source.words.iter().filter(|w| w.member && METHODS.contains(&w.text.as_str()));
    let methods = methods.map(|w| (w.text.clone(), w.line));
    by_path
        .chain(methods)
        .map(|(what, line)| breach(source, line, format!("{what} resolves a path: use kernel::paths (D1)")))
        .collect()
}

/// D5: procfs is opened by the one module that knows it to be one. Elsewhere
/// its names are only said, or given to the kernel to look up.
fn proc_is_verified(source: &Source) -> Vec<Breach> {
    const NAMED: [&str; 9] = [
        "boot/start.rs",
        "files/root.rs",
        "init/dev.rs",
        "init/overlay.rs",
        "kernel/error.rs",
        "kernel/identity.rs",
        "kernel/procfs.rs",
        "kernel/socket.rs",
        "oci/notify.rs",
    ];
    let Some(file) = source.file.strip_prefix("crates/shim/src/") else { return Vec::new() };
    if NAMED.contains(&file) {
        return Vec::new();
    }
    let code = source.text.lines().zip(1..).take_while(|(line, _)| line.trim() != "#[cfg(test)]");
    let opened = code.filter(|(line, _)| line.contains("\"/proc/self") || line.contains("\"/proc/{"));
    opened.map(|(_, line)| breach(source, line, "names a path of procfs: use kernel::Procfs (D5)")).collect()
}

/// The shim has one thread, so that it may clone at any moment.
fn shim_has_one_thread(source: &Source) -> Vec<Breach> {
    const WORDS: [&str; 4] = ["spawn_blocking", "block_in_place", "new_multi_thread", "rayon"];
    if source.package() != "crates/shim" {
        return Vec::new();
    }
    let words = source.words.iter().filter(|w| WORDS.contains(&w.text.as_str())).map(|w| (&w.text, w.line));
    let starts_thread = |p: &&source::Path| {
        let names: Vec<&str> = p.segments.iter().map(String::as_str).collect();
        matches!(names[..], ["std", "thread", "spawn" | "scope" | "Builder", ..] | ["tokio", "fs", ..])
    };
    let threads =
        source.paths.iter().filter(starts_thread).filter_map(|p| Some((p.segments.last()?, p.line)));
    words.chain(threads).map(|(what, line)| breach(source, line, format!("{what} starts a thread"))).collect()
}

/// First the licence, then what the file is about.
fn header(source: &Source) -> Vec<Breach> {
    let mut lines = source.text.lines();
    if lines.next() != Some("// SPDX-License-Identifier: Apache-2.0") {
        return vec![breach(source, 1, "the first line is not the SPDX line")];
    }
    match lines.find(|line| !line.is_empty() && !line.starts_with("#![")) {
        Some(line) if line.starts_with("//!") => Vec::new(),
        _ => vec![breach(source, 2, "no //! header below the SPDX line")],
    }
}

/// A file that is too long holds more than one concept.
fn length(source: &Source) -> Vec<Breach> {
    let lines = source.text.lines().count() - source.test_lines;
    let is_test = source.file.contains("tests/") || source.file.ends_with("tests.rs");
    if is_test || lines <= MAX_LINES {
        return Vec::new();
    }
    vec![breach(source, 1, format!("{lines} lines without tests, at most {MAX_LINES}"))]
}

/// anyhow is for the command line: an engine's errors have kinds.
fn errors_have_kinds(source: &Source) -> Vec<Breach> {
    if !source.file.contains("src/") || source.package() == "crates/ctl" {
        return Vec::new();
    }
    let named = source.paths.iter().filter(|path| path.segments[0] == "anyhow");
    named.map(|path| breach(source, path.line, "anyhow outside the command line")).collect()
}

/// Names in `[workspace.dependencies]`, but for our own, that `deny.toml` gives
/// no reason for.
fn unexplained(cargo_toml: &str, deny_toml: &str) -> Vec<String> {
    let table = cargo_toml.lines().skip_while(|line| *line != "[workspace.dependencies]").skip(1);
    let names = table.take_while(|line| !line.starts_with('[')).filter_map(|line| line.split_once(" = "));
    let explained = |name: &str| {
        let lines = deny_toml.lines().filter_map(|line| line.strip_prefix("# dep: ")?.split_once(' '));
        lines.into_iter().any(|(dependency, reason)| dependency == name && !reason.trim().is_empty())
    };
    names
        .map(|(name, _)| name.to_owned())
        .filter(|name| !name.starts_with("berth") && !explained(name))
        .collect()
}

// --- the repository keeps them ---

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file of ours, in the order of their names.
fn sources() -> Vec<Source> {
    let mut files = vec![root().join("build.rs")];
    for dir in ["benches", "crates", "examples", "fuzz", "src", "tests"] {
        rust_files(&root().join(dir), &mut files);
    }
    let mut sources: Vec<Source> = files.iter().map(|file| read(file)).collect();
    sources.sort_by(|a, b| a.file.cmp(&b.file));
    assert!(sources.len() > 20, "found only {} files: is this the repository?", sources.len());
    sources
}

fn read(file: &Path) -> Source {
    let text = fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let name = file.strip_prefix(root()).expect("below the root").to_string_lossy().into_owned();
    Source::new(&name, &text)
}

fn rust_files(dir: &Path, out: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries {
        let path = entry.expect("read a directory").path();
        let name = path.file_name().unwrap_or_default();
        if path.is_dir() && name != "target" {
            rust_files(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
}

fn assert_kept(rule: fn(&Source) -> Vec<Breach>) {
    let breaches: Vec<String> = sources().iter().flat_map(rule).map(|b| b.to_string()).collect();
    assert!(breaches.is_empty(), "{} breaches:\n{}", breaches.len(), breaches.join("\n"));
}

macro_rules! kept {
    ($($rule:ident),+ $(,)?) => {
        mod the_repository_keeps {
            $(#[test]
            fn $rule() {
                super::assert_kept(super::$rule);
            })+
        }
    };
}

kept!(
    layering,
    facades_apart,
    programs_apart,
    unsafe_in_kernel,
    no_path_functions,
    proc_is_verified,
    shim_has_one_thread,
    header,
    length,
    errors_have_kinds,
);

#[test]
fn every_dependency_has_a_reason() {
    let read = |name| fs::read_to_string(root().join(name)).expect(name);
    assert_eq!(unexplained(&read("Cargo.toml"), &read("deny.toml")), Vec::<String>::new());
}

// --- and each can be broken ---

#[test]
fn a_dependency_without_a_reason_is_caught() {
    let cargo =
        "[workspace.dependencies]\nberth = { path = \".\" }\na = \"1\"\nb = \"1\"\n[package]\nc = \"1\"\n";
    assert_eq!(unexplained(cargo, "# dep: a why\n# dep: b \n"), ["b"]);
}

#[track_caller]
fn assert_caught(rule: fn(&Source) -> Vec<Breach>, file: &str, text: &str, lines: &[usize]) {
    let found = rule(&Source::new(file, text));
    let at: Vec<usize> = found.iter().map(|b| b.line).collect();
    assert_eq!(at, lines, "{file}: {text}\n{found:?}");
}

#[test]
fn an_upward_or_sideways_import_is_caught() {
    let engine = "crates/engine/src/";
    for (file, text) in [
        ("kernel/fs.rs", "use crate::store::meta;"),
        ("store/content/mod.rs", "fn f() { crate::image::reference::parse() }"),
        ("image/pull.rs", "use crate::{error::Error, store::content::Content};"),
        ("lifecycle/tasks.rs", "use crate::api::status;"),
        ("domain/container.rs", "use crate::kernel::fs;"),
        ("api/berth/images.rs", "use crate::store::meta::Db;"),
        ("store/meta/mod.rs", "use super::super::shim;"),
        ("surprise.rs", "fn f() {}"),
    ] {
        assert_caught(layering, &format!("{engine}{file}"), text, &[1]);
    }
    assert_caught(layering, "crates/shim/src/io/log.rs", "use crate::supervisor::State;", &[1]);
    assert_caught(layering, "crates/ctl/src/output/table.rs", "use crate::command::ps;", &[1]);
    let shim = "use crate::{runtime::Error, kernel::fs};\nuse crate::runtime::{Kind, Plan};";
    assert_caught(layering, "crates/shim/src/cgroup/v1/cpu.rs", shim, &[2]);
    let below = "use crate::{lifecycle::x, domain::y, error::Error};\nuse super::status;";
    assert_caught(layering, "crates/engine/src/api/berth/x.rs", below, &[]);
    assert_caught(layering, "crates/engine/src/main.rs", "use crate::kernel;", &[]);
}

#[test]
fn a_facade_that_names_another_is_caught() {
    let file = "crates/engine/src/api/docker/images.rs";
    assert_caught(facades_apart, file, "use crate::api::status;\nuse super::super::berth::images;", &[2]);
    assert_caught(facades_apart, file, "use crate::api::docker::x;", &[]);
}

#[test]
fn a_program_that_names_another_is_caught() {
    assert_caught(programs_apart, "crates/ctl/src/main.rs", "use berth_engine::config;", &[1]);
    assert_caught(programs_apart, "crates/shim/src/main.rs", "fn f() { berth_engine::run() }", &[1]);
    assert_caught(programs_apart, "crates/shim/src/main.rs", "use tonic::Status;", &[1]);
    assert_caught(programs_apart, "src/lib.rs", "use berth_shim::x;", &[1]);
    assert_caught(programs_apart, "crates/ctl/src/main.rs", "use berth::Client;", &[]);
}

#[test]
fn unsafe_outside_kernel_is_caught() {
    let text = "#![allow(unsafe_code)]\nfn f() {\n  unsafe { g() }\n}\n// unsafe in words\n";
    assert_caught(unsafe_in_kernel, "crates/shim/src/io/pipes.rs", text, &[1, 3]);
    assert_caught(unsafe_in_kernel, "crates/shim/src/kernel/clone.rs", text, &[]);
}

#[test]
fn a_path_function_in_the_runtime_is_caught() {
    let text = "use std::fs;\nuse std::fs::File;\nfn f() {\n fs::read(p);\n File::open(p);\n p.exists();\n File::from(fd);\n fd.metadata();\n}";
    assert_caught(no_path_functions, "crates/shim/src/runtime/x.rs", text, &[4, 5, 6]);
    let text = "use std::fs::{self, read_link, OpenOptions};\nuse tokio::fs::write;";
    assert_caught(no_path_functions, "crates/shim/src/init/mod.rs", text, &[1, 1, 2]);
    assert_caught(no_path_functions, "crates/shim/src/cgroup/v1.rs", text, &[]);
}

#[test]
fn a_path_of_procfs_in_the_shim_is_caught() {
    let text = "fn f() {\n open(\"/proc/self/exe\");\n format!(\"/proc/{pid}/root\");\n masked(\"/proc/kcore\");\n}\n#[cfg(test)]\nfn g() { open(\"/proc/self\") }";
    assert_caught(proc_is_verified, "crates/shim/src/init/mod.rs", text, &[2, 3]);
    assert_caught(proc_is_verified, "crates/shim/src/kernel/procfs.rs", text, &[]);
    assert_caught(proc_is_verified, "crates/engine/src/kernel/host.rs", text, &[]);
}

#[test]
fn a_thread_in_the_shim_is_caught() {
    let text = "use std::thread;\nfn f() {\n thread::spawn(g);\n tokio::task::spawn_blocking(g);\n}";
    assert_caught(shim_has_one_thread, "crates/shim/src/serve/mod.rs", text, &[4, 3]);
    assert_caught(shim_has_one_thread, "crates/engine/src/lifecycle/x.rs", text, &[]);
}

#[test]
fn a_missing_header_is_caught() {
    let spdx = "// SPDX-License-Identifier: Apache-2.0\n";
    assert_caught(header, "src/x.rs", "//! About.\n", &[1]);
    assert_caught(header, "src/x.rs", &format!("{spdx}use x;\n"), &[2]);
    assert_caught(header, "src/x.rs", &format!("{spdx}// About.\n//! About.\n"), &[2]);
    assert_caught(header, "src/x.rs", &format!("{spdx}//! About.\n"), &[]);
    assert_caught(header, "src/x.rs", &format!("{spdx}#![allow(unsafe_code)]\n//! About.\n"), &[]);
}

#[test]
fn a_long_file_is_caught_and_its_tests_are_not_counted() {
    let code = "fn f() {}\n".repeat(MAX_LINES);
    assert_caught(length, "src/x.rs", &format!("{code}fn g() {{}}\n"), &[1]);
    assert_caught(length, "src/x.rs", &format!("{code}#[cfg(test)]\nmod tests {{\n{code}}}\n"), &[]);
    assert_caught(length, "tests/x.rs", &format!("{code}fn g() {{}}\n"), &[]);
}

#[test]
fn anyhow_in_the_engine_is_caught() {
    assert_caught(errors_have_kinds, "crates/engine/src/daemon.rs", "use anyhow::Result;", &[1]);
    assert_caught(errors_have_kinds, "crates/ctl/src/main.rs", "use anyhow::Result;", &[]);
}
