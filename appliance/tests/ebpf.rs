//! The XDP program in this machine's kernel.

use xdnsd::xdp::{Mode, Program};

#[test]
fn the_verifier_accepts_the_program() {
    if !nix::unistd::geteuid().is_root() {
        println!("SKIPPED: loading eBPF needs root");
        return;
    }
    let mut program = Program::load().unwrap_or_else(|e| panic!("{e}"));
    let error = program
        .attach("no-such-if", Mode::Auto)
        .expect_err("no such interface");
    assert_eq!(
        error.to_string(),
        "interface \"no-such-if\": No such device"
    );
}
