//! Kernel settings for TCP, which apply to IPv6 as well, and the identity of a network namespace in a boot.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use xdnsd_abi::RestoredOptions;
use xdnsd_abi::headers::tcp::option;

use super::keeper::{self, Request};

/// The kernel's settings: those of the network are the caller's namespace's.
const SETTINGS: &str = "/proc/sys";
/// Settings that are changed while SYN cookies are given, with numbers in requests to the keeper.
pub const FOR_COOKIES: [&str; 2] = ["net.ipv4.tcp_syncookies", "net.ipv4.tcp_timestamps"];
/// A random ID of this boot.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";
/// The network namespace of the thread, which may differ from the process's.
const NAMESPACE: &str = "/proc/thread-self/ns/net";
/// The kernel's TCP counters in this namespace (RFC 1213).
const COUNTERS: &str = "/proc/thread-self/net/snmp";

/// A setting that is a small number (ip-sysctl.rst).
#[derive(Debug)]
pub struct Sysctl(PathBuf);

impl Sysctl {
    /// The setting of this name.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self(path(Path::new(SETTINGS), name))
    }

    /// A setting at another path, for tests.
    #[must_use]
    pub fn at(path: &Path) -> Self {
        Self(path.into())
    }

    /// Path of the setting.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Current value.
    ///
    /// # Errors
    /// The kernel lacks the setting, or its value is not a number.
    pub fn read(&self) -> io::Result<u8> {
        let text = fs::read_to_string(&self.0)?;
        let number = text.trim().parse();
        number.map_err(|_| io::Error::other(format!("it is {:?}", text.trim())))
    }

    /// Sets the value, and verifies it.
    ///
    /// # Errors
    /// Permission denied, or the old value stays.
    pub fn set(&self, value: u8) -> io::Result<()> {
        let mut known = FOR_COOKIES.into_iter();
        match known.position(|name| Self::named(name).0 == self.0) {
            Some(setting) if keeper::is_there() => {
                let setting = setting as u8;
                let asked = keeper::ask(Request::Set { setting, value }, None);
                asked.map_err(|refusal| io::Error::from(refusal.errno))?;
            }
            Some(_) | None => self.write(value)?,
        }
        match self.read()? {
            now if now == value => Ok(()),
            now => Err(io::Error::other(format!("it stays {now}"))),
        }
    }

    /// Writes the value, by this process itself.
    ///
    /// # Errors
    /// Permission denied.
    pub fn write(&self, value: u8) -> io::Result<()> {
        // O_TRUNC and O_CREAT make no sense for a file of /proc.
        let mut file = fs::OpenOptions::new().write(true).open(&self.0)?;
        io::Write::write_all(&mut file, format!("{value}\n").as_bytes())
    }
}

/// Path of a setting below `settings`.
fn path(settings: &Path, name: &str) -> PathBuf {
    settings.join(name.replace('.', "/"))
}

/// Client options that the kernel restores from a cookie's timestamp. An option that a sysctl disables would make it reject the
/// ACK (`cookie_timestamp_decode`).
#[must_use]
pub fn kept_options() -> RestoredOptions {
    kept_by(Path::new(SETTINGS))
}

fn kept_by(settings: &Path) -> RestoredOptions {
    let numbers = |name: &str| {
        let text = fs::read_to_string(path(settings, name)).unwrap_or_default();
        let numbers = text.split_whitespace().map(str::parse);
        numbers.collect::<Result<Vec<u32>, _>>().unwrap_or_default()
    };
    let is_on = |name| numbers(name).first().is_some_and(|number| *number != 0);
    let scale = is_on("net.ipv4.tcp_window_scaling").then(|| {
        let most = numbers("net.ipv4.tcp_rmem").get(2).copied();
        scale(most.max(numbers("net.core.rmem_max").first().copied()))
    });
    RestoredOptions {
        sack: is_on("net.ipv4.tcp_sack"),
        scale,
    }
}

/// Window scale of a Linux socket whose buffer may grow to so many bytes (`tcp_select_initial_window`).
fn scale(buffer: Option<u32>) -> u8 {
    let bits = buffer.and_then(u32::checked_ilog2).unwrap_or(0);
    let scale = bits.saturating_sub(15).min(option::SCALE_MAX.into());
    u8::try_from(scale).expect("at most 14")
}

/// Identifies this network namespace in this boot: a sysctl is lost with either.
///
/// # Errors
/// /proc is missing or malformed.
pub fn here() -> io::Result<String> {
    let boot = fs::read_to_string(BOOT)?;
    let namespace = fs::metadata(NAMESPACE)?.ino();
    Ok(format!("{}/{namespace}", boot.trim()))
}

/// Completed passive opens of TCP connections, on any port (RFC 1213: tcpPassiveOpens).
///
/// # Errors
/// The counter is unavailable.
pub fn connections_accepted() -> io::Result<u64> {
    let text = fs::read_to_string(COUNTERS)?;
    passive_opens(&text).ok_or_else(|| io::Error::other("no PassiveOpens"))
}

/// /proc/net/snmp has a line of names and a line of numbers for each protocol.
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
    fn windows_are_shifted_as_linux_does() {
        // Measured: 32 MiB, a router's with 1.5 GB, the defaults, and a socket whose buffer never grows.
        for (buffer, bits) in [
            (33_554_432, 10),
            (10_116_704, 8),
            (6_291_456, 7),
            (4_194_304, 7),
            (65_536, 1),
            (65_535, 0),
            (0, 0),
            (u32::MAX, 14),
        ] {
            assert_eq!(scale(Some(buffer)), bits.min(14), "{buffer}");
        }
        assert_eq!(scale(None), 0);
    }

    #[test]
    fn options_that_the_kernel_was_told_not_to_use_are_not_kept() {
        let folder = std::env::temp_dir().join(format!("xdnsd-sysctl-{}", std::process::id()));
        for name in ["net/ipv4", "net/core"] {
            fs::create_dir_all(folder.join(name)).expect("a folder");
        }
        let set = |name: &str, text: &str| {
            fs::write(path(&folder, name), text).expect("a file");
        };
        let kept = |sack, scale| RestoredOptions { sack, scale };
        assert_eq!(kept_by(&folder), kept(false, None), "nothing is known");
        set("net.ipv4.tcp_sack", "1\n");
        set("net.ipv4.tcp_window_scaling", "1\n");
        assert_eq!(kept_by(&folder), kept(true, Some(0)));
        set("net.ipv4.tcp_rmem", "4096\t131072\t6291456\n");
        assert_eq!(kept_by(&folder), kept(true, Some(7)));
        set("net.core.rmem_max", "33554432\n");
        assert_eq!(kept_by(&folder), kept(true, Some(10)));
        set("net.ipv4.tcp_sack", "0\n");
        assert_eq!(kept_by(&folder), kept(false, Some(10)));
        set("net.ipv4.tcp_window_scaling", "0\n");
        assert_eq!(kept_by(&folder), kept(false, None));
        fs::remove_dir_all(folder).expect("it was there");
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
