// SPDX-License-Identifier: Apache-2.0
//! A user's seccomp profile, from its JSON to a program: never a panic, and a
//! program is one that the kernel takes.
#![no_main]

use berth_engine::domain::seccomp;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(profile) = seccomp::decode(text) else { return };
    for (capabilities, kernel) in
        [(&[][..], (4, 7)), (&[oci_spec::runtime::Capability::SysAdmin][..], (6, 18))]
    {
        let profile = profile.resolve(capabilities, kernel);
        let Ok(program) = berth_seccomp::compile(&profile) else { continue };
        berth_seccomp::check(&program.filter).unwrap();
        // As it's handed over.
        assert_eq!(berth_seccomp::Program::compiled(&profile, &program.bytes()).unwrap(), program);
    }
});
