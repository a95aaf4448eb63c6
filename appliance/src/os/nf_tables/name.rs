//! Names of sets, as people write them.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Longest name of a table or a set, in bytes: the kernel's NFT_NAME_MAXLEN without the closing zero.
const NAME_MAX: usize = 255;
/// linux/netfilter.h: families of tables, with the words of `nft`.
const FAMILIES: [(&str, u8); 6] = [
    ("inet", 1),
    ("ip", 2),
    ("arp", 3),
    ("netdev", 5),
    ("bridge", 7),
    ("ip6", 10),
];

/// Which addresses of an answer go into a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressFamilies {
    /// Those of the set's type.
    OfSet,
    /// IPv4's.
    V4,
    /// IPv6's.
    V6,
}

/// A set: `[4#|6#][FAMILY#]TABLE#SET`, as in dnsmasq. Without a family, the table is of `ip`, as in `nft`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetName {
    text: String,
    only: AddressFamilies,
    family: u8,
    table: String,
    set: String,
}

impl SetName {
    /// True if an address of this kind is meant for it, as far as its name says.
    #[must_use]
    pub fn wants(&self, address: IpAddr) -> bool {
        match self.only {
            AddressFamilies::OfSet => true,
            AddressFamilies::V4 => address.is_ipv4(),
            AddressFamilies::V6 => address.is_ipv6(),
        }
    }

    /// Family of its table, as the kernel numbers them.
    #[must_use]
    pub const fn family(&self) -> u8 {
        self.family
    }

    /// Its table.
    #[must_use]
    pub fn table(&self) -> &str {
        &self.table
    }

    /// Its own name.
    #[must_use]
    pub fn set(&self) -> &str {
        &self.set
    }
}

impl fmt::Display for SetName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl FromStr for SetName {
    /// What is wrong, behind the text itself.
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (only, rest) = match text.split_at_checked(2) {
            Some(("4#", rest)) => (AddressFamilies::V4, rest),
            Some(("6#", rest)) => (AddressFamilies::V6, rest),
            Some(_) | None => (AddressFamilies::OfSet, text),
        };
        let parts: Vec<&str> = rest.split('#').collect();
        let (family, table, set) = match *parts.as_slice() {
            [table, set] => ("ip", table, set),
            [family, table, set] => (family, table, set),
            _ => return Err("is not a table and a set with # in between".into()),
        };
        let number = FAMILIES.iter().find(|(word, _)| *word == family);
        let Some((_, family)) = number else {
            let words: Vec<&str> = FAMILIES.iter().map(|(word, _)| *word).collect();
            return Err(format!("has none of the families {}", words.join(", ")));
        };
        for name in [table, set] {
            is_name(name)?;
        }
        Ok(Self {
            text: text.into(),
            only,
            family: *family,
            table: table.into(),
            set: set.into(),
        })
    }
}

/// Checks a name by the grammar of `nft`.
fn is_name(name: &str) -> Result<(), String> {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./\\".contains(&byte);
    let begins = name.bytes().next();
    if !begins.is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_') {
        return Err("has a name that does not begin with a letter".into());
    }
    if name.len() > NAME_MAX {
        return Err(format!("has a name of more than {NAME_MAX} bytes"));
    }
    if !name.bytes().all(is_inner) {
        return Err("has a name with other characters than letters, digits, _ - . /".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_written_as_for_dnsmasq() {
        for (text, only, family, table, set) in [
            ("t#s", AddressFamilies::OfSet, 2, "t", "s"),
            ("4#t#s", AddressFamilies::V4, 2, "t", "s"),
            ("inet#fw4#vpn4", AddressFamilies::OfSet, 1, "fw4", "vpn4"),
            ("6#ip6#t#s.6-a", AddressFamilies::V6, 10, "t", "s.6-a"),
        ] {
            let read: SetName = text.parse().expect(text);
            assert_eq!((read.only, read.family), (only, family), "{text}");
            assert_eq!((read.table(), read.set()), (table, set), "{text}");
            assert_eq!(read.to_string(), text);
        }
        let (v4, v6) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([1u16; 8]));
        for (text, wants) in [
            ("t#s", [true, true]),
            ("4#t#s", [true, false]),
            ("6#t#s", [false, true]),
        ] {
            let set: SetName = text.parse().expect(text);
            assert_eq!([set.wants(v4), set.wants(v6)], wants, "{text}");
        }
    }

    #[test]
    fn what_is_no_set_is_refused() {
        let long = "x".repeat(NAME_MAX + 1);
        for (text, part) in [
            ("", "# in between"),
            ("vpn", "# in between"),
            ("4#vpn", "# in between"),
            ("a#inet#t#s", "# in between"),
            ("ipv4#t#s", "inet, ip, arp"),
            ("t#", "does not begin"),
            ("#s", "does not begin"),
            ("t#4s", "does not begin"),
            ("t#s s", "other characters"),
            (&format!("t#{long}"), "more than 255"),
        ] {
            let error = text.parse::<SetName>().expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
