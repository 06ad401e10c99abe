// SPDX-License-Identifier: Apache-2.0
//! Classic BPF as the kernel checks it and runs it for seccomp, for programs
//! of any compiler (linux/filter.h, kernel/seccomp.c).

/// A call as the kernel shows it to a filter: `struct seccomp_data` without
/// the instruction pointer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) arch: u32,
    pub(crate) nr: u32,
    pub(crate) args: [u64; 6],
}

impl Call {
    fn word(&self, offset: u32) -> u32 {
        let half = |index: u32| (self.args[index as usize / 2] >> (32 * (index % 2))) & 0xffff_ffff;
        match offset {
            0 => self.nr,
            4 => self.arch,
            16..64 if offset.is_multiple_of(4) => u32::try_from(half((offset - 16) / 4)).unwrap(),
            _ => panic!("load of {offset}"),
        }
    }
}

/// The answer of `program` to `call`. Panics where the kernel would have
/// refused the program.
pub(crate) fn run(program: &[libc::sock_filter], call: &Call) -> u32 {
    let (mut a, mut x, mut pc) = (0_u32, 0_u32, 0_usize);
    let mut scratch = [0_u32; 16];
    loop {
        let i = program.get(pc).unwrap_or_else(|| panic!("runs off its end at {pc}"));
        let operand = if i.code & 0x08 == 0 { i.k } else { x };
        pc += 1;
        match i.code & 0x07 {
            0x00 if i.code == 0x20 => a = call.word(i.k),
            0x00 if i.code == 0x60 => a = scratch[i.k as usize],
            0x01 if i.code == 0x61 => x = scratch[i.k as usize],
            0x02 => scratch[i.k as usize] = a,
            0x04 => a = arithmetic(i.code & 0xf0, a, operand),
            0x05 => pc += jump(i, a, operand),
            0x06 if i.code == 0x06 => return i.k,
            0x07 if i.code == 0x07 => x = a,
            0x07 if i.code == 0x87 => a = x,
            _ => panic!("instruction {:#x} at {pc}", i.code),
        }
    }
}

fn arithmetic(operation: u16, a: u32, operand: u32) -> u32 {
    match operation {
        0x40 => a | operand,
        0x50 => a & operand,
        0x60 => a << operand,
        0x70 => a >> operand,
        0xa0 => a ^ operand,
        _ => panic!("arithmetic {operation:#x}"),
    }
}

fn jump(i: &libc::sock_filter, a: u32, operand: u32) -> usize {
    let taken = match i.code & 0xf0 {
        0x00 => return i.k as usize,
        0x10 => a == operand,
        0x20 => a > operand,
        0x30 => a >= operand,
        0x40 => a & operand != 0,
        other => panic!("jump {other:#x}"),
    };
    usize::from(if taken { i.jt } else { i.jf })
}
