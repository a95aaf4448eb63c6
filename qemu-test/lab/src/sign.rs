//! Signs a test's zone, with ldns (package ldnsutils).

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::nsd::Zone;
use crate::process::output_of;

/// Denial of existence in a signed zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// RFC 4034.
    Nsec,
    /// RFC 5155, one iteration, no salt, no opt-out.
    Nsec3,
}

/// A zone with its signatures.
#[derive(Clone, Debug)]
pub struct Signed {
    /// Ready to be served.
    pub zone: Zone,
    /// Its one key, as a DNSKEY record: a trust anchor.
    pub key: String,
}

/// Signs `zone` with a new ECDSA key. Files go to `directory`.
pub fn sign(zone: &Zone, denial: Denial, directory: &Path) -> Result<Signed> {
    let mut keygen = Command::new("ldns-keygen");
    keygen
        .args(["-a", "ECDSAP256SHA256", "-k", "-r", "/dev/urandom"])
        .arg(&zone.origin);
    let base = output_of(keygen.current_dir(directory))?;
    let base = base.trim();
    let read = |file: &str| {
        let path = directory.join(file);
        fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    };
    let plain = directory.join("unsigned.zone");
    fs::write(&plain, &zone.text).with_context(|| format!("write {}", plain.display()))?;
    let mut signzone = Command::new("ldns-signzone");
    if denial == Denial::Nsec3 {
        signzone.args(["-n", "-t", "1"]);
    }
    signzone.args([
        "-f",
        "signed.zone",
        "-o",
        &zone.origin,
        "unsigned.zone",
        base,
    ]);
    output_of(signzone.current_dir(directory))?;
    Ok(Signed {
        zone: Zone {
            origin: zone.origin.clone(),
            text: read("signed.zone")?,
        },
        key: read(&format!("{base}.key"))?,
    })
}
