// SPDX-License-Identifier: Apache-2.0
//! What the kernel demands of a filter before it takes it: a program that was
//! handed over is held to it before anything is made, and fuzzing holds the
//! compiler to it.

use super::{
    bpf::{Instruction, Kind},
    compile::{Error, MAX_INSTRUCTIONS},
};

/// Size of `struct seccomp_data`.
const DATA: u32 = 64;

/// Whether the kernel takes `filter`: at most 4096 known instructions, jumps
/// that stay inside, aligned loads of what there is, and a return at the end
/// (bpf_check_classic and seccomp_check_filter).
///
/// # Errors
/// The first instruction that breaks this, by its position.
pub fn check(filter: &[Instruction]) -> Result<(), Error> {
    let wrong = |at: usize, why: &str| Err(Error::new(format!("seccomp: instruction {at}: {why}")));
    if filter.is_empty() || filter.len() > MAX_INSTRUCTIONS {
        return Err(Error::new(format!("seccomp: a filter of {} instructions", filter.len())));
    }
    for (at, instruction) in filter.iter().enumerate() {
        let furthest = match instruction.kind() {
            Kind::Load(offset) if offset % 4 == 0 && offset < DATA => 0,
            Kind::Load(_) => return wrong(at, "loads what isn't there"),
            Kind::Mask | Kind::Return => 0,
            Kind::Jump(distance) => distance as usize,
            Kind::Branch(taken, other) => usize::from(taken.max(other)),
            Kind::Unknown => return wrong(at, "not one of a filter"),
        };
        // Only a return may be the last: all others go on behind themselves.
        let ends = instruction.kind() == Kind::Return;
        if !ends && at.saturating_add(furthest).saturating_add(1) >= filter.len() {
            return wrong(at, "leaves the program");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bpf::{at_least, equal, jump, load, ret};

    #[test]
    fn what_the_kernel_would_not_take_is_refused() {
        let odd = Instruction::from_bytes([0x04, 0, 0, 0, 1, 0, 0, 0]);
        for (filter, why) in [
            (vec![], "0 instructions"),
            (vec![load(0)], "instruction 0: leaves"),
            (vec![load(2), ret(0)], "instruction 0: loads"),
            (vec![load(64), ret(0)], "instruction 0: loads"),
            (vec![jump(1), ret(0)], "instruction 0: leaves"),
            (vec![jump(u32::MAX), ret(0)], "instruction 0: leaves"),
            (vec![load(0), equal(1, 0, 1), ret(0)], "instruction 1: leaves"),
            (vec![load(0), at_least(1, 255, 0), ret(0)], "instruction 1: leaves"),
            (vec![odd, ret(0)], "instruction 0: not one"),
            (vec![ret(0); 4097], "4097 instructions"),
        ] {
            let error = check(&filter).expect_err(why).to_string();
            assert!(error.contains(why), "{error}");
        }
        assert_eq!(check(&[load(0), equal(1, 0, 1), ret(1), ret(0)]), Ok(()));
    }
}
