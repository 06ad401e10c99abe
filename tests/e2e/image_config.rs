// SPDX-License-Identifier: Apache-2.0
//! Images whose configuration nobody would write by chance: by row, what a
//! container of each is. What Docker does where that is sane, one clear line
//! else; the engine goes on in any case.

use serde_json::{Value, json};

use crate::support::{
    Engine,
    image::{Builder, Image, Layer, busybox_layer},
};

/// Name, the image's `config`, arguments after the image's name, exit code,
/// and what is said: on stdout by what runs, on stderr else.
type Row = (&'static str, fn() -> Value, &'static [&'static str], i32, &'static str);

const ID: &[&str] = &["sh", "-c", "id -u; id -g; id -G"];
const HERE: &[&str] = &["sh", "-c", "pwd; ls -d etc ./bin 2>&1"];

const ROWS: &[Row] = &[
    // Users (CVE-2024-40635, CVE-2026-46680): a number is that number or
    // nobody's, and never wraps.
    ("a name", || json!({"User": "app"}), ID, 0, "1000\n1000\n1000 29\n"),
    ("a number", || json!({"User": "1000"}), ID, 0, "1000\n1000\n1000 29\n"),
    ("a number that nobody has", || json!({"User": "4242"}), ID, 0, "4242\n0\n0\n"),
    ("both", || json!({"User": "7:8"}), ID, 0, "7\n8\n8\n"),
    ("2^31 - 1", || json!({"User": "2147483647"}), ID, 0, "2147483647\n"),
    ("2^31", || json!({"User": "2147483648:0"}), ID, 0, "2147483648\n0\n0\n"),
    ("2^32 - 1", || json!({"User": "4294967295"}), ID, 125, "4294967295"),
    ("2^32", || json!({"User": "4294967296"}), ID, 125, "4294967296"),
    ("2^32 as a group", || json!({"User": "0:4294967296"}), ID, 125, "4294967296"),
    ("a number that is a name in the image", || json!({"User": "99999999999"}), ID, 125, "99999999999"),
    ("-1", || json!({"User": "-1"}), ID, 125, "-1"),
    ("a name that wraps in the image", || json!({"User": "wraps"}), ID, 125, "wraps"),
    ("a group that wraps in the image", || json!({"User": "0:wraps"}), ID, 125, "wraps"),
    ("a name that nobody has", || json!({"User": "nosuch"}), ID, 125, "unable to find user nosuch"),
    ("a group that nobody has", || json!({"User": "app:nosuch"}), ID, 125, "nosuch"),
    (
        "a name with a newline",
        || json!({"User": "app\nroot\u{1b}[2J"}),
        ID,
        125,
        "unable to find user app\\nroot\\u{1b}[2J",
    ),
    ("a name with a NUL", || json!({"User": "app\0"}), ID, 125, "NUL"),
    ("a colon alone", || json!({"User": ":"}), &["true"], 0, ""),
    ("too many colons", || json!({"User": "0:0:0"}), ID, 0, "0\n0\n0\n"),
    ("a path", || json!({"User": "../../etc/passwd"}), ID, 125, "passwd"),
    // The environment.
    (
        "without =",
        || json!({"Env": ["A=1", "ALONE", "B=2"]}),
        &["sh", "-c", "echo $A$B; env | grep -c ALONE"],
        1,
        "12\n0\n",
    ),
    ("without a name", || json!({"Env": ["=x", "A=1"]}), &["sh", "-c", "echo $A"], 0, "1\n"),
    (
        "with a newline",
        || json!({"Env": ["A=1\nB=2"]}),
        &["sh", "-c", "echo \"$A\"; echo \"<$B>\""],
        0,
        "1\nB=2\n<>\n",
    ),
    ("with a NUL", || json!({"Env": ["A=1\0B=2", "C=3"]}), &["sh", "-c", "echo \"<$A$B$C>\""], 0, "<3>\n"),
    ("with = in a value", || json!({"Env": ["A=b=c="]}), &["sh", "-c", "echo $A"], 0, "b=c=\n"),
    (
        "the same twice",
        || json!({"Env": ["A=1", "A=2"]}),
        &["sh", "-c", "echo $A; env | grep -c ^A="],
        0,
        "2\n1\n",
    ),
    ("no PATH", || json!({"Env": ["PATH="]}), &["/bin/sh", "-c", "echo \"<$PATH>\""], 0, "<>\n"),
    ("a library to preload", || json!({"Env": ["LD_PRELOAD=/etc/readable"]}), &["true"], 0, ""),
    (
        "a hundred thousand",
        || json!({"Env": (0..100_000).map(|n| format!("A{n}=x")).collect::<Vec<_>>()}),
        &["true"],
        0,
        "",
    ),
    (
        "one of a megabyte",
        || json!({"Env": [format!("A={}", "x".repeat(1 << 20))]}),
        &["true"],
        126,
        "too long",
    ),
    // What runs.
    ("an entrypoint of null", || json!({"Entrypoint": null, "Cmd": ["echo", "hi"]}), &[], 0, "hi\n"),
    ("an empty entrypoint", || json!({"Entrypoint": [], "Cmd": ["echo", "hi"]}), &[], 0, "hi\n"),
    ("an entrypoint of nothing", || json!({"Entrypoint": [""], "Cmd": ["echo", "hi"]}), &[], 0, "hi\n"),
    ("nothing at all", || json!({}), &[], 125, "No command specified"),
    ("a command of nothing", || json!({"Cmd": [""]}), &[], 125, "no command specified"),
    ("a command with a NUL", || json!({"Cmd": ["a\0b"]}), &[], 125, "NUL"),
    (
        "a hundred thousand arguments",
        || json!({"Cmd": std::iter::once("true".to_owned()).chain((0..100_000).map(|n| n.to_string())).collect::<Vec<_>>()}),
        &[],
        0,
        "",
    ),
    (
        "four hundred thousand arguments",
        || json!({"Cmd": std::iter::once("true".to_owned()).chain((0..400_000).map(|n| n.to_string())).collect::<Vec<_>>()}),
        &[],
        126,
        "too long",
    ),
    // Where it runs.
    ("a relative directory", || json!({"WorkingDir": "app"}), HERE, 125, "needs to be an absolute path"),
    ("one that isn't there", || json!({"WorkingDir": "/made/by/engine"}), &["pwd"], 0, "/made/by/engine\n"),
    ("upwards", || json!({"WorkingDir": "/../../.."}), HERE, 0, "/\n./bin\netc\n"),
    ("upwards from somewhere", || json!({"WorkingDir": "/bin/../../../.."}), HERE, 0, "/\n./bin\netc\n"),
    ("a link to the root", || json!({"WorkingDir": "/links/root"}), HERE, 0, "/\n./bin\netc\n"),
    ("a link upwards", || json!({"WorkingDir": "/links/up"}), HERE, 0, "/\n./bin\netc\n"),
    ("a link to nothing", || json!({"WorkingDir": "/links/none"}), &["true"], 0, ""),
    ("a link to itself", || json!({"WorkingDir": "/links/loop"}), HERE, 125, "links/loop"),
    ("a file", || json!({"WorkingDir": "/etc/passwd"}), HERE, 125, "/etc/passwd"),
    // CVE-2024-21626.
    ("a descriptor", || json!({"WorkingDir": "/proc/self/fd/3"}), HERE, 125, "/proc/self/fd/3"),
    (
        "a descriptor and upwards",
        || json!({"WorkingDir": "/proc/self/fd/3/../../.."}),
        HERE,
        125,
        "/proc/self/fd",
    ),
    ("a link to a descriptor", || json!({"WorkingDir": "/links/fd"}), HERE, 125, "links/fd"),
    ("with a NUL", || json!({"WorkingDir": "/a\0b"}), HERE, 125, "NUL"),
    ("very long", || json!({"WorkingDir": format!("/{}", "d/".repeat(4000))}), HERE, 125, "too long"),
    // What is only written down, or not here yet.
    (
        "volumes",
        || json!({"Volumes": {"/": {}, "/proc": {}, "../x": {}, "": {}, "/etc": {}}}),
        &["cat", "/etc/readable"],
        0,
        "not a program\n",
    ),
    (
        "ports",
        || json!({"ExposedPorts": {"0/tcp": {}, "65536": {}, "1-65535/sctp": {}, "": {}, "x/y": {}}}),
        &["true"],
        0,
        "",
    ),
    (
        "labels of the engine's",
        || json!({"Labels": {"berth.x": "y", "": "z", "a\nb": "c"}}),
        &["true"],
        0,
        "",
    ),
    // How it is stopped and looked after.
    ("a signal that is none", || json!({"StopSignal": "9999"}), &["true"], 0, ""),
    ("a signal of no name", || json!({"StopSignal": "SIGFOO"}), &["true"], 0, ""),
    ("a real-time signal", || json!({"StopSignal": "RTMIN+3"}), &["true"], 0, ""),
    (
        "a check at once",
        || json!({"Healthcheck": {"Test": ["CMD", "true"], "Interval": -1, "Timeout": -5}}),
        &["true"],
        0,
        "",
    ),
    (
        "a check after ages",
        || json!({"Healthcheck": {"Test": ["CMD", "true"], "Interval": i64::MAX, "Timeout": i64::MAX, "StartPeriod": i64::MAX, "StartInterval": i64::MAX, "Retries": i64::MAX}}),
        &["sh", "-c", "sleep 0.2"],
        0,
        "",
    ),
    (
        "a check beyond numbers",
        || json!({"Healthcheck": {"Test": ["CMD", "true"], "Interval": 1e30}}),
        &["true"],
        0,
        "",
    ),
    ("a check without an end", || json!({"Healthcheck": {"Test": ["CMD"]}}), &["true"], 0, ""),
    ("a check of no kind", || json!({"Healthcheck": {"Test": ["RUN", "x"]}}), &["true"], 0, ""),
];

/// Users that wrap, and links.
fn traps() -> Layer {
    let mut layer = Layer::new();
    let passwd = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n\
                  99999999999:x:0:0::/:/bin/sh\nwraps:x:4294967296:0::/:/bin/sh\n";
    layer.file("etc/passwd", 0o644, passwd.as_bytes());
    layer.file("etc/group", 0o644, b"root:x:0:\napp:x:1000:\naudio:x:29:app\nwraps:x:4294967296:\n");
    layer.dir("links/", 0o755);
    for (name, target) in [
        ("root", "/"),
        ("up", "../../../../.."),
        ("none", "/nowhere/at/all"),
        ("loop", "loop"),
        ("fd", "/proc/self/fd/3"),
    ] {
        layer.symlink(&format!("links/{name}"), target);
    }
    layer
}

fn image(config: Value) -> Image {
    Builder::new().layer(busybox_layer()).layer(traps()).config(config).build()
}

#[test]
fn a_container_of_any_image_is_sane_or_refused_in_one_line() {
    let Some(engine) = Engine::start() else { return };
    // It keeps the layers.
    engine.load(&image(json!({"Cmd": ["true"]})), "plain");
    let mut wrong = Vec::new();
    for (row, config, args, code, words) in ROWS {
        engine
            .berth_with_input(&["load", "-q"], &image(config()).oci_archive("docker.io/library/odd:1"))
            .ok();
        let ran = engine.berth(&[&["run", "--rm", "odd:1"], *args].concat());
        let said = if *code == 0 || *code == 1 { &ran.stdout } else { &ran.stderr };
        let other = ["WARNING", "Run 'berth run --help'"];
        let lines =
            ran.stderr.lines().filter(|line| !line.is_empty() && !other.iter().any(|o| line.contains(o)));
        let lines = lines.count();
        if ran.code != *code || !said.contains(words) || lines > 1 || ran.stderr.len() > 4000 {
            let cut = |text: &str| text.chars().take(300).collect::<String>();
            wrong.push(format!("{row}: {} {:?} {:?}", ran.code, cut(&ran.stdout), cut(&ran.stderr)));
        }
        engine.berth(&["image", "inspect", "odd:1"]).ok();
        engine.berth(&["rmi", "-f", "odd:1"]).ok();
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(engine.berth(&["ps", "-aq"]).ok().line(), "");
    engine.berth(&["run", "--rm", "plain"]).ok();
}
