//! The zone `lab.test` that the lab's upstream serves, and questions about it.
//!
//! | owner name | purpose |
//! |---|---|
//! | `www` | A and AAAA, two addresses each |
//! | `short` | A with a TTL of 2 seconds |
//! | `zero` | A with a TTL of 0: never cached |
//! | `mx`, `txt`, `srv` | other types |
//! | `alias` → `alias2` → `www` | a CNAME chain |
//! | `dangling` | a CNAME to a name that does not exist |
//! | `medium` | TXT RRset above 512 bytes, below 1232 |
//! | `big` | TXT RRset above 1232 bytes: truncated over UDP, whole over TCP |
//! | `*.wild` | a wildcard |
//! | `empty.nonterminal` | makes `nonterminal` exist without data (NODATA) |
//! | `host-0` … `host-999` | A and AAAA, for load |

use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};

/// The zone's name.
pub const ORIGIN: &str = "lab.test.";
/// TTL of every record without another one in the table above.
pub const TTL_SECS: u32 = 300;
/// TTL of negative answers: the SOA's MINIMUM (RFC 2308 section 5).
pub const NEGATIVE_TTL_SECS: u32 = 60;
/// TTL of `short`.
pub const SHORT_TTL_SECS: u32 = 2;
/// Number of `host-N` names.
pub const HOSTS: u32 = 1000;
/// Strings of 200 letters in the TXT RRset of `medium`.
pub const MEDIUM_STRINGS: u32 = 4;
/// Strings of 200 letters in the TXT RRset of `big`.
pub const BIG_STRINGS: u32 = 12;

/// The IPv4 address of `host-N`.
#[must_use]
pub fn host_v4(number: u32) -> Ipv4Addr {
    // 198.18.0.0/15 is the benchmarking network of RFC 2544.
    Ipv4Addr::from_bits(Ipv4Addr::new(198, 18, 0, 0).to_bits() + number)
}

/// The IPv6 address of `host-N`.
#[must_use]
pub fn host_v6(number: u32) -> Ipv6Addr {
    Ipv6Addr::from_bits(
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0x53, 0, 0, 0, 0).to_bits() + u128::from(number),
    )
}

/// The text of string `number` in `medium` and `big`.
#[must_use]
pub fn long_string(number: u32) -> String {
    format!("{number:02}-")
        .chars()
        .chain("abcdefghijklmnopqrstuvwxyz".chars().cycle())
        .take(200)
        .collect()
}

/// The zone file.
#[must_use]
pub fn text() -> String {
    let mut zone = format!(
        "$ORIGIN {ORIGIN}
$TTL {TTL_SECS}
@       SOA     ns hostmaster 1 3600 600 86400 {NEGATIVE_TTL_SECS}
@       NS      ns
ns      A       10.54.0.2
ns      AAAA    fd54::2
www     A       192.0.2.1
www     A       192.0.2.2
www     AAAA    2001:db8::1
www     AAAA    2001:db8::2
short   {SHORT_TTL_SECS} A 192.0.2.3
zero    0 A     192.0.2.4
mx      MX      10 mail
mx      MX      20 mail2
mail    A       192.0.2.25
mail2   A       192.0.2.26
txt     TXT     \"first\" \"second\"
_dns._udp.srv SRV 0 5 53 ns
alias   CNAME   alias2
alias2  CNAME   www
dangling CNAME  missing
*.wild  A       192.0.2.77
empty.nonterminal A 192.0.2.78
"
    );
    for (owner, strings) in [("medium", MEDIUM_STRINGS), ("big", BIG_STRINGS)] {
        for number in 0..strings {
            line(
                &mut zone,
                format_args!("{owner} TXT \"{}\"", long_string(number)),
            );
        }
    }
    for number in 0..HOSTS {
        line(
            &mut zone,
            format_args!("host-{number} A {}", host_v4(number)),
        );
        line(
            &mut zone,
            format_args!("host-{number} AAAA {}", host_v6(number)),
        );
    }
    zone
}

/// Questions for `dnsperf -d`: every host's A and AAAA.
#[must_use]
pub fn load() -> String {
    let mut questions = String::new();
    for number in 0..HOSTS {
        line(&mut questions, format_args!("host-{number}.{ORIGIN} A"));
        line(&mut questions, format_args!("host-{number}.{ORIGIN} AAAA"));
    }
    questions
}

fn line(text: &mut String, arguments: std::fmt::Arguments) {
    writeln!(text, "{arguments}").expect("a String takes any text");
}
