//! Zones of the upstream, and the names that are asked for.

use std::fmt::Write;
use std::path::Path;

use anyhow::Result;
use xdnsd_lab::nsd::Zone;
use xdnsd_lab::sign::{Denial, sign};

use crate::support::random::Random;

/// The zones, and names in and around them.
pub struct World {
    pub zones: Vec<Zone>,
    pub names: Vec<String>,
}

/// Zones without signatures, with NSEC and with NSEC3, and a reverse zone.
pub fn world(directory: &Path) -> Result<World> {
    let mut world = World {
        zones: Vec::new(),
        names: Vec::new(),
    };
    let mut random = Random::new(1);
    for (origin, denial) in [
        ("diff.test.", None),
        ("nsec.test.", Some(Denial::Nsec)),
        ("nsec3.test.", Some(Denial::Nsec3)),
    ] {
        let mut builder = Builder::new(origin);
        builder.records(&mut random);
        builder.aliases();
        builder.structure();
        builder.long();
        world.names.append(&mut builder.names);
        let zone = builder.zone;
        world.zones.push(match denial {
            None => zone,
            Some(denial) => sign(&zone, denial, directory)?.zone,
        });
    }
    let mut reverse = Builder::new("0.18.198.in-addr.arpa.");
    for number in 0..40 {
        reverse.add(&number.to_string(), &format!("PTR a{number}.diff.test."));
    }
    reverse.ask(&["77", "255"]);
    world.names.append(&mut reverse.names);
    world.zones.push(reverse.zone);
    // Names without a zone at the upstream: it refuses.
    for name in ["nobody.test.", "example.org.", "."] {
        world.names.push(name.to_owned());
    }
    Ok(world)
}

struct Builder {
    zone: Zone,
    names: Vec<String>,
}

impl Builder {
    fn new(origin: &str) -> Self {
        let text = format!(
            "$ORIGIN {origin}\n$TTL 3600\n\
             @ SOA ns.diff.test. hostmaster.diff.test. 1 3600 600 86400 900\n@ NS ns.diff.test.\n"
        );
        let zone = Zone {
            origin: origin.to_owned(),
            text,
        };
        let names = vec![origin.to_owned()];
        Self { zone, names }
    }

    /// Adds a record, and its owner to the names that are asked for.
    fn add(&mut self, owner: &str, record: &str) {
        writeln!(self.zone.text, "{owner} {record}").expect("a String takes any text");
        if !owner.contains('*') {
            self.ask(&[owner]);
        }
    }

    /// Names that are asked for.
    fn ask(&mut self, labels: &[&str]) {
        for label in labels {
            let name = format!("{label}.{}", self.zone.origin);
            if self.names.last() != Some(&name) {
                self.names.push(name);
            }
        }
    }

    /// RRsets of many types.
    fn records(&mut self, random: &mut Random) {
        if self.zone.origin == "diff.test." {
            self.add("ns", "A 10.54.0.2");
        }
        for number in 0..60 {
            let owner = format!("a{number}");
            for address in 0..1 + random.below(4) {
                self.add(&owner, &format!("A 192.0.2.{}", 4 * number + address));
            }
            if random.below(2) == 0 {
                self.add(&owner, &format!("7200 AAAA 2001:db8::{number:x}"));
            }
            if random.below(4) == 0 {
                self.add(&owner, &format!("60 TXT \"text of {owner}\" \"and More\""));
            }
        }
        for number in 0..12 {
            for (preference, exchange) in [(10, 1), (20, 2), (20, 3)] {
                let exchange = number + exchange;
                self.add(
                    &format!("mx{number}"),
                    &format!("MX {preference} a{exchange}"),
                );
            }
            let srv = format!("_sip._udp.srv{number}");
            self.add(&srv, &format!("SRV 0 5 {} a{number}", 5060 + number));
            self.add(&srv, &format!("SRV 1 5 5060 a{}", number + 1));
            let https = format!("https{number}");
            self.add(
                &https,
                &format!(
                    "HTTPS 1 . alpn=\"h3,h2\" ipv4hint=192.0.2.{number} ipv6hint=2001:db8::{number}"
                ),
            );
            self.add(&https, &format!("A 192.0.2.{number}"));
        }
        self.add("alias-mode", "HTTPS 0 https0");
        self.add("other", "CAA 0 issue \"ca.example\"");
        self.add(
            "other",
            "NAPTR 100 50 \"s\" \"SIP+D2U\" \"\" _sip._udp.srv0",
        );
        self.add(
            "other",
            "SSHFP 1 1 123456789abcdef67890123456789abcdef67890",
        );
        self.add("other", "TYPE65280 \\# 4 01020304");
        self.add(
            "_443._tcp.other",
            "TLSA 3 1 1 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
        );
    }

    /// CNAME and DNAME, within the zone and to outside.
    fn aliases(&mut self) {
        self.add("c0", "CNAME a0");
        for number in 1..7 {
            self.add(&format!("c{number}"), &format!("120 CNAME c{}", number - 1));
        }
        for number in 10..30 {
            self.add(&format!("c{number}"), &format!("CNAME a{number}"));
        }
        self.add("dangling", "CNAME missing");
        self.add("to-mx", "CNAME mx0");
        self.add("to-wild", "CNAME some.wild");
        self.add("to-ent", "CNAME ent");
        self.add("to-dname", "CNAME host.dname");
        self.add("to-big", "CNAME big");
        self.add("out-nsec", "CNAME a1.nsec.test.");
        self.add("out-nsec3", "CNAME c3.nsec3.test.");
        self.add("out-missing", "CNAME missing.diff.test.");
        self.add("loop0", "CNAME loop1");
        self.add("loop1", "CNAME loop0");
        self.add("dname", "DNAME tree");
        self.add("host.tree", "A 192.0.2.200");
        self.add("deep.host.tree", "TXT deep");
        self.ask(&["host.dname", "deep.host.dname", "missing.dname"]);
    }

    /// Wildcards, empty non-terminals, delegations, odd labels.
    fn structure(&mut self) {
        for record in ["A 192.0.2.77", "AAAA 2001:db8::77", "MX 10 a0", "TXT wild"] {
            self.add("*.wild", record);
        }
        self.add("exact.wild", "A 192.0.2.78");
        self.add("*.cwild", "CNAME a5");
        self.ask(&[
            "one.wild",
            "two.three.wild",
            "sub.exact.wild",
            "wild",
            "one.cwild",
        ]);
        self.add("x.y.ent", "A 192.0.2.79");
        self.ask(&["y.ent", "ent", "z.ent", "missing.y.ent"]);
        for number in 0..3 {
            self.add(&format!("sub{number}"), &format!("NS ns.sub{number}"));
            self.add(&format!("ns.sub{number}"), "A 192.0.2.99");
            self.ask(&[&format!("www.sub{number}")]);
        }
        self.add("under_score", "A 192.0.2.80");
        self.add("with\\.dot", "A 192.0.2.81");
        self.add("with\\000nul", "A 192.0.2.82");
        self.add("UPPER", "A 192.0.2.83");
        let label = "l".repeat(63);
        self.add(&label, "A 192.0.2.84");
        self.add(&format!("{label}.{label}.{label}"), "A 192.0.2.85");
        for number in 0..20 {
            self.ask(&[&format!("missing{number}")]);
        }
        self.ask(&["missing", "below.a1", "below.c1"]);
        self.add("zero", "0 A 192.0.2.86");
        self.add("short", "2 A 192.0.2.87");
    }

    /// Answers about as long as a datagram, and longer.
    fn long(&mut self) {
        for strings in 1..14 {
            for number in 0..strings {
                let text = format!("{number:02}-").repeat(33);
                self.add(&format!("txt{strings}"), &format!("TXT \"{text}\""));
            }
        }
        for number in 0..100 {
            self.add("big", &format!("A 198.18.1.{number}"));
            self.add("big", &format!("AAAA 2001:db8:1::{number:x}"));
        }
    }
}
