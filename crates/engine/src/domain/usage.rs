// SPDX-License-Identifier: Apache-2.0
//! What a container uses, and its share of the host's CPUs. Pure.

/// A container's counters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Nanoseconds of CPU since its start.
    pub cpu: u64,
    /// Of these, in user mode.
    pub cpu_user: u64,
    /// Of these, in the kernel.
    pub cpu_system: u64,
    /// Bytes of memory.
    pub memory: u64,
    /// Of these, page cache that nobody uses.
    pub idle_cache: u64,
    /// Bytes; may be any large number when there is no limit.
    pub memory_limit: u64,
    /// Processes and threads.
    pub pids: u64,
    /// Most of them; 0 is no limit.
    pub pids_limit: u64,
    /// Bytes from block devices.
    pub block_read: u64,
    /// Bytes to block devices.
    pub block_written: u64,
}

/// What all CPUs of the host together have had so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HostCpu {
    /// Nanoseconds, idle ones included.
    pub total: u64,
    /// CPUs that are online.
    pub online: u32,
}

impl Usage {
    /// Bytes of memory without the page cache that nobody uses, as Docker
    /// counts.
    #[must_use]
    pub fn memory_in_use(&self) -> u64 {
        if self.idle_cache < self.memory { self.memory - self.idle_cache } else { self.memory }
    }
}

/// The share of the CPUs between two looks: 100 for each one used wholly. 0
/// when a container was started anew between them.
#[must_use]
pub fn cpu_percent(before: (&Usage, HostCpu), now: (&Usage, HostCpu)) -> f64 {
    let used = now.0.cpu.saturating_sub(before.0.cpu);
    let had = now.1.total.saturating_sub(before.1.total);
    if had == 0 {
        return 0.0;
    }
    #[expect(clippy::cast_precision_loss, reason = "a share, shown with two places")]
    let share = used as f64 / had as f64;
    share * f64::from(now.1.online) * 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(cpu: u64, total: u64) -> (Usage, HostCpu) {
        (Usage { cpu, ..Usage::default() }, HostCpu { total, online: 4 })
    }

    #[test]
    fn a_whole_cpu_is_a_hundred() {
        let percent = |a: (Usage, HostCpu), b: (Usage, HostCpu)| cpu_percent((&a.0, a.1), (&b.0, b.1));
        let near = |value: f64, wanted: f64| (value - wanted).abs() < 1e-9;
        assert!(near(percent(at(0, 0), at(1_000, 4_000)), 100.0));
        assert!(near(percent(at(500, 1_000), at(750, 5_000)), 25.0));
        assert!(near(percent(at(500, 1_000), at(7, 5_000)), 0.0), "started anew");
        assert!(near(percent(at(0, 9), at(5, 9)), 0.0), "no time has passed");
    }

    #[test]
    fn idle_cache_does_not_count_unless_that_makes_no_sense() {
        let usage = |memory, idle_cache| Usage { memory, idle_cache, ..Usage::default() }.memory_in_use();
        assert_eq!(usage(10, 3), 7);
        assert_eq!(usage(10, 10), 10);
    }
}
