//! Libraries in C between the binary and the C library: a kernel, a clock or a thread that behaves as a test wants.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use xdnsd_lab::process::output_of;

/// Compiles `name`, a file of this folder without its `.c`, into `folder`, for LD_PRELOAD.
pub fn compile(name: &str, folder: &Path) -> Result<PathBuf> {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/blackbox/support/");
    let library = folder.join(name).with_extension("so");
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-o"]).arg(&library);
    output_of(compiler.arg(format!("{source}{name}.c")).arg("-ldl"))
        .context("compile a library (package gcc)")?;
    Ok(library)
}
