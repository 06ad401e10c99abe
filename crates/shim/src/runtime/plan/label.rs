// SPDX-License-Identifier: Apache-2.0
//! `linux.mountLabel`: SELinux gives every file of a new file system the label
//! that its option `context` says.

use super::super::error::{Error, Result};
use super::mounts::{Dev, Mount, Source};

/// File systems that label their files themselves.
const OWN_LABELS: [&str; 4] = ["proc", "sysfs", "cgroup", "cgroup2"];

/// The label; `None` for an empty one.
pub(super) fn plan(label: Option<&str>) -> Result<Option<String>> {
    match label.filter(|label| !label.is_empty()) {
        Some(label) if label.contains(['\0', '\n', '"']) => {
            Err(Error::invalid(format!("linux.mountLabel: {label:?} is no label")))
        }
        label => Ok(label.map(ToOwned::to_owned)),
    }
}

/// Labels what the runtime makes itself; what is bound has a label already.
pub(super) fn apply(label: &str, dev: &mut Dev, mounts: &mut [Mount]) {
    let context = ("context".to_owned(), Some(label.to_owned()));
    if let Dev::Fresh { options, .. } = dev {
        options.push(context.clone());
    }
    for mount in mounts {
        match &mut mount.source {
            Source::FileSystem { kind, options, .. } if !OWN_LABELS.contains(&kind.as_str()) => {
                options.push(context.clone());
            }
            Source::Overlay { options, .. } => options.push(context.clone()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::mounts, *};

    #[test]
    fn new_file_systems_are_labelled_and_no_others() {
        let list = json!([
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["size=1m"]},
            {"destination": "/etc/hosts", "type": "bind", "source": "/etc/hosts", "options": ["bind"]},
        ]);
        let list: Vec<_> = serde_json::from_value(list).expect("mounts");
        let (mut dev, mut mounts) = mounts::plan(&list, std::path::Path::new("/")).expect("plan");
        apply("system_u:x:y", &mut dev, &mut mounts);
        let text = |value: &dyn std::fmt::Debug| format!("{value:?}");
        assert!(text(&dev).contains("system_u"));
        let labelled: Vec<_> = mounts.iter().map(|mount| text(mount).contains("system_u:x:y")).collect();
        assert_eq!(labelled, [false, true, false]);
    }

    #[test]
    fn a_label_is_one_word() {
        assert_eq!(plan(Some("")), Ok(None));
        assert_eq!(plan(Some("a:b:c:s0:c1,c2")), Ok(Some("a:b:c:s0:c1,c2".to_owned())));
        assert!(plan(Some("a\nb")).is_err());
    }
}
