// SPDX-License-Identifier: Apache-2.0
//! Much output and nobody who reads it, an engine that is dead meanwhile: the
//! writer isn't held up and every line is there.

use std::{fs, thread, time::Duration};

use berth::api::v1::{HostConfig, LogConfig, Mount, mount};

use crate::{
    api::Api,
    lengths::length,
    support::{engine::with_busybox, wait::within},
};

/// Bytes of a line, its number and the newline left out.
const LINE: usize = 8000;

/// Writes `$1` lines; the longest that one took, waiting for a processor left
/// out, goes to a file, as hundredths of a second and as nanoseconds waited.
const WRITER: &str = r#"
s=$(printf "%0$2d" 0); n=0; worst=0
read u v </proc/uptime; read c w r </proc/self/schedstat
while [ $n -lt $1 ]; do
    n=$((n+1)); echo "$n $s"
    t=$u; o=$w
    read u v </proc/uptime; read c w r </proc/self/schedstat
    took=$(( (${u%.*} * 100 + 1${u#*.} - ${t%.*} * 100 - 1${t#*.}) * 10 - (w - o) / 1000000 ))
    if [ $took -gt $worst ]; then worst=$took; echo $worst >/out/worst; fi
    [ $((n % 1000)) = 0 ] && echo $n >/out/progress
done
echo done >/out/done
"#;

#[test]
fn a_writer_is_never_held_up_and_nothing_that_it_writes_is_lost() {
    let Some(mut engine) = with_busybox() else { return };
    let lines: usize = length(8_000, (1 << 30) / LINE);
    let out = engine.dir().join("out");
    fs::create_dir(&out).expect("mkdir");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    let api = runtime.block_on(Api::of(&engine));
    let (count, width) = (lines.to_string(), LINE.to_string());
    let command = ["sh", "-c", WRITER, "writer", &count, &width];
    let host = HostConfig {
        mounts: vec![Mount {
            r#type: mount::Type::Bind.into(),
            source: out.to_string_lossy().into_owned(),
            target: "/out".to_owned(),
            ..Default::default()
        }],
        log: Some(LogConfig {
            driver: "local".to_owned(),
            options: [("max-size".to_owned(), "-1".to_owned())].into(),
        }),
        ..Default::default()
    };
    runtime.block_on(async {
        let id = api.create("writer", &command, host).await.expect("create");
        api.start(&id).await.expect("start");
    });
    let progress =
        || fs::read_to_string(out.join("progress")).unwrap_or_default().trim().parse::<usize>().unwrap_or(0);
    within(Duration::from_secs(120), "some output", || (progress() > 0).then_some(()));
    drop(api);
    engine.kill9();
    let at_death = progress();
    // Long enough for much to be written meanwhile, were the engine needed.
    #[expect(clippy::disallowed_methods, reason = "the time that the engine is dead")]
    thread::sleep(Duration::from_secs(length(2, 60)));
    let meanwhile = progress() - at_death;
    engine.restart();
    within(Duration::from_secs(length(300, 1200)), "the end of the writer", || {
        out.join("done").exists().then_some(())
    });
    assert_eq!(engine.wait("writer"), 0);
    let api = runtime.block_on(Api::of(&engine));
    let log = runtime.block_on(api.logs("writer")).expect("logs");
    let zeros = "0".repeat(LINE);
    let mut expected = 0;
    for line in log.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
        expected += 1;
        assert!(line == format!("{expected} {zeros}").as_bytes(), "line {expected} isn't what was written");
    }
    assert_eq!(expected, lines);
    let worst: u64 = fs::read_to_string(out.join("worst")).unwrap_or_default().trim().parse().unwrap_or(0);
    println!(
        "logs: {} MiB in {lines} lines, none missing; {meanwhile} of them while the engine was dead; the \
         longest write took {worst} ms of its own",
        log.len() >> 20
    );
    assert!(meanwhile > 0 || at_death >= lines - 1000, "the writer waited for the engine");
    // The clock that a shell can read has hundredths of a second; a slice
    // shares its processors with other tests.
    assert!(worst <= length(500, 60), "a write took {worst} ms");
}
