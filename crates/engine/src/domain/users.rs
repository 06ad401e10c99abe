// SPDX-License-Identifier: Apache-2.0
//! Users of a container's own: what `--userns` asks for, and which ids of the
//! host they are. Pure.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};

/// Ids that a container with users of its own gets: those that images use.
pub const SIZE: u32 = 65_536;

/// Where no administrator has said which ids are free: the upper half, which
/// distributions leave to nobody.
const DEFAULT_POOL: Range = Range { first: 1 << 31, count: (1 << 31) - 65_536 };

/// Whose ranges of /etc/subuid and /etc/subgid are meant.
const OWNERS: [&str; 2] = ["berth", "containers"];

/// Lines that the kernel takes (user_namespaces(7)).
const MAX_MAPS: usize = 340;

/// Ids of a container and what they are on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMap {
    /// The first, in the container.
    pub container: u32,
    /// The first, on the host.
    pub host: u32,
    /// How many.
    pub size: u32,
}

/// Which users a container has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Users {
    /// The host's.
    Host,
    /// A range that no other container has.
    Auto,
    /// These.
    Mapped(Vec<IdMap>),
}

/// Ids on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The first.
    pub first: u32,
    /// How many.
    pub count: u32,
}

/// What `--userns` says: empty or `host`, `auto`, or `CONTAINER:HOST:SIZE`,
/// separated by commas.
///
/// # Errors
/// `InvalidArgument`.
pub fn parse(text: &str) -> Result<Users> {
    match text {
        "" | "host" => Ok(Users::Host),
        "auto" => Ok(Users::Auto),
        _ => maps(text).map(Users::Mapped),
    }
}

fn maps(text: &str) -> Result<Vec<IdMap>> {
    let invalid =
        |why: &str| Error::new(Kind::InvalidArgument, format!("invalid userns mode {text:?}: {why}"));
    let read = |part: &str| {
        let numbers: Vec<u32> = part.split(':').map(|n| n.parse().ok()).collect::<Option<_>>()?;
        let [container, host, size] = numbers[..] else { return None };
        Some(IdMap { container, host, size })
    };
    let maps: Option<Vec<_>> = text.split(',').map(read).collect();
    let maps = maps.ok_or_else(|| invalid("expected host, auto or CONTAINER:HOST:SIZE[,...]"))?;
    if maps.len() > MAX_MAPS {
        return Err(invalid("more than 340 mappings"));
    }
    if !maps.iter().any(|map| map.container == 0 && map.size > 0) {
        return Err(invalid("the container's id 0 is not mapped"));
    }
    for (at, map) in maps.iter().enumerate() {
        let fits = |first: u32| map.size > 0 && first.checked_add(map.size).is_some();
        if !fits(map.container) || !fits(map.host) {
            return Err(invalid("a mapping is empty, or goes beyond the last id"));
        }
        let meets = |a: u32, b: u32, size: u32| a < b + size && b < a + map.size;
        let clash = |other: &IdMap| {
            meets(map.container, other.container, other.size) || meets(map.host, other.host, other.size)
        };
        if maps[..at].iter().any(clash) {
            return Err(invalid("mappings overlap"));
        }
    }
    Ok(maps)
}

/// The ids that containers may be given: what /etc/subuid and /etc/subgid both
/// give to the user `berth`, else to `containers`; the upper half of all ids
/// where they name neither.
#[must_use]
pub fn pool(subuid: &str, subgid: &str) -> Vec<Range> {
    for owner in OWNERS {
        let groups = ranges_of(subgid, owner);
        let both: Vec<_> = ranges_of(subuid, owner).into_iter().filter(|r| groups.contains(r)).collect();
        if !both.is_empty() {
            return both;
        }
    }
    vec![DEFAULT_POOL]
}

fn ranges_of(text: &str, owner: &str) -> Vec<Range> {
    let range = |line: &str| {
        let mut fields = line.split(':');
        let named = fields.next()? == owner;
        let (first, count) = (fields.next()?.trim().parse().ok()?, fields.next()?.trim().parse().ok()?);
        named.then_some(Range { first, count })
    };
    text.lines().filter_map(range).collect()
}

/// The first place in `pool` for [`SIZE`] ids that nobody in `used` has.
#[must_use]
pub fn free(pool: &[Range], used: &[IdMap]) -> Option<IdMap> {
    let candidates = pool.iter().flat_map(|range| {
        let places = range.count / SIZE;
        (0..places).filter_map(|n| range.first.checked_add(n * SIZE))
    });
    let taken = |first: u32| {
        let (first, end) = (u64::from(first), u64::from(first) + u64::from(SIZE));
        used.iter().any(|map| {
            let (other, size) = (u64::from(map.host), u64::from(map.size));
            first < other + size && other < end
        })
    };
    let host = candidates.into_iter().find(|first| !taken(*first))?;
    Some(IdMap { container: 0, host, size: SIZE })
}

/// What id `container` is on the host.
#[must_use]
pub fn host_id(maps: &[IdMap], container: u32) -> Option<u32> {
    let map = maps.iter().find(|map| (map.container..map.container + map.size).contains(&container))?;
    Some(map.host + (container - map.container))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_can_be_asked_for() {
        assert_eq!(parse("").expect("valid"), Users::Host);
        assert_eq!(parse("host").expect("valid"), Users::Host);
        assert_eq!(parse("auto").expect("valid"), Users::Auto);
        let Users::Mapped(maps) = parse("0:1000:1,1:100000:65535").expect("valid") else { panic!("maps") };
        assert_eq!(maps[1], IdMap { container: 1, host: 100_000, size: 65_535 });
        assert_eq!(
            (host_id(&maps, 0), host_id(&maps, 2), host_id(&maps, 65_536)),
            (Some(1000), Some(100_001), None)
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        for (text, why) in [
            ("keep-id", "expected host, auto or CONTAINER:HOST:SIZE[,...]"),
            ("0:1000", "expected host, auto or CONTAINER:HOST:SIZE[,...]"),
            ("1:1000:5", "the container's id 0 is not mapped"),
            ("0:1000:0", "the container's id 0 is not mapped"),
            ("0:4294967295:5", "a mapping is empty, or goes beyond the last id"),
            ("0:1000:10,5:5000:10", "mappings overlap"),
            ("0:1000:10,20:1005:10", "mappings overlap"),
        ] {
            let error = parse(text).expect_err(text).chain();
            assert_eq!(error, format!("invalid userns mode {text:?}: {why}"));
        }
    }

    #[test]
    fn the_administrator_says_which_ids_there_are() {
        let subuid = "root:1:5\ncontainers:2147483648:131072\nberth:500000:65536\n";
        assert_eq!(pool(subuid, subuid), [Range { first: 500_000, count: 65_536 }]);
        let subgid = "containers:2147483648:131072\n";
        assert_eq!(pool(subuid, subgid), [Range { first: 1 << 31, count: 131_072 }]);
        assert_eq!(pool("", "rubbish\n::\n"), [DEFAULT_POOL]);
    }

    proptest! {
        #[test]
        fn nobody_shares_ids(count in 1_usize..40, foreign in any::<u32>()) {
            let pool = [Range { first: 100_000, count: SIZE * 30 + 5 }, Range { first: u32::MAX - SIZE, count: SIZE }];
            let mut used = vec![IdMap { container: 0, host: foreign, size: 1 }];
            for _ in 0..count {
                let Some(map) = free(&pool, &used) else { break };
                for other in &used {
                    let apart = u64::from(map.host) + u64::from(map.size) <= u64::from(other.host)
                        || u64::from(other.host) + u64::from(other.size) <= u64::from(map.host);
                    prop_assert!(apart, "{map:?} {other:?}");
                }
                used.push(map);
            }
            prop_assert!(used.len() >= count.min(29));
        }
    }
}
