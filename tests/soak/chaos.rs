// SPDX-License-Identifier: Apache-2.0
//! An engine that is killed again and again in the middle of whatever eight
//! clients ask of it. Nothing that it has acknowledged is lost, nothing is left
//! over, and no container misses a beat.

use std::{
    collections::HashMap,
    fs,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use berth::api::v1::{self, container_state::Status as State};
use tonic::{Code, Status};

use crate::{
    api::{Answer, Api, is_interrupted},
    beats::{self, Control, Silence},
    lengths::{Chance, length, seed},
    support::{Engine, engine::with_busybox, wait::within},
};

const CLIENTS: u64 = 8;

/// Containers of one client.
const CONTAINERS: usize = 3;

/// Limits of processes that are set in turns.
const LIMITS: [i64; 3] = [100, 200, 300];

/// The longest gap between two beats: a beat is due every 0.1 s.
const GAP: f64 = 0.3;

/// What is known of something: an operation whose answer never came may have
/// happened or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fact {
    Yes,
    No,
    Maybe,
}

impl Fact {
    fn agrees(self, seen: bool) -> bool {
        self == Self::Maybe || (self == Self::Yes) == seen
    }
}

/// A container as its client knows it.
#[derive(Debug)]
struct Mine {
    id: String,
    /// Where it beats.
    beat: String,
    names: Vec<String>,
    running: Fact,
    paused: Fact,
    limits: Vec<i64>,
    /// Programs that were executed in it, and have said so.
    execs: u64,
    /// When its heart may have stood still.
    silent: Vec<Silence>,
    /// Since when it may stand still now.
    since: Option<f64>,
}

impl Mine {
    /// Something is about to be done that may stop its heart.
    fn disturb(&mut self) {
        self.since.get_or_insert_with(beats::uptime);
    }

    /// Its heart has to beat from now on, if it is known to run.
    fn settle(&mut self) {
        if self.running == Fact::Yes
            && self.paused == Fact::No
            && let Some(from) = self.since.take()
        {
            self.silent.push(Silence { from, to: beats::uptime() });
        }
    }

    /// All times in which it may have been silent.
    fn silences(mut self) -> (String, Vec<Silence>) {
        self.silent.extend(self.since.map(|from| Silence { from, to: f64::MAX }));
        (self.beat, self.silent)
    }
}

struct Client {
    number: u64,
    address: String,
    dir: PathBuf,
    api: Option<Api>,
    chance: Chance,
    mine: Vec<Mine>,
    made: u64,
    shared: Arc<Shared>,
    /// Silences of containers that are gone.
    past: HashMap<String, Vec<Silence>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    acknowledged: AtomicU64,
    interrupted: AtomicU64,
}

/// Ends the clients, too, when the test fails.
struct StopAll(Arc<Shared>);

impl Drop for StopAll {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Release);
    }
}

/// Where all containers beat: memory, since a disk may hold a writer up.
struct Beating(PathBuf);

impl Drop for Beating {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What a client ended with: where its containers beat, and when they may not.
type Beats = HashMap<String, Vec<Silence>>;

impl Client {
    async fn run(mut self) -> Result<Beats, String> {
        while !self.shared.stop.load(Ordering::Acquire) {
            let Some(api) = self.api.clone() else {
                self.api = Api::connect(&self.address).await;
                if self.api.is_none() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                continue;
            };
            self.step(&api).await?;
        }
        let mut beats = self.past;
        beats.extend(self.mine.into_iter().map(Mine::silences));
        Ok(beats)
    }

    /// One operation, or a look at what the last ones have left.
    async fn step(&mut self, api: &Api) -> Result<(), String> {
        if self.mine.len() < CONTAINERS {
            return self.add(api).await;
        }
        let at = self.chance.below(self.mine.len());
        let operations = [
            "verify", "verify", "exec", "exec", "logs", "start", "stop", "kill", "pause", "unpause",
            "update", "rename", "remove", "list",
        ];
        let operation = *self.chance.pick(&operations);
        let limit = *self.chance.pick(&LIMITS);
        self.made += 1;
        let name = format!("c{}-{}", self.number, self.made);
        if operation == "remove" {
            return self.remove(api, at).await;
        }
        let shared = Arc::clone(&self.shared);
        let mine = &mut self.mine[at];
        if ["start", "stop", "kill", "pause", "unpause"].contains(&operation) {
            mine.disturb();
        }
        let answer = match operation {
            "verify" => verify(api, mine).await?,
            "exec" => exec(api, mine, &self.dir).await?,
            "logs" => api.logs(&mine.id).await.map(drop),
            "list" => api.list().await.map(drop),
            "start" => {
                let before = std::mem::replace(&mut mine.running, Fact::Maybe);
                let started = api.start(&mine.id).await;
                match started {
                    Ok(()) => {
                        mine.running = Fact::Yes;
                        Ok(())
                    }
                    // Docker's rule: a paused one is not started.
                    Err(e) if e.code() == Code::FailedPrecondition && mine.paused != Fact::No => {
                        mine.running = before;
                        Ok(())
                    }
                    Err(e) => Err(e),
                }
            }
            "stop" | "kill" => {
                let before = std::mem::replace(&mut mine.running, Fact::Maybe);
                mine.paused = Fact::Maybe;
                let ended = match operation {
                    "stop" => api.stop(&mine.id).await,
                    _ => match api.kill(&mine.id).await {
                        Ok(()) => api.wait(&mine.id).await.map(drop),
                        // It doesn't run.
                        Err(e) if e.code() == Code::FailedPrecondition && before != Fact::Yes => Ok(()),
                        Err(e) => Err(e),
                    },
                };
                if ended.is_ok() {
                    (mine.running, mine.paused) = (Fact::No, Fact::No);
                }
                ended
            }
            "pause" | "unpause" => {
                let wanted = operation == "pause";
                let expected =
                    mine.running == Fact::Yes && mine.paused.agrees(!wanted) && mine.paused != Fact::Maybe;
                mine.paused = Fact::Maybe;
                let done = if wanted { api.pause(&mine.id).await } else { api.unpause(&mine.id).await };
                match done {
                    Ok(()) => {
                        mine.paused = if wanted { Fact::Yes } else { Fact::No };
                        Ok(())
                    }
                    // It isn't in that state, and nobody said that it is.
                    Err(e) if e.code() == Code::FailedPrecondition && !expected => {
                        if mine.running == Fact::Yes {
                            mine.paused = if wanted { Fact::Yes } else { Fact::No };
                        } else if mine.running == Fact::No {
                            mine.paused = Fact::No;
                        }
                        Ok(())
                    }
                    Err(e) => Err(e),
                }
            }
            "update" => {
                mine.limits.push(limit);
                let done = api.set_pids_limit(&mine.id, limit).await;
                if done.is_ok() {
                    mine.limits = vec![limit];
                }
                done
            }
            _ => {
                mine.names.push(name.clone());
                let done = api.rename(&mine.id, &name).await;
                if done.is_ok() {
                    mine.names = vec![name];
                }
                done
            }
        };
        mine.settle();
        let is_unsure = mine.running == Fact::Maybe || mine.paused == Fact::Maybe;
        let is_at_rest = mine.running != Fact::Yes || mine.paused != Fact::No;
        let what = format!("{operation} of {mine:?}");
        match answer {
            Ok(()) => {
                shared.acknowledged.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            // What can't be done in the state that it is in.
            Err(status)
                if status.code() == Code::FailedPrecondition
                    && (operation == "exec" && is_at_rest || operation != "start" && is_unsure) =>
            {
                Ok(())
            }
            Err(status) => self.failed(&status, &what),
        }
    }

    /// A container is made and started.
    async fn add(&mut self, api: &Api) -> Result<(), String> {
        self.made += 1;
        let name = format!("c{}-{}", self.number, self.made);
        let command = beats::command(&name);
        let command: Vec<&str> = command.iter().map(String::as_str).collect();
        let mount = v1::Mount {
            r#type: v1::mount::Type::Bind.into(),
            source: self.dir.to_string_lossy().into_owned(),
            target: "/beats".to_owned(),
            ..Default::default()
        };
        let host = v1::HostConfig { mounts: vec![mount], pids_limit: Some(LIMITS[0]), ..Default::default() };
        match api.create(&name, &command, host).await {
            Ok(id) => {
                self.shared.acknowledged.fetch_add(1, Ordering::Relaxed);
                self.mine.push(Mine {
                    id,
                    beat: name.clone(),
                    names: vec![name],
                    running: Fact::No,
                    paused: Fact::No,
                    limits: vec![LIMITS[0]],
                    execs: 0,
                    silent: Vec::new(),
                    since: Some(0.0),
                });
                Ok(())
            }
            Err(status) => self.failed(&status, &format!("create {name}")),
        }
    }

    async fn remove(&mut self, api: &Api, at: usize) -> Result<(), String> {
        let mut mine = self.mine.swap_remove(at);
        mine.disturb();
        loop {
            match api.remove(&mine.id).await {
                Ok(()) => break,
                Err(e) if e.code() == Code::NotFound && mine.running == Fact::Maybe => break,
                Err(e) if is_interrupted(&e) => {
                    // It may be gone: ask until somebody knows.
                    mine.running = Fact::Maybe;
                    self.failed(&e, "remove")?;
                    if self.shared.stop.load(Ordering::Acquire) {
                        break;
                    }
                    match Api::connect(&self.address).await {
                        Some(again) => return self.removed_again(again, mine).await,
                        None => tokio::time::sleep(Duration::from_millis(10)).await,
                    }
                }
                Err(e) => return Err(format!("remove {mine:?}: {e}")),
            }
        }
        self.gone(api, mine).await
    }

    async fn removed_again(&mut self, api: Api, mine: Mine) -> Result<(), String> {
        let mut api = api;
        while !self.shared.stop.load(Ordering::Acquire) {
            match api.remove(&mine.id).await {
                Ok(()) => break,
                Err(e) if e.code() == Code::NotFound => break,
                Err(e) if is_interrupted(&e) => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    if let Some(again) = Api::connect(&self.address).await {
                        api = again;
                    }
                }
                Err(e) => return Err(format!("remove {mine:?} again: {e}")),
            }
        }
        self.gone(&api, mine).await
    }

    /// An acknowledged removal stays one.
    async fn gone(&mut self, api: &Api, mine: Mine) -> Result<(), String> {
        if !self.shared.stop.load(Ordering::Acquire) {
            self.shared.acknowledged.fetch_add(1, Ordering::Relaxed);
            if let Ok(container) = api.inspect(&mine.id).await {
                return Err(format!("{mine:?} was removed and is there: {container:?}"));
            }
        }
        self.past.extend([mine.silences()]);
        Ok(())
    }

    /// A call that was cut off is nobody's fault; any other failure is.
    fn failed(&mut self, status: &Status, what: &str) -> Result<(), String> {
        if is_interrupted(status) {
            self.shared.interrupted.fetch_add(1, Ordering::Relaxed);
            if status.code() != Code::Unavailable || std::error::Error::source(status).is_some() {
                self.api = None;
            }
            return Ok(());
        }
        Err(format!("{what}: {status}"))
    }
}

/// What was acknowledged is so.
async fn verify(api: &Api, mine: &mut Mine) -> Result<Answer<()>, String> {
    let seen = match api.inspect(&mine.id).await {
        Ok(seen) => seen,
        Err(e) if e.code() == Code::NotFound => return Err(format!("{mine:?} is gone")),
        Err(e) => return Ok(Err(e)),
    };
    let status = seen.state.as_ref().map(v1::ContainerState::status).unwrap_or_default();
    let is_up = matches!(status, State::Running | State::Paused | State::Unknown);
    let config = seen.config.unwrap_or_default();
    let limit = config.host.and_then(|host| host.pids_limit).unwrap_or(0);
    let is_paused = mine.paused.agrees(status == State::Paused) || status == State::Unknown;
    if !mine.running.agrees(is_up) || !is_paused || !mine.names.contains(&seen.name) {
        return Err(format!("{mine:?} is {status:?} and called {}", seen.name));
    }
    if !mine.limits.contains(&limit) {
        return Err(format!("{mine:?} has a limit of {limit} processes"));
    }
    Ok(Ok(()))
}

/// An exec that has ended with 0 has done what it was asked for.
async fn exec(api: &Api, mine: &mut Mine, dir: &std::path::Path) -> Result<Answer<()>, String> {
    let file = format!("{}.execs", mine.beat);
    let script = format!("echo x >>/beats/{file}");
    let can = mine.running == Fact::Yes && mine.paused == Fact::No;
    if mine.paused != Fact::No {
        return Ok(Ok(()));
    }
    match api.exec(&mine.id, &["sh", "-c", &script]).await {
        Ok((0, _)) => mine.execs += 1,
        Ok((code, output)) => {
            return Err(format!("exec in {mine:?}: {code}, {}", String::from_utf8_lossy(&output)));
        }
        Err(e) if is_interrupted(&e) || !can => return Ok(Err(e)),
        Err(e) => return Err(format!("exec in {mine:?}: {e}")),
    }
    let done = fs::read_to_string(dir.join(file)).unwrap_or_default().lines().count() as u64;
    if done < mine.execs {
        return Err(format!("{done} execs were done of {mine:?}"));
    }
    Ok(Ok(()))
}

/// Kills and starts the engine, and has everything compared each time.
fn torment(engine: &mut Engine, chance: &mut Chance, shared: &Shared, kills: usize) {
    for kill in 1..=kills {
        let mut left = 100 + chance.below(1400);
        while left > 0 {
            assert!(!shared.stop.load(Ordering::Acquire), "a client has failed");
            let slice = left.min(50);
            #[expect(clippy::disallowed_methods, reason = "a random time to work in")]
            std::thread::sleep(Duration::from_millis(slice as u64));
            left -= slice;
        }
        engine.kill9();
        let dead = engine.fsck(&[]);
        assert!(dead.code == 0, "after kill {kill}, without an engine:\n{}{}", dead.stdout, dead.stderr);
        engine.restart();
        let alive = engine.fsck(&[]);
        assert!(alive.code == 0, "after kill {kill}:\n{}{}", alive.stdout, alive.stderr);
    }
}

#[test]
fn nothing_is_lost_however_often_the_engine_is_killed() {
    let Some(mut engine) = with_busybox() else { return };
    let seed = seed();
    let kills = length(12, 300);
    // What is cut off is logged as such.
    for part in ["shim", "take over a container"] {
        engine.expect_error(part);
    }
    let dir = PathBuf::from(format!("/dev/shm/berth-soak-{}", std::process::id()));
    fs::create_dir_all(&dir).expect("mkdir");
    let _beating = Beating(dir.clone());
    let control = Control::start(&dir);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime");
    let shared = Arc::new(Shared::default());
    let stop = StopAll(Arc::clone(&shared));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let client = Client {
                number,
                address: engine.address(),
                dir: dir.clone(),
                api: None,
                chance: Chance::new(seed.wrapping_mul(31).wrapping_add(number)),
                mine: Vec::new(),
                made: 0,
                shared: Arc::clone(&shared),
                past: HashMap::new(),
            };
            let shared = Arc::clone(&shared);
            runtime.spawn(async move {
                let ended = client.run().await;
                // The others end with the first that fails.
                if ended.is_err() {
                    shared.stop.store(true, Ordering::Release);
                }
                ended
            })
        })
        .collect();
    let tormented = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        torment(&mut engine, &mut Chance::new(seed), &shared, kills);
    }));
    drop(stop);
    let ended: Vec<_> = clients
        .into_iter()
        .map(|client| {
            let ended = async { tokio::time::timeout(Duration::from_secs(60), client).await };
            runtime.block_on(ended).expect("a client ends when it is told to").expect("no panic")
        })
        .collect();
    drop(control);
    for failure in ended.iter().filter_map(|ended| ended.as_ref().err()) {
        eprintln!("BERTH_SEED={seed}: {failure}");
    }
    if let Err(panic) = tormented {
        std::panic::resume_unwind(panic);
    }
    assert!(ended.iter().all(Result::is_ok), "acknowledged and lost (BERTH_SEED={seed})");

    let mut worst = beats::Gap::default();
    let mut beating = 0;
    for (name, silent) in ended.into_iter().flatten().flatten() {
        let gap = beats::longest(&dir.join(&name), &silent);
        beating += 1;
        if gap.own > worst.own {
            worst = gap;
        }
    }
    let noise = beats::longest(&dir.join("control"), &[]);
    println!(
        "chaos: {kills} kills, {} operations acknowledged, {} interrupted, {beating} containers; longest gap \
         {:.0} ms of its own ({:.0} ms by the clock; {:.0} ms on the host outside)",
        shared.acknowledged.load(Ordering::Relaxed),
        shared.interrupted.load(Ordering::Relaxed),
        worst.own * 1e3,
        worst.raw * 1e3,
        noise.raw * 1e3,
    );
    assert!(worst.own <= GAP, "a heart stood still: {worst:?} (BERTH_SEED={seed})");
    within(Duration::from_secs(60), "fsck to be clean", || (engine.fsck(&[]).code == 0).then_some(()));
}
