//! Instructions that the kernel's verifier processes for each program on this kernel, of its limit of a million. `cargo xtask
//! test` shows the lines.

use aya::programs::Program;
use aya::{Ebpf, EbpfLoader};
use std::fs;
use std::io::Write as _;
use xdnsd_lab::{privilege, workspace};

/// Instructions after which the verifier gives up (BPF_COMPLEXITY_LIMIT_INSNS), minus a margin for other kernels.
const VERIFIED_MAX: u32 = 900_000;
/// Prefix of the lines; `cargo xtask test` looks for it.
const SIGN: &str = "verifier: ";

#[test]
fn every_program_leaves_the_verifier_some_room() {
    if !privilege::root_or_skip("every_program_leaves_the_verifier_some_room") {
        return;
    }
    let mut lines = Vec::new();
    for object in ["xdnsd", "xdnsd-hot", "xdnsd-ports"] {
        let path = workspace::root().join(format!("ebpf/object/{object}.bpf.o"));
        let bytes = fs::read(&path).expect("a committed object");
        let mut ebpf: Ebpf = EbpfLoader::new().load(&bytes).expect("maps are made");
        for (name, program) in ebpf.programs_mut() {
            let info = if let Program::Xdp(xdp) = program {
                xdp.load().and_then(|()| xdp.info())
            } else if let Program::SkLookup(lookup) = program {
                lookup.load().and_then(|()| lookup.info())
            } else {
                panic!("{name}: neither XDP nor sk_lookup");
            };
            let info = info.unwrap_or_else(|error| panic!("{name}: {error}"));
            let count = info.verified_instruction_count();
            let count = count.expect("Linux 5.16 says how many");
            assert!((1..VERIFIED_MAX).contains(&count), "{name}: {count}");
            lines.push(format!("{SIGN}{name} {count} instructions\n"));
        }
    }
    lines.sort();
    // Not by `eprint!`, whose text the test harness captures.
    std::io::stderr()
        .write_all(lines.concat().as_bytes())
        .expect("standard error is open");
}
