// SPDX-License-Identifier: Apache-2.0
//! What a collection leaves alone although no row needs it yet: content and
//! layers that somebody is about to use, by digest, counted.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::domain::digest::Digest;

/// The pins of one store.
#[derive(Debug, Clone, Default)]
pub(super) struct Table(Arc<Mutex<HashMap<Digest, usize>>>);

impl Table {
    pub(super) fn pin(&self, digests: &[Digest]) -> Pins {
        let mut pins = Pins { table: self.clone(), digests: Vec::new() };
        pins.add(digests);
        pins
    }

    /// Keeps new pins away for as long as the result lives.
    pub(super) fn hold(&self) -> Held<'_> {
        Held(self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All pins, none added or taken away.
#[derive(Debug)]
pub(super) struct Held<'a>(MutexGuard<'a, HashMap<Digest, usize>>);

impl Held<'_> {
    pub(super) fn contains(&self, digest: &Digest) -> bool {
        self.0.contains_key(digest)
    }
}

/// Digests that a collection leaves alone for as long as this lives.
#[derive(Debug)]
pub struct Pins {
    table: Table,
    digests: Vec<Digest>,
}

impl Pins {
    /// Some more.
    pub fn add(&mut self, digests: &[Digest]) {
        let mut pins = self.table.lock();
        for digest in digests {
            *pins.entry(digest.clone()).or_default() += 1;
        }
        self.digests.extend_from_slice(digests);
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        let mut pins = self.table.lock();
        for digest in &self.digests {
            if let Some(count) = pins.get_mut(digest) {
                *count -= 1;
                if *count == 0 {
                    pins.remove(digest);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_pin_counts() {
        let (table, digest) = (Table::default(), Digest::of(b"a"));
        let first = table.pin(std::slice::from_ref(&digest));
        let mut second = table.pin(&[]);
        second.add(std::slice::from_ref(&digest));
        drop(first);
        assert!(table.hold().contains(&digest));
        drop(second);
        assert!(!table.hold().contains(&digest));
    }
}
