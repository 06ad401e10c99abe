// SPDX-License-Identifier: Apache-2.0
//! Pulls, in a pipe.

use berth::api::v1::{
    LayerProgress, PullDone, PullImageResponse, PullResolved, layer_progress::Phase,
    pull_image_response::Kind,
};

use crate::engine::{Ended, Engine, Of, Script};

const LAYER: &str = "sha256:c1ec31eb59444d78df06a974d155e597c894ab4cda84f08294145e845394988e";
const DIGEST: &str = "sha256:a0dfb02aac212703bfcb339d77d47ec32c8706ff250850ecc0e19c8737b18567";

fn pull(up_to_date: bool) -> Vec<PullImageResponse> {
    let reference = "docker.io/library/hello-world:latest".to_owned();
    let layer = |phase: Phase| {
        Kind::Layer(LayerProgress { digest: LAYER.into(), phase: phase.into(), current: 1, total: 2 })
    };
    [
        Kind::Resolved(PullResolved { reference: reference.clone(), layers: vec![LAYER.into()] }),
        layer(Phase::Downloading),
        layer(if up_to_date { Phase::Exists } else { Phase::Complete }),
        Kind::Done(PullDone { digest: DIGEST.into(), reference, up_to_date, ..Default::default() }),
    ]
    .map(|kind| PullImageResponse { kind: Some(kind) })
    .into()
}

#[test]
fn the_first_minute() {
    let engine = Engine::new(Script {
        pull: pull(false),
        output: vec![(Of::Stdout, "\nHello\n")],
        exit: Some(0),
        ..Default::default()
    });
    let first = engine.berth(&["run", "hello-world"]);
    assert_eq!(first.code, 0);
    assert_eq!(first.stdout, "\nHello\n");
    assert_eq!(
        first.stderr,
        format!(
            "Unable to find image 'hello-world:latest' locally\n\
             latest: Pulling from library/hello-world\n\
             c1ec31eb5944: Pull complete\n\
             Digest: {DIGEST}\n\
             Status: Downloaded newer image for hello-world:latest\n"
        )
    );
    let second = engine.berth(&["run", "hello-world"]);
    assert_eq!(second, Ended { code: 0, stdout: "\nHello\n".into(), stderr: String::new() });
}

#[test]
fn an_unchanged_image_is_up_to_date() {
    let engine = Engine::new(Script { pull: pull(true), ..Default::default() });
    let result = engine.berth(&["pull", "hello-world"]);
    assert_eq!(
        result.stdout,
        format!(
            "Using default tag: latest\n\
             latest: Pulling from library/hello-world\n\
             c1ec31eb5944: Already exists\n\
             Digest: {DIGEST}\n\
             Status: Image is up to date for hello-world:latest\n\
             docker.io/library/hello-world:latest\n"
        )
    );
    let quiet = engine.berth(&["pull", "-q", "hello-world"]);
    assert_eq!(quiet.stdout, "docker.io/library/hello-world:latest\n");
}

#[test]
fn all_tags_are_pulled_one_after_the_other() {
    let engine = Engine::new(Script { pull: pull(false), ..Default::default() });
    let result = engine.berth(&["pull", "-a", "hello-world"]);
    let one = format!(
        "latest: Pulling from library/hello-world\n\
         c1ec31eb5944: Pull complete\n\
         Digest: {DIGEST}\n"
    );
    let end = "Status: Downloaded newer image for hello-world\ndocker.io/library/hello-world\n";
    assert_eq!(result.stdout, format!("{one}{one}{end}"));
    assert_eq!(engine.seen().calls, ["tags hello-world", "pull", "pull"]);
    let quiet = engine.berth(&["pull", "--all-tags", "-q", "hello-world"]);
    assert_eq!(quiet.stdout, "docker.io/library/hello-world\n");
    let both = engine.berth(&["pull", "-a", "hello-world:1"]);
    assert_eq!((both.code, both.stderr.as_str()), (1, "tag can't be used with --all-tags/-a\n"));
    let none = engine.berth(&["pull", "-a", "empty"]);
    assert_eq!((none.code, none.stderr.as_str()), (1, "repository empty has no tags\n"));
}

#[test]
fn pull_policies() {
    let engine = Engine::new(Script { pull: pull(false), exit: Some(0), ..Default::default() });
    let never = engine.berth(&["run", "--pull", "never", "hello-world"]);
    assert_eq!(never.code, 125);
    assert!(
        never.stderr.starts_with("berth: Error response from engine: No such image: hello-world\n"),
        "{never:?}"
    );
    assert_eq!(engine.seen().calls, ["create"]);
    engine.seen().calls.clear();
    let always = engine.berth(&["run", "--pull", "always", "-q", "hello-world"]);
    assert_eq!(always, Ended { code: 0, stdout: String::new(), stderr: String::new() });
    assert_eq!(engine.seen().calls[..2], ["pull", "create"]);
}

#[test]
fn a_registry_that_says_no_is_quoted() {
    let error = tonic::Status::unauthenticated(
        "pull access denied for x, repository does not exist or may require 'docker login'",
    );
    let engine = Engine::new(Script { pull_error: Some(error), ..Default::default() });
    let pull = engine.berth(&["pull", "-q", "x"]);
    assert_eq!(pull.code, 1);
    assert!(pull.stderr.starts_with("Error response from engine: pull access denied for x"), "{pull:?}");
    assert_eq!(engine.berth(&["run", "x"]).code, 125);
}

#[test]
fn load_names_what_it_loaded() {
    let engine = Engine::new(Script::default());
    let file = tempfile::NamedTempFile::new().expect("temporary file");
    std::fs::write(file.path(), vec![7; 600_000]).expect("write");
    let path = file.path().to_str().expect("text");
    assert_eq!(engine.berth(&["load", "-i", path]).stdout, "Loaded image: hello-world:latest\n");
    assert_eq!(engine.seen().calls, ["load 600000"]);
    let missing = engine.berth(&["load", "-i", "/no/such/file"]);
    assert_eq!(
        (missing.code, missing.stderr.as_str()),
        (1, "open /no/such/file: no such file or directory\n")
    );
}

#[test]
fn save_leaves_a_whole_archive_or_none() {
    let engine = Engine::new(Script::default());
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = dir.path().join("a.tar");
    let named = |image| engine.berth(&["save", "-o", path.to_str().expect("text"), image]);
    assert_eq!(named("hello-world").code, 0);
    assert_eq!(std::fs::read(&path).expect("read"), b"archive");
    assert_eq!(engine.berth(&["save", "a", "b"]).stdout, "archive");
    std::fs::remove_file(&path).expect("remove");
    let damaged = named("damaged");
    let words = "Error response from engine: blob sha256:ab is damaged: pull the image again\n";
    assert_eq!((damaged.code, damaged.stderr.as_str()), (1, words));
    assert_eq!(std::fs::read_dir(dir.path()).expect("list").count(), 0);
    let directory = engine.berth(&["save", "-o", dir.path().to_str().expect("text"), "a"]);
    assert!(directory.stderr.ends_with("is a directory\n"), "{directory:?}");
}

#[test]
fn push_tells_of_layers_and_tags() {
    let engine = Engine::new(Script::default());
    let said = engine.berth(&["push", "127.0.0.1:5000/app:1"]).stdout;
    let expected = "The push refers to repository [127.0.0.1:5000/app]\n\
                    aaaaaaaaaaaa: Pushed\nbbbbbbbbbbbb: Layer already exists\n\
                    1: digest: sha256:cc size: 428\n";
    assert_eq!(said, expected);
    assert_eq!(engine.berth(&["push", "-q", "127.0.0.1:5000/app"]).stdout, "127.0.0.1:5000/app:latest\n");
    assert_eq!(engine.berth(&["push", "-a", "-q", "127.0.0.1:5000/app"]).stdout, "127.0.0.1:5000/app\n");
    let both = engine.berth(&["push", "-a", "127.0.0.1:5000/app:1"]);
    assert_eq!((both.code, both.stderr.as_str()), (1, "tag can't be used with --all-tags/-a\n"));
    let calls = [
        "push 127.0.0.1:5000/app:1 all_tags=false",
        "push 127.0.0.1:5000/app all_tags=false",
        "push 127.0.0.1:5000/app all_tags=true",
    ];
    assert_eq!(engine.seen().calls, calls);
}

#[test]
fn credentials_are_checked_kept_sent_and_forgotten() {
    let engine = Engine::new(Script::default());
    let home = tempfile::tempdir().expect("temporary directory");
    let file = home.path().join("config.json");
    let berth =
        |args: &[&str], input: &str| engine.berth_with(args, input, &[("DOCKER_CONFIG", home.path())]);
    let login = |password: &str| {
        berth(&["login", "-u", "me", "--password-stdin", "r.example:5000"], &format!("{password}\n"))
    };
    assert_eq!(login("wrong").code, 1);
    assert!(!file.exists());
    let said = login("right");
    assert_eq!((said.code, said.stdout.as_str()), (0, "Login Succeeded\n"));
    assert!(said.stderr.contains("stored unencrypted in"), "{said:?}");
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).expect("file").permissions());
    assert_eq!(mode & 0o777, 0o600);
    assert!(std::fs::read_to_string(&file).expect("read").contains("bWU6cmlnaHQ="));

    // A registry that gives a token is remembered by it.
    assert_eq!(login("token").code, 0);
    let text = std::fs::read_to_string(&file).expect("read");
    assert!(text.contains("\"identitytoken\": \"kept\"") && !text.contains("bWU6dG9rZW4="), "{text}");

    assert_eq!(
        berth(&["logout", "r.example:5000"], "").stdout,
        "Removing login credentials for r.example:5000\n"
    );
    assert_eq!(berth(&["logout", "r.example:5000"], "").stdout, "Not logged in to r.example:5000\n");
    let nobody = berth(&["login", "r.example:5000"], "");
    assert!(nobody.stderr.contains("from a non TTY device"), "{nobody:?}");
}
