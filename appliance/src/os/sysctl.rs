//! net.ipv4.tcp_syncookies, which counts for IPv6 as well, and what tells one network namespace of one boot from another.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Where the kernel has it, for the network namespace of whoever looks.
const TCP_SYNCOOKIES: &str = "/proc/sys/net/ipv4/tcp_syncookies";
/// Another one after each start of the kernel.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";
/// The network namespace; the thread's and not the process's.
const NAMESPACE: &str = "/proc/thread-self/ns/net";
/// What the kernel counts of TCP, in this namespace (RFC 1213).
const COUNTERS: &str = "/proc/thread-self/net/snmp";

/// net.ipv4.tcp_syncookies (ip-sysctl.rst): 0 never, 1 when a queue is full, 2 always.
#[derive(Debug)]
pub struct TcpSyncookies(PathBuf);

impl Default for TcpSyncookies {
    fn default() -> Self {
        Self(TCP_SYNCOOKIES.into())
    }
}

impl TcpSyncookies {
    /// One that stands elsewhere, for tests.
    #[must_use]
    pub fn at(path: &Path) -> Self {
        Self(path.into())
    }

    /// What it is.
    ///
    /// # Errors
    /// The kernel has no SYN cookies, or says nothing that is a number.
    pub fn read(&self) -> io::Result<u8> {
        let text = fs::read_to_string(&self.0)?;
        let number = text.trim().parse();
        number.map_err(|_| io::Error::other(format!("it is {:?}", text.trim())))
    }

    /// Sets it, and looks whether it is so now.
    ///
    /// # Errors
    /// We may not, or it stays what it was.
    pub fn set(&self, value: u8) -> io::Result<()> {
        // No truncation: a file of /proc needs none, and is not made anew.
        let mut file = fs::OpenOptions::new().write(true).open(&self.0)?;
        io::Write::write_all(&mut file, format!("{value}\n").as_bytes())?;
        drop(file);
        match self.read()? {
            now if now == value => Ok(()),
            now => Err(io::Error::other(format!("it stays {now}"))),
        }
    }
}

/// A word for this network namespace in this boot: what a sysctl was set to is gone with either.
///
/// # Errors
/// /proc is not what it should be.
pub fn here() -> io::Result<String> {
    let boot = fs::read_to_string(BOOT)?;
    let namespace = fs::metadata(NAMESPACE)?.ino();
    Ok(format!("{}/{namespace}", boot.trim()))
}

/// How many connections to this machine were opened to the end, on any port (RFC 1213: tcpPassiveOpens).
///
/// # Errors
/// The kernel does not say.
pub fn connections_accepted() -> io::Result<u64> {
    let text = fs::read_to_string(COUNTERS)?;
    passive_opens(&text).ok_or_else(|| io::Error::other("no PassiveOpens"))
}

/// A line of names and a line of numbers for each protocol.
fn passive_opens(text: &str) -> Option<u64> {
    let mut tcp = text.lines().filter(|line| line.starts_with("Tcp:"));
    let (names, numbers) = (tcp.next()?, tcp.next()?);
    let mut both = names.split_whitespace().zip(numbers.split_whitespace());
    let (_, number) = both.find(|(name, _)| *name == "PassiveOpens")?;
    number.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_found_by_its_name() {
        let text = "Ip: Forwarding\nIp: 1\nTcp: RtoMin MaxConn ActiveOpens PassiveOpens AttemptFails\n\
                    Tcp: 200 -1 7 42 9\nUdp: InDatagrams\nUdp: 5\n";
        assert_eq!(passive_opens(text), Some(42));
        for broken in [
            "",
            "Tcp: PassiveOpens\n",
            "Tcp: A\nTcp: 1\n",
            "Tcp: PassiveOpens\nTcp: x\n",
        ] {
            assert_eq!(passive_opens(broken), None, "{broken:?}");
        }
        assert!(connections_accepted().is_ok());
    }

    #[test]
    fn this_place_has_a_word() {
        let one = here().expect("/proc is there");
        assert_eq!(here().ok(), Some(one.clone()));
        assert!(
            one.len() > 36 && !one.contains(char::is_whitespace),
            "{one}"
        );
    }
}
