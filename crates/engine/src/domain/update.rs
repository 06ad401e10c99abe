// SPDX-License-Identifier: Apache-2.0
//! Changes to a container that is there: its limits and labels. Pure.

use std::collections::BTreeMap;

use super::{
    container::{Document, HostConfig},
    health::{HealthChange, HealthConfig},
    restart::RestartPolicy,
    validate,
};
use crate::error::{Error, Kind, Result};

/// What is to change; what is unset stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Bytes; 0 is no limit.
    pub memory: Option<i64>,
    /// Bytes of memory and swap; 0 is twice the memory, -1 no limit.
    pub memory_swap: Option<i64>,
    /// Bytes; 0 is none.
    pub memory_reservation: Option<i64>,
    /// Thousand-millionths of a CPU; 0 is no limit.
    pub nano_cpus: Option<i64>,
    /// Relative weight; 0 is the default.
    pub cpu_shares: Option<u64>,
    /// Microseconds; 0 is the default.
    pub cpu_period: Option<i64>,
    /// Microseconds; 0 and -1 are no limit.
    pub cpu_quota: Option<i64>,
    /// CPUs to run on.
    pub cpuset_cpus: Option<String>,
    /// Memory nodes to use.
    pub cpuset_mems: Option<String>,
    /// Most processes; 0 and -1 are no limit.
    pub pids_limit: Option<i64>,
    /// 10 to 1000.
    pub blkio_weight: Option<u16>,
    /// When it is started again of itself.
    pub restart: Option<RestartPolicy>,
    /// Options of the log's driver to set; empty takes one away.
    pub log_options: BTreeMap<String, String>,
    /// How its health is checked.
    pub health: Option<HealthChange>,
    /// Labels to set.
    pub add_labels: BTreeMap<String, String>,
    /// Labels to take away.
    pub remove_labels: Vec<String>,
}

impl Changes {
    /// `document` with the changes.
    ///
    /// # Errors
    /// `InvalidArgument` when there are none, and naming the first that can't
    /// be made.
    pub fn apply(&self, document: &Document) -> Result<Document> {
        if *self == Self::default() {
            return Err(invalid("You must provide one or more flags when using this command."));
        }
        let mut changed = document.clone();
        self.limits(&mut changed.config.host)?;
        let log = &mut changed.config.host.log;
        for (name, value) in &self.log_options {
            if value.is_empty() && log.options.remove(name).is_some() {
                continue;
            }
            log.options.insert(name.clone(), value.clone());
        }
        log.check()?;
        if let Some(change) = &self.health {
            let health = change.apply(document.effective.health.as_ref())?;
            changed.config.health = Some(health.clone().unwrap_or_else(HealthConfig::no_check));
            changed.effective.health = health;
        }
        validate::label_names(self.add_labels.keys())?;
        for labels in [&mut changed.config.labels, &mut changed.effective.labels] {
            labels.retain(|name, _| !self.remove_labels.contains(name));
            labels.extend(self.add_labels.clone());
        }
        Ok(changed)
    }

    fn limits(&self, host: &mut HostConfig) -> Result<()> {
        let bad_set = |list: &Option<String>| list.as_ref().is_some_and(String::is_empty);
        if bad_set(&self.cpuset_cpus) || bad_set(&self.cpuset_mems) {
            return Err(invalid("an empty set of CPUs or memory nodes can't be set: name those to use"));
        }
        if self.blkio_weight == Some(0) {
            return Err(invalid("Range of blkio weight is from 10 to 1000"));
        }
        set(&mut host.memory, self.memory);
        set(&mut host.memory_swap, self.memory_swap);
        set(&mut host.memory_reservation, self.memory_reservation);
        set(&mut host.nano_cpus, self.nano_cpus);
        set(&mut host.cpu_shares, self.cpu_shares);
        set(&mut host.cpu_period, self.cpu_period);
        set(&mut host.cpu_quota, self.cpu_quota);
        set(&mut host.cpuset_cpus, self.cpuset_cpus.clone());
        set(&mut host.cpuset_mems, self.cpuset_mems.clone());
        set(&mut host.blkio_weight, self.blkio_weight);
        host.pids_limit = self.pids_limit.or(host.pids_limit);
        if let Some(policy) = self.restart {
            if host.auto_remove && !policy.is_no() {
                let what = "Restart policy cannot be updated because AutoRemove is enabled for the container";
                return Err(invalid(what));
            }
            host.restart = policy;
        }
        if host.memory_swap > 0 && self.memory_swap.is_none() {
            // No limit of memory, none of both together.
            if host.memory == 0 {
                host.memory_swap = 0;
            } else if host.memory > host.memory_swap {
                return Err(invalid(
                    "Memory limit should be smaller than already set memoryswap limit, \
                     update the memoryswap at the same time",
                ));
            }
        }
        validate::resources(host)
    }
}

fn set<T>(field: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *field = value;
    }
}

fn invalid(message: &str) -> Error {
    Error::new(Kind::InvalidArgument, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(list: &[(&str, &str)]) -> BTreeMap<String, String> {
        list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn what_is_not_named_stays() {
        let mut document = Document::default();
        document.config.host.memory = 64 << 20;
        document.config.labels = labels(&[("own", "1")]);
        document.effective.labels = labels(&[("own", "1"), ("images", "2")]);
        let changes = Changes {
            nano_cpus: Some(500_000_000),
            add_labels: labels(&[("new", "3")]),
            remove_labels: vec!["images".to_owned(), "own".to_owned()],
            ..Changes::default()
        };
        let changed = changes.apply(&document).expect("valid");
        assert_eq!((changed.config.host.memory, changed.config.host.nano_cpus), (64 << 20, 500_000_000));
        assert_eq!(changed.effective.labels, labels(&[("new", "3")]));
        assert_eq!(changed.config.labels, labels(&[("new", "3")]));
    }

    #[test]
    fn what_can_not_be_is_refused() {
        let mut document = Document::default();
        document.config.host.memory = 64 << 20;
        document.config.host.memory_swap = 100 << 20;
        document.config.host.nano_cpus = 1_000_000_000;
        for (changes, words) in [
            (Changes::default(), "one or more flags"),
            (Changes { memory: Some(200 << 20), ..Changes::default() }, "already set memoryswap limit"),
            (Changes { memory: Some(1), ..Changes::default() }, "6MB"),
            (Changes { cpu_quota: Some(5000), ..Changes::default() }, "Nano CPUs and CPU Quota"),
            (Changes { cpuset_cpus: Some(String::new()), ..Changes::default() }, "empty set"),
            (Changes { cpuset_mems: Some("x".to_owned()), ..Changes::default() }, "cpuset mems"),
            (Changes { blkio_weight: Some(5), ..Changes::default() }, "blkio weight"),
            (Changes { add_labels: labels(&[("berth.x", "")]), ..Changes::default() }, "berth.x"),
            (Changes { health: Some(HealthChange::default()), ..Changes::default() }, "no health check"),
        ] {
            let error = changes.apply(&document).expect_err(words);
            assert!(error.to_string().contains(words), "{error}");
        }
        let log = |value: &str| {
            let log_options = labels(&[("max-size", value)]);
            Changes { log_options, ..Changes::default() }.apply(&document)
        };
        assert!(log("x").expect_err("refused").to_string().contains("invalid value"));
        let set = log("1m").expect("valid");
        assert_eq!(set.config.host.log.option("max-size"), Some("1m"));
        let unset = Changes { log_options: labels(&[("max-size", "")]), ..Changes::default() };
        assert_eq!(unset.apply(&set).expect("valid").config.host.log.option("max-size"), None);
        let lifted = Changes { memory: Some(0), ..Changes::default() }.apply(&document).expect("valid");
        assert_eq!((lifted.config.host.memory, lifted.config.host.memory_swap), (0, 0));
    }
}
