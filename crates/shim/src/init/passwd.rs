// SPDX-License-Identifier: Apache-2.0
//! `/etc/passwd` and `/etc/group` of a container, and what `user[:group]`
//! means with them. Pure; the text is the image's, so nothing in it is
//! trusted: a line that makes no sense is not there (D10).

use crate::runtime::{Error, Result};

/// The highest id: 0xFFFF_FFFF means "unchanged" to the kernel.
const MAX_ID: u32 = u32::MAX - 1;

/// Who a process is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Contains `gid`; sorted, no doubles.
    pub groups: Vec<u32>,
    /// Absolute; `/` when passwd says nothing better.
    pub home: String,
}

struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

/// One part of `user[:group]`.
enum Part<'a> {
    Number(u32),
    Name(&'a str),
}

/// Looks `user[:group[:more,...]]` up, Docker's way: digits are an id and never
/// a name, a group that is given replaces those that the user is a member of,
/// and `more` are beyond all of them.
///
/// # Errors
/// `InvalidSpec` for a name that isn't there and for a number out of range.
pub fn look_up(user: &str, additional: &[u32], passwd: &[u8], group: &[u8]) -> Result<User> {
    let mut parts = user.splitn(3, ':');
    let user = parts.next().unwrap_or_default();
    let wanted = parts.next().filter(|group| !group.is_empty());
    let more = parts.next().into_iter().flat_map(|more| more.split(','));
    let more = more.map(|name| additional_group(name, group)).collect::<Result<Vec<_>>>()?;
    let part = if user.is_empty() { Part::Number(0) } else { Part::parse(user)? };
    let account = match part {
        Part::Number(uid) => accounts(passwd).find(|account| account.uid == uid),
        Part::Name(name) => Some(accounts(passwd).find(|account| account.name == name).ok_or_else(|| {
            Error::invalid(format!(
                "unable to find user {}: no matching entries in passwd file",
                name.escape_debug()
            ))
        })?),
    };
    let uid = match part {
        Part::Number(uid) => uid,
        Part::Name(_) => account.as_ref().map_or(0, |account| account.uid),
    };
    let gid = match wanted {
        Some(wanted) => find_group(wanted, group)?,
        None => account.as_ref().map_or(0, |account| account.gid),
    };
    let member_of = match (&account, wanted) {
        (Some(account), None) => groups_of(account.name, group),
        _ => Vec::new(),
    };
    let home = account.map_or("", |account| account.home);
    Ok(user_of(uid, gid, member_of.iter().chain(additional).chain(&more), home))
}

/// The part of what is looked up that was asked for as the user.
#[must_use]
pub fn asked(lookup: &str) -> &str {
    let end = lookup.match_indices(':').nth(1).map_or(lookup.len(), |(at, _)| at);
    lookup[..end].trim_end_matches(':')
}

/// A user by numbers, in these groups and no other; passwd only says where
/// its home is.
pub fn by_number(uid: u32, gid: u32, additional: &[u32], passwd: &[u8]) -> User {
    let home = accounts(passwd).find(|account| account.uid == uid).map_or("", |account| account.home);
    User { groups: sorted(additional.iter().copied()), ..user_of(uid, gid, [].iter(), home) }
}

/// What passwd calls a user.
#[must_use]
pub fn name_of(uid: u32, passwd: &[u8]) -> Option<&str> {
    accounts(passwd).find(|account| account.uid == uid).map(|account| account.name)
}

fn sorted(groups: impl Iterator<Item = u32>) -> Vec<u32> {
    let mut groups: Vec<_> = groups.collect();
    groups.sort_unstable();
    groups.dedup();
    groups
}

fn user_of<'a>(uid: u32, gid: u32, groups: impl Iterator<Item = &'a u32>, home: &str) -> User {
    let groups = sorted(groups.copied().chain([gid]));
    let home = if home.starts_with('/') { home } else { "/" };
    User { uid, gid, groups, home: home.to_owned() }
}

impl<'a> Part<'a> {
    fn parse(text: &'a str) -> Result<Self> {
        if !text.bytes().all(|b| b.is_ascii_digit()) {
            return Ok(Self::Name(text));
        }
        id(text)
            .map(Self::Number)
            .ok_or_else(|| Error::invalid(format!("{text}: uids and gids must be in range 0-{MAX_ID}")))
    }
}

fn find_group(wanted: &str, group: &[u8]) -> Result<u32> {
    match Part::parse(wanted)? {
        Part::Number(gid) => Ok(gid),
        Part::Name(name) => named(name, group).ok_or_else(|| {
            let name = name.escape_debug();
            Error::invalid(format!("unable to find group {name}: no matching entries in group file"))
        }),
    }
}

/// Docker writes this one with a capital letter.
fn additional_group(name: &str, group: &[u8]) -> Result<u32> {
    named(name, group).ok_or_else(|| {
        Error::invalid(format!("Unable to find group {name}: no matching entries in group file"))
    })
}

fn named(name: &str, group: &[u8]) -> Option<u32> {
    fields(group).filter(|f| f.first() == Some(&name)).find_map(|f| id(f.get(2)?))
}

fn groups_of(name: &str, group: &[u8]) -> Vec<u32> {
    let member = |f: &Vec<&str>| f.get(3).is_some_and(|list| list.split(',').any(|member| member == name));
    fields(group).filter(member).filter_map(|f| id(f.get(2)?)).collect()
}

fn accounts(passwd: &[u8]) -> impl Iterator<Item = Account<'_>> {
    fields(passwd).filter_map(|f| {
        let home = f.get(5).copied().unwrap_or_default();
        Some(Account { name: f[0], uid: id(f.get(2)?)?, gid: id(f.get(3)?)?, home })
    })
}

/// The fields of the lines that are text and have a name.
fn fields(file: &[u8]) -> impl Iterator<Item = Vec<&str>> {
    file.split(|byte| *byte == b'\n')
        .filter_map(|line| std::str::from_utf8(line).ok())
        .map(|line| line.trim_end_matches('\r').split(':').collect::<Vec<_>>())
        .filter(|fields| !fields[0].is_empty())
}

/// An id: digits only, and one that the kernel takes.
fn id(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|id| digits && *id <= MAX_ID)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\nweb:x:1000:100:Web:/srv/web:/bin/sh\n\
        1000:x:0:0:trap:/:/bin/sh\nwrap:x:4294967296:0::/:\nlast:x:4294967295:0::/:\nminus:x:-1:0::/:\n\
        noid:x::0::/:\nshort\n:x:7:7::/:\n\xff:x:8:8::/:\n99999999999:x:0:0::/:\n";
    const GROUP: &[u8] = b"root:x:0:\nusers:x:100:\nlogs:x:200:web,root\nmany:x:300:a,web\nweb:x:bad:web\n\
        wide:x:4294967295:web\n5000:x:0:\n";

    fn of(user: &str) -> Result<User> {
        look_up(user, &[], PASSWD, GROUP)
    }

    fn ids(user: &str) -> (u32, u32) {
        let user = of(user).expect(user);
        (user.uid, user.gid)
    }

    #[test]
    fn names_and_numbers() {
        assert_eq!(ids("web"), (1000, 100));
        assert_eq!(ids("web:logs"), (1000, 200));
        assert_eq!(ids("web:5"), (1000, 5));
        assert_eq!(ids("1:2"), (1, 2));
        assert_eq!(ids("1"), (1, 0));
        assert_eq!(ids(":2"), (0, 2));
        assert_eq!(ids("4294967294"), (4_294_967_294, 0));
    }

    #[test]
    fn digits_are_never_a_name() {
        assert_eq!(ids("1000"), (1000, 100));
        assert_eq!(ids("1:5000"), (1, 5000));
        for wide in ["4294967295", "4294967296", "99999999999", "1:4294967295"] {
            assert!(
                of(wide).expect_err(wide).to_string().contains("must be in range 0-4294967294"),
                "{wide}"
            );
        }
    }

    #[test]
    fn unknown_names_are_errors_in_dockers_words() {
        for name in ["foo", " 1", "0x1", "+1", "-1", "wrap", "last", "minus", "noid", "short"] {
            let expected = format!("unable to find user {name}: no matching entries in passwd file");
            assert_eq!(of(name).expect_err(name).to_string(), expected);
        }
        let expected = "unable to find group web: no matching entries in group file";
        assert_eq!(of("web:web").expect_err("its id is bad").to_string(), expected);
    }

    #[test]
    fn the_primary_group_is_one_of_the_groups() {
        assert_eq!(of("web").expect("web").groups, [100, 200, 300]);
        assert_eq!(of("web:users").expect("web").groups, [100]);
        assert_eq!(look_up("1000", &[7], PASSWD, GROUP).expect("web").groups, [7, 100, 200, 300]);
        assert_eq!(by_number(5, 6, &[9, 6, 9], PASSWD).groups, [6, 9]);
    }

    #[test]
    fn more_groups_are_names_of_the_containers() {
        let groups = |user: &str| look_up(user, &[7], PASSWD, GROUP).expect(user).groups;
        assert_eq!(groups("web::many,root"), [0, 7, 100, 200, 300]);
        assert_eq!(groups("web:users:logs"), [7, 100, 200]);
        assert_eq!(groups("::users"), [0, 7, 100, 200]);
        for (bad, name) in
            [("web::nobody", "nobody"), ("web::", ""), ("::users,web", "web"), ("1:1:a:b", "a:b")]
        {
            let words = format!("Unable to find group {name}: no matching entries in group file");
            assert_eq!(of(bad).expect_err(bad).to_string(), words);
        }
        for (lookup, user) in [
            ("", ""),
            ("::logs", ""),
            ("web", "web"),
            ("web:g", "web:g"),
            ("web::a,b", "web"),
            ("1:2:a", "1:2"),
        ] {
            assert_eq!(asked(lookup), user, "{lookup}");
        }
    }

    #[test]
    fn the_home_is_a_path() {
        assert_eq!(of("web").expect("web").home, "/srv/web");
        assert_eq!(of("1").expect("unknown").home, "/");
        assert_eq!(by_number(1000, 1, &[], PASSWD).home, "/srv/web");
        assert_eq!(by_number(1, 1, &[], b"a:x:1:1::relative:\n").home, "/");
    }

    proptest! {
        #[test]
        fn any_text_is_survived(user in ".{0,20}", passwd: Vec<u8>, group: Vec<u8>) {
            if let Ok(user) = look_up(&user, &[], &passwd, &group) {
                prop_assert!(user.groups.contains(&user.gid));
                prop_assert!(user.uid <= MAX_ID && user.gid <= MAX_ID);
            }
        }
    }
}
