//! Hosts files and DHCP lease files: addresses and the names of their machines.

use std::net::IpAddr;
use std::path::Path;

use super::client::Client;
use super::name;
use super::problem::Notes;
use super::rules::{is_hosts_own, parse_address};

/// Lease ends before this are durations and no points in time: dnsmasq writes those on routers without a clock.
const CLOCK_IS_SET_SECS: i64 = 1_000_000_000;
/// End of a lease that never ends.
const NEVER_SECS: i64 = i64::MAX;
/// End of a lease in a line without one: odhcpd has it in another line.
const UNKNOWN_SECS: i64 = 0;

/// The format of a lease file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseFormat {
    /// `dhcp.leases` of dnsmasq: end, MAC, address, name, client ID.
    Dnsmasq,
    /// State or hosts file of odhcpd: `#` lines with interface, DUID, IAID, name, end, ID, length, addresses; and lines as in a
    /// hosts file.
    Odhcpd,
}

/// A line of a hosts file: an address and its names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Its address.
    pub address: IpAddr,
    /// Names in wire form, with the letter case of the file; the address points back to the first one.
    pub names: Vec<Vec<u8>>,
    /// Line in the file, from 1. 0 for a lease file.
    pub line: usize,
}

/// A lease, with the names that its client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Address of the client.
    pub address: IpAddr,
    /// Its names, as for a [`Host`].
    pub names: Vec<Vec<u8>>,
    /// Identity of the client.
    pub client: Client,
    /// End of the lease, in seconds of the Unix epoch or from now. `NEVER_SECS`: never; 0: unknown.
    pub end_secs: i64,
}

impl Lease {
    /// End of the lease, in seconds of the Unix epoch. `None` if it never ends or the end is unknown.
    #[must_use]
    pub fn ends_secs(&self) -> Option<i64> {
        point_in_time(self.end_secs)
    }

    /// The lease of a line that is formatted like a hosts file.
    fn of_host(host: Host) -> Self {
        Self {
            address: host.address,
            names: host.names,
            client: Client::at(host.address),
            end_secs: UNKNOWN_SECS,
        }
    }
}

/// Parses a hosts file: an address and names per line, `#` begins a comment. Lines without an address, and names that no host
/// can have, are noted and skipped. Names of the machine itself in such files (`localhost` and its like) are skipped without a
/// note.
#[must_use]
pub fn parse_hosts(file: &Path, text: &str, notes: &mut Notes) -> Vec<Host> {
    let mut hosts = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let mut skip = |what| notes.skip(file, index + 1, what);
        match parse_hosts_line(line, &mut skip) {
            Ok(host) => hosts.extend(host.map(|host| Host {
                line: index + 1,
                ..host
            })),
            Err(what) => skip(what),
        }
    }
    hosts
}

/// Parses a line. Invalid names go to `skip`; the others of the line are used.
fn parse_hosts_line(line: &str, skip: &mut impl FnMut(String)) -> Result<Option<Host>, String> {
    let line = line.split('#').next().unwrap_or_default();
    let mut words = line.split_ascii_whitespace();
    let Some(address) = words.next() else {
        return Ok(None);
    };
    let address = parse_address(address).ok_or_else(|| format!("`{address}` is not an address"))?;
    let mut names = Vec::new();
    let mut is_named = false;
    for word in words {
        is_named = true;
        if !is_hosts_own(word) {
            match parse_host(word).and_then(|name| no_address(word, name)) {
                Ok(name) => names.push(name),
                Err(what) => skip(what),
            }
        }
    }
    match (is_named, names.is_empty()) {
        (false, _) => Err("has an address and no name".into()),
        (true, true) => Ok(None),
        (true, false) => Ok(Some(Host {
            address,
            names,
            line: 0,
        })),
    }
}

/// Refuses an address in place of a name: a line with two addresses would name neither.
fn no_address(word: &str, name: Vec<u8>) -> Result<Vec<u8>, String> {
    match parse_address(word) {
        Some(_) => Err(format!("`{word}` is an address, a name is wanted here")),
        None => Ok(name),
    }
}

fn parse_host(word: &str) -> Result<Vec<u8>, String> {
    let name = name::parse_host_written(word).map_err(|error| format!("`{word}` {error}"))?;
    if name == [0] {
        return Err(format!("`{word}` is the root, a name is wanted here"));
    }
    Ok(name)
}

/// Parses a lease file. Skips leases without a name, and those that ended before `now_secs` (of the Unix epoch). Without
/// `now_secs` no lease has ended: a router's clock is wrong until the network has set it.
#[must_use]
pub fn parse_leases(
    file: &Path,
    text: &str,
    format: LeaseFormat,
    now_secs: Option<i64>,
    notes: &mut Notes,
) -> Vec<Lease> {
    let mut leases = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let mut skip = |what| notes.skip(file, index + 1, what);
        let found = match format {
            LeaseFormat::Dnsmasq => parse_dnsmasq_line(line, now_secs),
            LeaseFormat::Odhcpd => parse_odhcpd_line(line, now_secs, &mut skip),
        };
        match found {
            Ok(found) => leases.extend(found),
            Err(what) => skip(what),
        }
    }
    leases
}

/// `1700000000 02:00:00:00:00:01 192.168.1.7 phone 01:02:00:…`, or the server's own DUID.
fn parse_dnsmasq_line(line: &str, now_secs: Option<i64>) -> Result<Vec<Lease>, String> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    match words[..] {
        [] | ["duid", ..] | [_, _, _, "*"] | [_, _, _, "*", _] => Ok(Vec::new()),
        // A name has no blank: with another word its end is unknown.
        [end, mac_or_iaid, address, name, ref id @ ..] if id.len() <= 1 => {
            let end_secs = parse_end(end)?;
            if has_ended(end_secs, now_secs) {
                return Ok(Vec::new());
            }
            let address: IpAddr = address
                .parse()
                .map_err(|_| format!("`{address}` is not an address"))?;
            let id = id.first().copied();
            // For IPv6 the first number is one of several of the same client; the last word is its DUID.
            let client = match id {
                Some(duid) if address.is_ipv6() => Client::over_ipv6(duid),
                _ => Client::over_ipv4(mac_or_iaid, id),
            };
            Ok(vec![Lease {
                address,
                names: vec![parse_host(name)?],
                client,
                end_secs,
            }])
        }
        _ => Err("is not a lease: end, MAC, address, name".into()),
    }
}

/// `# br-lan 0001000a… 1a2b3c phone 1700000000 a3 128 fd00::7/128 …`, with `ipv4` in place of the IAID and /32 for IPv4.
fn parse_odhcpd_line(
    line: &str,
    now_secs: Option<i64>,
    skip: &mut impl FnMut(String),
) -> Result<Vec<Lease>, String> {
    let Some(lease) = line.strip_prefix('#') else {
        let host = parse_hosts_line(line, skip)?;
        return Ok(host.into_iter().map(Lease::of_host).collect());
    };
    let words: Vec<&str> = lease.split_ascii_whitespace().collect();
    let [
        _interface,
        duid,
        _iaid,
        name,
        end,
        _id,
        _length,
        addresses @ ..,
    ] = &words[..]
    else {
        return Err(
            "is not a lease: # interface, DUID, IAID, name, end, ID, length, addresses".into(),
        );
    };
    let end_secs = parse_end(end)?;
    // A name that odhcpd found to be invalid begins with `broken\x20`.
    if *name == "-"
        || *end == OVER
        || name.starts_with("broken") && name.contains('\\')
        || has_ended(end_secs, now_secs)
    {
        return Ok(Vec::new());
    }
    let names = vec![parse_host(name)?];
    let addresses = addresses
        .iter()
        .filter_map(|address| single_address(address));
    Ok(addresses
        .map(|address| Lease {
            address,
            names: names.clone(),
            client: match address {
                // The column has a MAC address.
                IpAddr::V4(_) => Client::over_ipv4(duid, None),
                IpAddr::V6(_) => Client::over_ipv6(duid),
            },
            end_secs,
        })
        .collect())
}

/// Address of `192.0.2.1/32` or `2001:db8::1/128`. A shorter prefix is delegated to a router behind us and belongs to no host.
fn single_address(word: &str) -> Option<IpAddr> {
    let (address, len) = word.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let whole = if address.is_ipv4() { "32" } else { "128" };
    (len == whole).then_some(address)
}

/// End that odhcpd writes for a lease that is over.
const OVER: &str = "0";

/// Parses the end of a lease. 0 (dnsmasq) and -1 (odhcpd) mean never.
fn parse_end(word: &str) -> Result<i64, String> {
    let end_secs: i64 = word
        .parse()
        .map_err(|_| format!("`{word}` is not the end of a lease"))?;
    Ok(if end_secs <= 0 { NEVER_SECS } else { end_secs })
}

/// End of a lease if it is a known point in time.
fn point_in_time(end_secs: i64) -> Option<i64> {
    let is_time = |secs: &i64| (CLOCK_IS_SET_SECS..NEVER_SECS).contains(secs);
    Some(end_secs).filter(is_time)
}

fn has_ended(end_secs: i64, now_secs: Option<i64>) -> bool {
    let ends = point_in_time(end_secs).zip(now_secs);
    ends.is_some_and(|(end_secs, now_secs)| end_secs < now_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Option<i64> = Some(1_800_000_000);

    fn told<'h>(hosts: impl Iterator<Item = (IpAddr, &'h [Vec<u8>])>) -> Vec<String> {
        let names = |names: &[Vec<u8>]| {
            let names: Vec<_> = names.iter().map(|name| name::display(name)).collect();
            names.join(" ")
        };
        let hosts = hosts.map(|(address, all)| format!("{address} {}", names(all)));
        hosts.collect()
    }

    fn hosts(text: &str) -> (Vec<String>, Vec<String>) {
        let mut notes = Notes::default();
        let hosts = parse_hosts(Path::new("hosts"), text, &mut notes);
        (
            told(hosts.iter().map(|host| (host.address, &host.names[..]))),
            notes.first.iter().map(ToString::to_string).collect(),
        )
    }

    fn leases(format: LeaseFormat, text: &str, now: Option<i64>) -> (Vec<String>, Vec<String>) {
        let mut notes = Notes::default();
        let leases = parse_leases(Path::new("leases"), text, format, now, &mut notes);
        (
            told(leases.iter().map(|lease| (lease.address, &lease.names[..]))),
            notes.first.iter().map(ToString::to_string).collect(),
        )
    }

    #[test]
    fn hosts_lines() {
        let text = "# comment\n\n127.0.0.1 localhost\n::1\tip6-localhost ip6-loopback\n192.168.1.2  NAS.lan nas # files\n\
                    fe80::1%br-lan router\r\n127.0.0.1 localhost box\n";
        let (found, notes) = hosts(text);
        assert_eq!(
            found,
            [
                "192.168.1.2 NAS.lan. nas.",
                "fe80::1 router.",
                "127.0.0.1 box."
            ]
        );
        assert_eq!(notes, [""; 0]);
    }

    #[test]
    fn hosts_lines_that_are_none_are_noted_with_their_line() {
        let (found, notes) = hosts(
            "192.168.1.2\n192.168.1 nas\n192.168.1.3 bob's\n192.168.1.4 ok\n192.168.1.5 m\u{fffd} tv a..b box\n192.168.1.6 192.168.1.7 twice\n",
        );
        assert_eq!(
            found,
            [
                "192.168.1.4 ok.",
                "192.168.1.5 tv. box.",
                "192.168.1.6 twice."
            ]
        );
        assert_eq!(
            notes,
            [
                "hosts:1: has an address and no name",
                "hosts:2: `192.168.1` is not an address",
                "hosts:3: `bob's` has characters that a host name may not have",
                "hosts:5: `m\u{fffd}` is not ASCII; write it in its xn-- form",
                "hosts:5: `a..b` has an empty label",
                "hosts:6: `192.168.1.7` is an address, a name is wanted here",
            ]
        );
    }

    #[test]
    fn the_root_is_no_host() {
        let mut notes = Notes::default();
        let hosts = parse_hosts(Path::new("hosts"), "192.168.1.1 . nas\n", &mut notes);
        let names: Vec<_> = hosts.into_iter().flat_map(|host| host.names).collect();
        assert_eq!(names, [b"\x03nas\0"]);
        let lease = "1900000000 02:00:00:00:00:01 192.168.1.7 . *\n";
        let (found, notes) = leases(LeaseFormat::Dnsmasq, lease, NOW);
        assert_eq!((found.len(), notes.len()), (0, 1), "{notes:?}");
    }

    #[test]
    fn dnsmasq_leases() {
        let text = "1900000000 02:00:00:00:00:01 192.168.1.7 Phone 01:02:00:00:00:00:01\n\
                    0 02:00:00:00:00:02 192.168.1.8 tv *\n\
                    1900000000 02:00:00:00:00:03 192.168.1.9 * *\n\
                    1700000000 02:00:00:00:00:04 192.168.1.10 gone *\n\
                    43200 02:00:00:00:00:05 192.168.1.11 noclock *\n\
                    duid 00:01:00:01:2c:aa:bb:cc:02:00:00:00:00:01\n\
                    1900000000 12345 fd00::7 phone 00:01:00:01\n";
        let all = [
            "192.168.1.7 Phone.",
            "192.168.1.8 tv.",
            "192.168.1.11 noclock.",
            "fd00::7 phone.",
        ];
        assert_eq!(
            leases(LeaseFormat::Dnsmasq, text, NOW),
            (all.map(String::from).into(), Vec::new())
        );
        assert_eq!(
            leases(LeaseFormat::Dnsmasq, text, None).0.len(),
            5,
            "no clock, no end"
        );
    }

    #[test]
    fn odhcpd_leases() {
        let text = "# br-lan 00010001aabb 1a2b3c phone 1900000000 a3 128 fd00::a3/128 2001:db8::a3/128\n\
                    fd00::a3\tphone.lan\tphone\n\
                    # br-lan 020000000001 ipv4 tv -1 c0a80108 32 192.168.1.8/32\n\
                    # br-lan 020000000002 ipv4 - 1900000000 c0a80109 32 192.168.1.9/32\n\
                    # br-lan 020000000003 ipv4 broken\\x20name 1900000000 c0a8010a 32 192.168.1.10/32\n\
                    # br-lan 00010001aabb 1a2b3d router 1900000000 4 62 fd00:0:0:4::/62\n\
                    # br-lan 020000000004 ipv4 gone 1700000000 c0a8010b 32 192.168.1.11/32\n\
                    # br-lan 00010001aabc 1a2b3e over 0 a4 128 fd00::a4/128\n";
        let (found, notes) = leases(LeaseFormat::Odhcpd, text, NOW);
        let all = [
            "fd00::a3 phone.",
            "2001:db8::a3 phone.",
            "fd00::a3 phone.lan. phone.",
            "192.168.1.8 tv.",
        ];
        assert_eq!((found, notes), (all.map(String::from).into(), Vec::new()));
    }

    #[test]
    fn leases_that_are_none_are_noted_with_their_line() {
        let (found, notes) = leases(
            LeaseFormat::Dnsmasq,
            "1900000000 02:00\nx y 192.168.1.1 a b\n0 m 1.2.3 a b\n0 m 192.168.1.1 my phone *\n0 m 192.168.1.2 * * x\n",
            NOW,
        );
        assert_eq!(found, [""; 0]);
        assert_eq!(
            notes,
            [
                "leases:1: is not a lease: end, MAC, address, name",
                "leases:2: `x` is not the end of a lease",
                "leases:3: `1.2.3` is not an address",
                "leases:4: is not a lease: end, MAC, address, name",
                "leases:5: is not a lease: end, MAC, address, name",
            ]
        );
        let (_, notes) = leases(LeaseFormat::Odhcpd, "# br-lan 0001\n", NOW);
        assert_eq!(notes.len(), 1);
    }

    /// A file that is read while it is written may end anywhere.
    #[test]
    fn a_file_cut_anywhere_gives_no_host_that_is_not_in_it() {
        let text = "1900000000 02:00:00:00:00:01 192.168.1.7 phone *\n0 02:00:00:00:00:02 192.168.1.8 tv *\n";
        for len in 0..text.len() {
            for host in leases(LeaseFormat::Dnsmasq, &text[..len], NOW).0 {
                let is_part = |whole: &str| whole.starts_with(host.trim_end_matches('.'));
                assert!(
                    is_part("192.168.1.7 phone") || is_part("192.168.1.8 tv"),
                    "cut at {len}: {host}"
                );
            }
        }
    }
}
