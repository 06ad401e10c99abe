// SPDX-License-Identifier: Apache-2.0
//! Which ids a container's user namespace has, and by how much its clocks are
//! off the host's.

use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxIdMappingBuilder};

use super::{
    super::error::{Error, Result},
    namespaces::Namespaces,
};

/// Lines that uid_map and gid_map take (user_namespaces(7)).
const MAX_RANGES: usize = 340;

/// Ids inside of a user namespace and what they are outside.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct IdMaps {
    pub(crate) users: Vec<Range>,
    pub(crate) groups: Vec<Range>,
}

/// A line of a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) inside: u32,
    pub(crate) outside: u32,
    pub(crate) size: u32,
}

impl Range {
    /// As the kernel takes it.
    pub(crate) fn line(self) -> String {
        format!("{} {} {}\n", self.inside, self.outside, self.size)
    }
}

impl IdMaps {
    /// The maps of a mount: both or none. `field` says which mount.
    pub(super) fn of_mount(mount: &oci_spec::runtime::Mount, field: &str) -> Result<Option<Self>> {
        let users = ranges(mount.uid_mappings().as_deref(), &format!("{field}.uidMappings"))?;
        let groups = ranges(mount.gid_mappings().as_deref(), &format!("{field}.gidMappings"))?;
        Self::both(users, groups, field)
    }

    /// Maps as containerd writes them into the options of a root file system:
    /// `container:host:size`, separated by commas.
    pub(super) fn of_options(users: &str, groups: &str) -> Result<Option<Self>> {
        let read = |text: &str, field: &str| {
            let list: Option<Vec<_>> = text.split(',').filter(|part| !part.is_empty()).map(mapping).collect();
            let invalid = || Error::invalid(format!("{field}: {text:?} is not container:host:size"));
            ranges(Some(&list.ok_or_else(invalid)?), field)
        };
        Self::both(read(users, "rootfs: uidmap")?, read(groups, "rootfs: gidmap")?, "rootfs")
    }

    fn both(users: Vec<Range>, groups: Vec<Range>, field: &str) -> Result<Option<Self>> {
        match (users.is_empty(), groups.is_empty()) {
            (true, true) => Ok(None),
            (false, false) => Ok(Some(Self { users, groups })),
            _ => Err(Error::invalid(format!("{field}: mappings of users and of groups go together"))),
        }
    }
}

fn mapping(text: &str) -> Option<LinuxIdMapping> {
    let numbers: Vec<u32> = text.split(':').map(|n| n.parse().ok()).collect::<Option<_>>()?;
    let [container, host, size] = numbers[..] else { return None };
    LinuxIdMappingBuilder::default().container_id(container).host_id(host).size(size).build().ok()
}

/// The maps of a user namespace: those that a new one gets, or those that a
/// joined one is said to have. `None` without one, or where nothing is said.
pub(super) fn maps(linux: &Linux, namespaces: &Namespaces) -> Result<Option<IdMaps>> {
    let users = ranges(linux.uid_mappings().as_deref(), "linux.uidMappings")?;
    let groups = ranges(linux.gid_mappings().as_deref(), "linux.gidMappings")?;
    if !namespaces.has_new_users() {
        if users.is_empty() && groups.is_empty() {
            return Ok(None);
        }
        if namespaces.users.is_some() {
            return IdMaps::both(users, groups, "linux");
        }
        let why = "linux.uidMappings, linux.gidMappings: there are mappings, but no user namespace";
        return Err(Error::invalid(why));
    }
    for (list, field) in [(&users, "linux.uidMappings"), (&groups, "linux.gidMappings")] {
        if !list.iter().any(|range| range.inside == 0) {
            return Err(Error::invalid(format!(
                "{field}: a new user namespace needs a mapping for its id 0"
            )));
        }
    }
    Ok(Some(IdMaps { users, groups }))
}

fn ranges(list: Option<&[LinuxIdMapping]>, field: &str) -> Result<Vec<Range>> {
    let list = list.unwrap_or_default();
    if list.len() > MAX_RANGES {
        return Err(Error::invalid(format!("{field}: more than {MAX_RANGES} mappings")));
    }
    let ranges: Vec<Range> = list
        .iter()
        .map(|m| Range { inside: m.container_id(), outside: m.host_id(), size: m.size() })
        .collect();
    for (at, range) in ranges.iter().enumerate() {
        if range.size == 0 {
            return Err(Error::invalid(format!("{field}: a mapping of no ids")));
        }
        let fits = |first: u32| first.checked_add(range.size - 1).is_some_and(|last| last < u32::MAX);
        if !fits(range.inside) || !fits(range.outside) {
            return Err(Error::invalid(format!("{field}: a mapping of ids above {}", u32::MAX - 1)));
        }
        let overlaps = |a: u32, b: u32, size: u32| a < b + size && b < a + range.size;
        if ranges[..at].iter().any(|other| {
            overlaps(range.inside, other.inside, other.size)
                || overlaps(range.outside, other.outside, other.size)
        }) {
            return Err(Error::invalid(format!("{field}: mappings overlap")));
        }
    }
    Ok(ranges)
}

/// Lines for /proc/self/timens_offsets; empty without a new time namespace.
pub(super) fn time_offsets(linux: &Linux, namespaces: &Namespaces) -> Result<Vec<String>> {
    let offsets = linux.time_offsets().iter().flatten();
    let mut lines = Vec::new();
    for (clock, offset) in offsets {
        if !namespaces.new_time {
            return Err(Error::invalid("linux.timeOffsets: there is no new time namespace"));
        }
        if !matches!(clock.as_str(), "monotonic" | "boottime") {
            return Err(Error::invalid(format!(
                "linux.timeOffsets: {clock:?}: only monotonic and boottime are known"
            )));
        }
        let nanoseconds = offset.nanosecs().unwrap_or(0);
        if nanoseconds > 999_999_999 {
            return Err(Error::invalid(format!(
                "linux.timeOffsets: {clock}: {nanoseconds} ns are more than a second"
            )));
        }
        lines.push(format!("{clock} {} {nanoseconds}\n", offset.secs().unwrap_or(0)));
    }
    lines.sort();
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::{LinuxBuilder, LinuxNamespaceBuilder, LinuxNamespaceType, LinuxTimeOffset};

    use super::{super::namespaces, *};
    use crate::runtime::error::Kind;

    fn linux(kinds: &[LinuxNamespaceType], maps: &[(u32, u32, u32)]) -> Linux {
        let namespaces: Vec<_> = kinds
            .iter()
            .map(|kind| LinuxNamespaceBuilder::default().typ(*kind).build().expect("namespace"))
            .collect();
        let map = |(inside, outside, size): &(u32, u32, u32)| {
            let builder =
                LinuxIdMappingBuilder::default().container_id(*inside).host_id(*outside).size(*size);
            builder.build().expect("mapping")
        };
        let maps: Vec<_> = maps.iter().map(map).collect();
        let builder = LinuxBuilder::default().namespaces(namespaces);
        builder.uid_mappings(maps.clone()).gid_mappings(maps).build().expect("linux")
    }

    fn maps_of(kinds: &[LinuxNamespaceType], list: &[(u32, u32, u32)]) -> Result<Option<IdMaps>> {
        let linux = linux(kinds, list);
        maps(&linux, &namespaces::plan(&linux)?)
    }

    #[test]
    fn maps_need_a_namespace_and_it_needs_them() {
        use LinuxNamespaceType::{Mount, User};
        let maps =
            maps_of(&[Mount, User], &[(0, 1000, 1), (1, 100_000, 65_536)]).expect("maps").expect("some");
        assert_eq!(maps.users[1].line(), "1 100000 65536\n");
        assert_eq!(maps_of(&[Mount], &[]).expect("none"), None);
        for (kinds, list) in [
            (&[Mount][..], &[(0, 1000, 1)][..]),
            (&[Mount, User], &[]),
            (&[Mount, User], &[(1, 1000, 1)]),
            (&[Mount, User], &[(0, 1000, 0)]),
            (&[Mount, User], &[(0, 1000, 10), (5, 5000, 10)]),
            (&[Mount, User], &[(0, 1000, 10), (20, 1009, 10)]),
            (&[Mount, User], &[(0, u32::MAX - 1, 2)]),
        ] {
            assert_eq!(maps_of(kinds, list).expect_err("refused").kind(), Kind::InvalidSpec, "{list:?}");
        }
    }

    #[test]
    fn clocks_are_named() {
        use LinuxNamespaceType::{Mount, Time};
        let lines = |kinds: &[LinuxNamespaceType], clock: &str| {
            let mut linux = linux(kinds, &[]);
            let offset: LinuxTimeOffset =
                serde_json::from_str(r#"{"secs": -5, "nanosecs": 7}"#).expect("offset");
            linux.set_time_offsets(Some([(clock.to_owned(), offset)].into()));
            time_offsets(&linux, &namespaces::plan(&linux)?)
        };
        assert_eq!(lines(&[Mount, Time], "monotonic").expect("lines"), ["monotonic -5 7\n"]);
        assert_eq!(lines(&[Mount, Time], "realtime").expect_err("clock").kind(), Kind::InvalidSpec);
        assert_eq!(lines(&[Mount], "monotonic").expect_err("namespace").kind(), Kind::InvalidSpec);
    }
}
