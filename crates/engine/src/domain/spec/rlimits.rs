// SPDX-License-Identifier: Apache-2.0
//! Resource limits of a container's processes: setrlimit(2).

use oci_spec::runtime::{PosixRlimit, PosixRlimitBuilder, PosixRlimitType};

use crate::{
    domain::container::Ulimit,
    error::{Error, Kind, Result},
};

/// The user's limits.
///
/// # Errors
/// `InvalidArgument` for an unknown name, a doubled one, or a soft limit
/// above the hard one.
pub fn resolve(ulimits: &[Ulimit]) -> Result<Vec<PosixRlimit>> {
    let mut all: Vec<PosixRlimit> = Vec::new();
    for ulimit in ulimits {
        let limit = one(ulimit)?;
        if all.iter().any(|other| other.typ() == limit.typ()) {
            return Err(invalid(format!("ulimit {:?} is given twice", ulimit.name)));
        }
        all.push(limit);
    }
    Ok(all)
}

/// `defaults`, with those of `own` in their place.
#[must_use]
pub fn merge(defaults: &[PosixRlimit], own: Vec<PosixRlimit>) -> Vec<PosixRlimit> {
    let kept = defaults.iter().filter(|d| own.iter().all(|o| o.typ() != d.typ())).cloned();
    kept.chain(own.iter().cloned()).collect()
}

fn one(ulimit: &Ulimit) -> Result<PosixRlimit> {
    let typ = kind(&ulimit.name).ok_or_else(|| invalid(format!("invalid ulimit type: {}", ulimit.name)))?;
    let (soft, hard) = (value(ulimit.soft)?, value(ulimit.hard)?);
    if soft > hard {
        return Err(invalid(format!(
            "ulimit soft limit must be less than or equal to hard limit: {} > {}",
            ulimit.soft, ulimit.hard
        )));
    }
    limit(typ, soft, hard)
}

/// One limit; `u64::MAX` is unlimited.
///
/// # Errors
/// `Internal`: never, with all three given.
pub fn limit(typ: PosixRlimitType, soft: u64, hard: u64) -> Result<PosixRlimit> {
    PosixRlimitBuilder::default()
        .typ(typ)
        .soft(soft)
        .hard(hard)
        .build()
        .map_err(|e| Error::new(Kind::Internal, "describe a resource limit").with_source(e))
}

fn value(number: i64) -> Result<u64> {
    match number {
        -1 => Ok(u64::MAX),
        n => u64::try_from(n).map_err(|_| invalid(format!("invalid ulimit value: {n}"))),
    }
}

fn invalid(message: String) -> Error {
    Error::new(Kind::InvalidArgument, message)
}

fn kind(name: &str) -> Option<PosixRlimitType> {
    Some(match name {
        "core" => PosixRlimitType::RlimitCore,
        "cpu" => PosixRlimitType::RlimitCpu,
        "data" => PosixRlimitType::RlimitData,
        "fsize" => PosixRlimitType::RlimitFsize,
        "locks" => PosixRlimitType::RlimitLocks,
        "memlock" => PosixRlimitType::RlimitMemlock,
        "msgqueue" => PosixRlimitType::RlimitMsgqueue,
        "nice" => PosixRlimitType::RlimitNice,
        "nofile" => PosixRlimitType::RlimitNofile,
        "nproc" => PosixRlimitType::RlimitNproc,
        "rss" => PosixRlimitType::RlimitRss,
        "rtprio" => PosixRlimitType::RlimitRtprio,
        "rttime" => PosixRlimitType::RlimitRttime,
        "sigpending" => PosixRlimitType::RlimitSigpending,
        "stack" => PosixRlimitType::RlimitStack,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ulimit(name: &str, soft: i64, hard: i64) -> Ulimit {
        Ulimit { name: name.to_owned(), soft, hard }
    }

    #[test]
    fn the_users_limit_replaces_the_default() {
        let defaults = resolve(&[ulimit("nofile", 1024, 4096), ulimit("core", 0, 0)]).expect("valid");
        let all = merge(&defaults, resolve(&[ulimit("nofile", -1, -1)]).expect("valid"));
        assert_eq!(all.len(), 2);
        assert_eq!((all[1].soft(), all[1].hard()), (u64::MAX, u64::MAX));
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in
            [ulimit("files", 1, 1), ulimit("nofile", -2, 1), ulimit("nofile", 2, 1), ulimit("nofile", -1, 1)]
        {
            assert!(resolve(std::slice::from_ref(&bad)).is_err(), "{bad:?}");
        }
        assert!(resolve(&[ulimit("core", 1, 1), ulimit("core", 2, 2)]).is_err());
    }
}
