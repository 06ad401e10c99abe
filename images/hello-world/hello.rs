// SPDX-License-Identifier: Apache-2.0
//! The program of the hello-world image: one write, one exit, no library.
//!
//! `build.sh` compiles it with plain rustc. It has neither a C library nor
//! Rust's own, so that the whole image is a few kilobytes.

#![no_std]
#![no_main]

use core::arch::asm;

const GREETING: &str = "
Hello from berth!
If you can read this, your engine works. To get here:

 1. The berth command asked the engine, berthd, over its unix socket.
 2. The engine looked for the image \"hello-world\" in its own store; what was
    missing it fetched, checked against its digest, and unpacked.
 3. It made a container from the image, and started a berth-shim for it: one
    small process that gave the container its own view of processes, files,
    host name and network, and ran this program in there.
 4. The shim wrote this text to the container's log and passed it through the
    engine to the command, which printed it on your terminal.

Now something bigger, a shell of your own:
 $ berth run -it debian bash

And what is still here of this container, until you remove it:
 $ berth ps -a
 $ berth logs CONTAINER

";

const STDOUT: usize = 1;

#[cfg(target_arch = "x86_64")]
mod number {
    pub const WRITE: usize = 1;
    pub const EXIT_GROUP: usize = 231;
}
#[cfg(target_arch = "aarch64")]
mod number {
    pub const WRITE: usize = 64;
    pub const EXIT_GROUP: usize = 94;
}

/// What the kernel jumps to. It never returns: there is nowhere to return to.
#[unsafe(no_mangle)]
extern "C" fn _start() -> ! {
    let mut rest = GREETING.as_bytes();
    while !rest.is_empty() {
        let written = syscall(number::WRITE, STDOUT, rest.as_ptr() as usize, rest.len());
        // A full pipe writes less than all; an error is a negative number.
        match usize::try_from(written).ok().and_then(|n| rest.get(n..)) {
            Some(r) if r.len() < rest.len() => rest = r,
            _ => exit(1),
        }
    }
    exit(0)
}

fn exit(code: usize) -> ! {
    loop {
        syscall(number::EXIT_GROUP, code, 0, 0);
    }
}

#[cfg(target_arch = "x86_64")]
fn syscall(number: usize, a: usize, b: usize, c: usize) -> isize {
    let result: isize;
    // SAFETY: both callers pass what write(2) and exit_group(2) ask for; the
    // kernel changes rcx and r11, and no memory of ours.
    unsafe {
        asm!("syscall", inlateout("rax") number => result, in("rdi") a, in("rsi") b, in("rdx") c,
             lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result
}

#[cfg(target_arch = "aarch64")]
fn syscall(number: usize, a: usize, b: usize, c: usize) -> isize {
    let result: isize;
    // SAFETY: as above; svc changes no register but x0.
    unsafe {
        asm!("svc 0", in("x8") number, inlateout("x0") a => result, in("x1") b, in("x2") c, options(nostack));
    }
    result
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    exit(2)
}
