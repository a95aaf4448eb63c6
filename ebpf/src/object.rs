//! License and panic handler, which every object has besides its programs. Built for the kernel only.

/// Some helpers, such as bpf_fib_lookup, are for GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// Nothing here panics, as code that could would not pass the verifier; but the compiler requires a handler.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
