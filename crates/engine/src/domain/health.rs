// SPDX-License-Identifier: Apache-2.0
//! Health checks: what was asked for, and what a probe's result makes of a
//! container. Pure; probes are made by lifecycle.

use std::{
    collections::VecDeque,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

use super::probe::{self, Http, Tcp};
use crate::error::{Error, Kind, Result};

/// Docker's, where nothing is said.
const INTERVAL: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(30);
const START_INTERVAL: Duration = Duration::from_secs(5);
const RETRIES: u32 = 3;

/// Docker's word for none, whatever the image says.
const NO_CHECK: &str = "NONE";

/// Docker's: anything shorter is a mistake.
const SHORTEST: Duration = Duration::from_millis(1);

/// So many of the last probes are remembered, and so many bytes of what each
/// has said: Docker's.
const REMEMBERED: usize = 5;
/// Bytes of output.
pub const MAX_OUTPUT: usize = 4096;

/// A check as it was asked for; what is unset is the image's, then Docker's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HealthConfig {
    /// Docker's `Test`: nothing, `NONE`, `CMD` and arguments, `CMD-SHELL` and
    /// a line; or ours, `HTTP` and a URL, `TCP` and a port.
    pub test: Vec<String>,
    /// From the end of a probe to the next; nanoseconds, 0 is unset.
    pub interval: u64,
    /// What a probe may take; nanoseconds, 0 is unset.
    pub timeout: u64,
    /// Failures in this time from the start on don't count; nanoseconds.
    pub start_period: u64,
    /// As `interval`, in that time; nanoseconds, 0 is unset.
    pub start_interval: u64,
    /// Failures in a row that make a container unhealthy; 0 is unset.
    pub retries: u32,
    /// What becomes of an unhealthy container.
    pub on_failure: OnFailure,
}

/// What is to change of a check; what is unset stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HealthChange {
    /// All but what becomes of an unhealthy container.
    pub config: HealthConfig,
    /// What becomes of one.
    pub on_failure: Option<OnFailure>,
}

impl HealthChange {
    /// `before` with the change; `None` when there is no check any more.
    ///
    /// # Errors
    /// `InvalidArgument`: what can't be, and a change of a check that isn't.
    pub fn apply(&self, before: Option<&HealthConfig>) -> Result<Option<HealthConfig>> {
        let none = HealthConfig::default();
        let on_failure = self.on_failure.or(before.map(|before| before.on_failure)).unwrap_or_default();
        let after = HealthConfig { on_failure, ..self.config.over(before.unwrap_or(&none)) };
        after.check()?;
        if after.in_force()?.is_some() {
            return Ok(Some(after));
        }
        if self.config == HealthConfig::no_check() && self.on_failure.is_none() {
            return Ok(None);
        }
        Err(invalid(
            "the container has no health check: --health-cmd, --health-http or --health-tcp sets one",
        ))
    }
}

/// What becomes of a container that has become unhealthy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// It is said.
    #[default]
    None,
    /// It is killed; its restart policy decides what then.
    Kill,
    /// It is stopped.
    Stop,
    /// It is stopped and started.
    Restart,
}

impl OnFailure {
    /// Reads podman's words; empty is `none`.
    ///
    /// # Errors
    /// `InvalidArgument`.
    pub fn of_word(word: &str) -> Result<Self> {
        match word {
            "" | "none" => Ok(Self::None),
            "kill" => Ok(Self::Kill),
            "stop" => Ok(Self::Stop),
            "restart" => Ok(Self::Restart),
            other => Err(invalid(format!(
                "invalid health-on-failure action '{}': use none, kill, stop or restart",
                other.escape_debug()
            ))),
        }
    }

    /// The word that users write.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Kill => "kill",
            Self::Stop => "stop",
            Self::Restart => "restart",
        }
    }
}

/// How it is found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Test {
    /// A process in the container ends with 0.
    Command(Vec<String>),
    /// A server answers a GET with 200 to 399.
    Http(Http),
    /// A server takes a connection.
    Tcp(Tcp),
}

/// A check in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// How it is found out.
    pub test: Test,
    /// From the end of a probe to the next.
    pub interval: Duration,
    /// What a probe may take.
    pub timeout: Duration,
    /// Failures in this time from the start on don't count.
    pub start_period: Duration,
    /// As `interval`, in that time.
    pub start_interval: Duration,
    /// Failures in a row that make a container unhealthy.
    pub retries: u32,
    /// What becomes of it then.
    pub on_failure: OnFailure,
}

impl HealthConfig {
    /// None, whatever the image says.
    #[must_use]
    pub fn no_check() -> Self {
        Self { test: vec![NO_CHECK.to_owned()], ..Self::default() }
    }

    /// Whether it can be honoured.
    ///
    /// # Errors
    /// `InvalidArgument`, in Docker's words where it has them.
    pub fn check(&self) -> Result<()> {
        for (name, nanos) in [
            ("Interval", self.interval),
            ("Timeout", self.timeout),
            ("StartPeriod", self.start_period),
            ("StartInterval", self.start_interval),
        ] {
            if nanos != 0 && Duration::from_nanos(nanos) < SHORTEST {
                return Err(invalid(format!("{name} in Healthcheck cannot be less than 1ms")));
            }
        }
        if !self.test.is_empty() {
            self.test()?;
        }
        Ok(())
    }

    /// The test; `None` when there is to be none.
    fn test(&self) -> Result<Option<Test>> {
        let one = || match &self.test[..] {
            [_, one] if !one.is_empty() => Ok(one.as_str()),
            _ => Err(invalid(format!("Healthcheck {} takes one argument", self.test[0]))),
        };
        match self.test.first().map(String::as_str) {
            None | Some(NO_CHECK) => Ok(None),
            Some("CMD") if self.test.len() > 1 => Ok(Some(Test::Command(self.test[1..].to_vec()))),
            Some("CMD") => Err(invalid("Missing command after HEALTHCHECK CMD")),
            Some("CMD-SHELL") => {
                Ok(Some(Test::Command(vec!["/bin/sh".to_owned(), "-c".to_owned(), one()?.to_owned()])))
            }
            Some("HTTP") => Ok(Some(Test::Http(probe::http(one()?).map_err(invalid)?))),
            Some("TCP") => Ok(Some(Test::Tcp(probe::tcp(one()?).map_err(invalid)?))),
            Some(other) => Err(invalid(format!("Unknown type {other:?} in healthcheck (try CMD)"))),
        }
    }

    /// What is asked for where that says something, else what `image` says.
    #[must_use]
    pub fn over(&self, image: &Self) -> Self {
        let or = |own: u64, other: u64| if own == 0 { other } else { own };
        Self {
            test: if self.test.is_empty() { image.test.clone() } else { self.test.clone() },
            interval: or(self.interval, image.interval),
            timeout: or(self.timeout, image.timeout),
            start_period: or(self.start_period, image.start_period),
            start_interval: or(self.start_interval, image.start_interval),
            retries: if self.retries == 0 { image.retries } else { self.retries },
            on_failure: self.on_failure,
        }
    }

    /// The check that is in force; `None` when there is none.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn in_force(&self) -> Result<Option<Health>> {
        let Some(test) = self.test()? else { return Ok(None) };
        let or = |nanos: u64, other: Duration| if nanos == 0 { other } else { Duration::from_nanos(nanos) };
        Ok(Some(Health {
            test,
            interval: or(self.interval, INTERVAL),
            timeout: or(self.timeout, TIMEOUT),
            start_period: Duration::from_nanos(self.start_period),
            start_interval: or(self.start_interval, START_INTERVAL),
            retries: if self.retries == 0 { RETRIES } else { self.retries },
            on_failure: self.on_failure,
        }))
    }
}

/// Docker's field of an image's configuration, which OCI's doesn't have.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ImageHealth {
    test: Vec<String>,
    interval: i64,
    timeout: i64,
    start_period: i64,
    start_interval: i64,
    retries: i64,
}

/// The check in an image's configuration (JSON), if there is one.
#[must_use]
pub fn of_image(configuration: &str) -> Option<HealthConfig> {
    #[derive(Deserialize)]
    struct Image {
        config: Option<Config>,
    }
    #[derive(Deserialize)]
    struct Config {
        #[serde(rename = "Healthcheck")]
        health: Option<ImageHealth>,
    }
    let image: Image = serde_json::from_str(configuration).ok()?;
    let health = image.config?.health?;
    let nanos = |n: i64| u64::try_from(n).unwrap_or(0);
    let config = HealthConfig {
        test: health.test,
        interval: nanos(health.interval),
        timeout: nanos(health.timeout),
        start_period: nanos(health.start_period),
        start_interval: nanos(health.start_interval),
        retries: u32::try_from(health.retries).unwrap_or(0),
        on_failure: OnFailure::None,
    };
    // Data of an image is data: what makes no sense is no check. A probe of
    // ours is the user's to ask for.
    let foreign = config.test.first().is_some_and(|kind| kind.starts_with("CMD") || kind == NO_CHECK);
    (foreign && config.check().is_ok()).then_some(config)
}

/// What is known of a container's health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Nothing yet.
    Starting,
    /// The last probe went well.
    Healthy,
    /// So many probes in a row have failed.
    Unhealthy,
}

impl Status {
    /// The word of the database, filters and events.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }

    /// Reads the word; anything else is a container without a check.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        [Self::Starting, Self::Healthy, Self::Unhealthy].into_iter().find(|status| status.as_str() == word)
    }

    /// The action of the event that says so.
    #[must_use]
    pub fn event(self) -> &'static str {
        match self {
            Self::Starting => "health_status: starting",
            Self::Healthy => "health_status: healthy",
            Self::Unhealthy => "health_status: unhealthy",
        }
    }
}

/// A probe that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probed {
    /// Nanoseconds since the Unix epoch.
    pub start: u64,
    /// Nanoseconds since the Unix epoch.
    pub end: u64,
    /// 0 went well; -1 when there is no answer.
    pub exit_code: i32,
    /// What it has said, cut off.
    pub output: String,
}

/// What is remembered of a container's health.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// What is known.
    pub status: Status,
    /// Failures in a row.
    pub streak: u32,
    /// The last probes, oldest first.
    pub log: VecDeque<Probed>,
}

impl Default for State {
    fn default() -> Self {
        Self { status: Status::Starting, streak: 0, log: VecDeque::new() }
    }
}

impl State {
    /// What a probe makes of it. `started_at`: nanoseconds since the Unix
    /// epoch.
    #[must_use]
    pub fn after(mut self, probed: Probed, health: &Health, started_at: u64) -> Self {
        if probed.exit_code == 0 {
            self.status = Status::Healthy;
            self.streak = 0;
        } else {
            let age = Duration::from_nanos(probed.end.saturating_sub(started_at));
            if self.status != Status::Starting || age >= health.start_period {
                self.streak = self.streak.saturating_add(1);
            }
            if self.streak >= health.retries {
                self.status = Status::Unhealthy;
            }
        }
        self.log.push_back(probed);
        while self.log.len() > REMEMBERED {
            self.log.pop_front();
        }
        self
    }

    /// When the next probe is due; nanoseconds since the Unix epoch.
    #[must_use]
    pub fn next(&self, health: &Health, started_at: u64) -> u64 {
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let last = self.log.back().map_or(started_at, |probed| probed.end);
        let grace_ends = started_at.saturating_add(nanos(health.start_period));
        if self.status == Status::Starting && last < grace_ends {
            let interval = nanos(health.start_interval.min(health.interval));
            return last.saturating_add(interval);
        }
        last.saturating_add(nanos(health.interval))
    }

    /// How long it is until then; never longer than an interval, whatever
    /// became of the clock.
    #[must_use]
    pub fn wait(&self, health: &Health, started_at: u64, now: u64) -> Duration {
        let left = Duration::from_nanos(self.next(health, started_at).saturating_sub(now));
        left.min(health.interval.max(health.start_interval))
    }
}

/// What is kept of a probe's output.
#[must_use]
pub fn shortened(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(&output[..output.len().min(MAX_OUTPUT)]).into_owned();
    if output.len() > MAX_OUTPUT { text + "..." } else { text }
}

/// A duration as Docker says it in a probe's output.
#[must_use]
pub fn too_long(timeout: Duration) -> String {
    let (seconds, millis) = (timeout.as_secs(), timeout.subsec_millis());
    let text = match (seconds, millis) {
        (0, millis) => format!("{millis}ms"),
        (seconds, 0) if seconds % 60 == 0 => format!("{}m0s", seconds / 60),
        (seconds, 0) => format!("{seconds}s"),
        (seconds, millis) => format!("{seconds}.{millis:03}s"),
    };
    format!("Health check exceeded timeout ({text})")
}

/// Nanoseconds since the Unix epoch.
#[must_use]
pub fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn invalid(what: impl Into<String>) -> Error {
    Error::new(Kind::InvalidArgument, what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words(all: &[&str]) -> Vec<String> {
        all.iter().map(|word| (*word).to_owned()).collect()
    }

    fn config(test: &[&str]) -> HealthConfig {
        HealthConfig { test: words(test), ..HealthConfig::default() }
    }

    fn health() -> Health {
        config(&["CMD", "true"]).in_force().expect("valid").expect("a check")
    }

    fn probed(exit_code: i32, end: u64) -> Probed {
        Probed { start: end, end, exit_code, output: String::new() }
    }

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_change_leaves_what_it_does_not_name() {
        let nanos = 1_000_000_000;
        let before = HealthConfig {
            test: vec!["CMD".to_owned(), "a".to_owned()],
            interval: 5 * nanos,
            retries: 7,
            on_failure: OnFailure::Kill,
            ..HealthConfig::default()
        };
        let change = |config: HealthConfig| HealthChange { config, on_failure: None };
        let slower = change(HealthConfig { interval: 9 * nanos, ..HealthConfig::default() });
        let after = slower.apply(Some(&before)).expect("valid");
        assert_eq!(after, Some(HealthConfig { interval: 9 * nanos, ..before.clone() }));
        let none = HealthChange { on_failure: Some(OnFailure::None), ..HealthChange::default() };
        let after = none.apply(Some(&before)).expect("valid").expect("a check");
        assert_eq!(after, HealthConfig { on_failure: OnFailure::None, ..before.clone() });

        let away = change(HealthConfig::no_check());
        assert_eq!(away.apply(Some(&before)).expect("valid"), None);
        assert_eq!(away.apply(None).expect("valid"), None);
        for without in [None, Some(&HealthConfig::no_check())] {
            assert!(slower.apply(without).is_err());
        }
        let set = change(HealthConfig { test: before.test.clone(), ..HealthConfig::default() });
        assert_eq!(set.apply(None).expect("valid").expect("a check").test, before.test);
        let short = change(HealthConfig { timeout: 1, ..HealthConfig::default() });
        assert!(short.apply(Some(&before)).is_err());
        let unknown = change(HealthConfig { test: vec!["X".to_owned()], ..HealthConfig::default() });
        assert!(unknown.apply(Some(&before)).is_err());
    }

    #[test]
    fn three_failures_in_a_row_are_unhealthy_and_one_success_is_healthy() {
        let health = health();
        let mut state = State::default();
        for (code, expected) in [
            (1, Status::Starting),
            (1, Status::Starting),
            (1, Status::Unhealthy),
            (0, Status::Healthy),
            (1, Status::Healthy),
            (-1, Status::Healthy),
            (2, Status::Unhealthy),
            (3, Status::Unhealthy),
        ] {
            state = state.after(probed(code, SECOND), &health, 0);
            assert_eq!(state.status, expected, "{code}");
        }
        assert_eq!((state.streak, state.log.len()), (4, 5));
        assert_eq!(state.log.back().expect("the last").exit_code, 3);
    }

    #[test]
    fn a_start_period_forgives_until_it_is_over_or_all_was_well() {
        let health = Health { start_period: Duration::from_secs(60), retries: 1, ..health() };
        let state = State::default().after(probed(1, 59 * SECOND), &health, 0);
        assert_eq!((state.status, state.streak), (Status::Starting, 0));
        let late = state.clone().after(probed(1, 60 * SECOND), &health, 0);
        assert_eq!(late.status, Status::Unhealthy);
        let well = state.after(probed(0, SECOND), &health, 0).after(probed(1, 2 * SECOND), &health, 0);
        assert_eq!(well.status, Status::Unhealthy, "it has been up");
    }

    #[test]
    fn probes_are_more_often_in_the_start_period() {
        let health = Health { start_period: Duration::from_secs(60), ..health() };
        let fresh = State::default();
        assert_eq!(fresh.next(&health, SECOND), 6 * SECOND);
        let failed = fresh.after(probed(1, 10 * SECOND), &health, SECOND);
        assert_eq!(failed.next(&health, SECOND), 15 * SECOND);
        assert_eq!(failed.wait(&health, SECOND, 11 * SECOND), Duration::from_secs(4));
        let well = failed.after(probed(0, 15 * SECOND), &health, SECOND);
        assert_eq!(well.next(&health, SECOND), 45 * SECOND);
    }

    #[test]
    fn what_the_user_says_goes_over_what_the_image_says() {
        let image = r#"{"architecture":"amd64","config":{"Healthcheck":
            {"Test":["CMD-SHELL","curl -f localhost"],"Interval":5000000000,"Retries":7}}}"#;
        let image = of_image(image).expect("a check");
        assert_eq!((image.interval, image.retries), (5 * SECOND, 7));
        let own = HealthConfig { retries: 2, ..HealthConfig::default() };
        let both = own.over(&image).in_force().expect("valid").expect("a check");
        assert_eq!(both.test, Test::Command(words(&["/bin/sh", "-c", "curl -f localhost"])));
        assert_eq!((both.interval, both.retries), (Duration::from_secs(5), 2));
        assert_eq!(config(&["NONE"]).over(&image).in_force().expect("valid"), None);
        for data in [
            "",
            "{}",
            r#"{"config":{}}"#,
            r#"{"config":{"Healthcheck":{"Test":["EVIL"]}}}"#,
            r#"{"config":{"Healthcheck":{"Test":["HTTP","http://169.254.169.254/"]}}}"#,
            r#"{"config":{"Healthcheck":{"Test":["CMD"]}}}"#,
            r#"{"config":{"Healthcheck":{"Test":3}}}"#,
        ] {
            assert_eq!(of_image(data), None, "{data}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let short = HealthConfig { interval: 10, ..HealthConfig::default() };
        for (config, expected) in [
            (short, "Interval in Healthcheck cannot be less than 1ms"),
            (config(&["CMD"]), "Missing command"),
            (config(&["CMD-SHELL"]), "takes one argument"),
            (config(&["HTTP", "https://x/"]), "https"),
            (config(&["TCP", "x"]), "expected PORT"),
            (config(&["what"]), "Unknown type"),
        ] {
            let error = config.check().expect_err(expected);
            assert!(error.to_string().contains(expected), "{error}");
        }
        assert_eq!(too_long(Duration::from_secs(30)), "Health check exceeded timeout (30s)");
        assert_eq!(too_long(Duration::from_millis(1500)), "Health check exceeded timeout (1.500s)");
    }

    proptest! {
        #[test]
        fn a_wait_has_an_end(start in any::<u64>(), now in any::<u64>(), end in any::<u64>(), code in any::<i32>()) {
            let health = health();
            let state = State::default().after(probed(code, end), &health, start);
            prop_assert!(state.wait(&health, start, now) <= health.interval);
            prop_assert!(state.log.len() <= REMEMBERED);
        }

        #[test]
        fn output_is_bounded(bytes in proptest::collection::vec(any::<u8>(), 0..9000)) {
            // A byte that is no text becomes three.
            prop_assert!(shortened(&bytes).len() <= 3 * MAX_OUTPUT + 3);
        }
    }
}
