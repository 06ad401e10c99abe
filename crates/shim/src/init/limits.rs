// SPDX-License-Identifier: Apache-2.0
//! Resource limits of the process.

use nix::{
    errno::Errno,
    sys::resource::{getrlimit, setrlimit},
};

use crate::{
    kernel::sys,
    runtime::{Result, Rlimit},
};

/// Sets the limits. One that only CAP_SYS_RESOURCE could raise is set as high
/// as it may be, with a warning.
pub(super) fn set(limits: &[Rlimit], warn: impl Fn(String) -> Result<()>) -> Result<()> {
    for limit in limits {
        let Rlimit { resource, soft, hard } = *limit;
        match setrlimit(resource, soft, hard) {
            Err(Errno::EPERM) => {
                let (_, most) = sys(getrlimit(resource), || format!("getrlimit({resource:?})"))?;
                let (soft, hard) = clamp(limit, most);
                sys(setrlimit(resource, soft, hard), || format!("setrlimit({resource:?}, {soft}, {hard})"))?;
                warn(format!("{resource:?}: {} may not be raised above {most}", limit.hard))?;
            }
            result => sys(result, || format!("setrlimit({resource:?}, {soft}, {hard})"))?,
        }
    }
    Ok(())
}

fn clamp(limit: &Rlimit, most: u64) -> (u64, u64) {
    (limit.soft.min(most), limit.hard.min(most))
}

#[cfg(test)]
mod tests {
    use nix::sys::resource::Resource;

    use super::*;

    #[test]
    fn a_limit_is_never_above_what_is_allowed() {
        let limit = |soft, hard| Rlimit { resource: Resource::RLIMIT_NOFILE, soft, hard };
        assert_eq!(clamp(&limit(10, 20), 15), (10, 15));
        assert_eq!(clamp(&limit(u64::MAX, u64::MAX), 15), (15, 15));
    }
}
