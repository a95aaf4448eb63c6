//! Tests of clients with names that they must not get.

use crate::compile::hosts::LeaseFormat;
use crate::compile::local::{LeaseFile, LocalInput};
use crate::compile::problem::Notes;
use crate::compile::set::{PolicyInput, PolicySet};
use crate::compile::testing::{address_of, pointer_of};
use crate::testing::Folder;

fn lan(records: &[&str]) -> LocalInput {
    LocalInput {
        records: records.iter().map(|&text| text.into()).collect(),
        zones: vec![
            "lan".into(),
            "iot.lan".into(),
            "168.192.in-addr.arpa".into(),
        ],
        search_domain: Some("lan".into()),
        ..LocalInput::default()
    }
}

/// The set of a home network with these leases of dnsmasq, and the notes without the file.
fn house(input: LocalInput, leases: &str) -> (PolicySet, Vec<String>) {
    served(input, LeaseFormat::Dnsmasq, leases)
}

fn served(mut local: LocalInput, format: LeaseFormat, text: &str) -> (PolicySet, Vec<String>) {
    let folder = Folder::new();
    let path = folder.write("leases", text);
    local.leases = vec![LeaseFile { path, format }];
    let input = PolicyInput {
        local,
        ..PolicyInput::default()
    };
    let mut notes = Notes::default();
    let set = PolicySet::build(&input, None, &mut notes).expect("compiled");
    let all = notes.first.iter().chain(&notes.refusals);
    let said = all.map(|problem| problem.what.clone()).collect();
    (set, said)
}

/// One lease of a client with this name.
fn lease(name: &str) -> String {
    format!("0 02:00:00:00:00:66 192.168.1.66 {name} *\n")
}

/// Names that a client asks for, and why it does not get them.
const HOSTILE: &[(&str, &str)] = &[
    ("localhost", "local.never_leased has it"),
    ("LOCALHOST", "local.never_leased has it"),
    ("localhost.", "local.never_leased has it"),
    ("localhost.lan", "local.never_leased has it"),
    ("wpad", "local.never_leased has it"),
    ("WPAD.iot.lan", "local.never_leased has it"),
    ("isatap", "local.never_leased has it"),
    ("gateway", "local.never_leased has it"),
    (
        "nas",
        "the name exists in local.records with address 192.168.1.5",
    ),
    (
        "NaS",
        "the name exists in local.records with address 192.168.1.5",
    ),
    (
        "nas.",
        "the name exists in local.records with address 192.168.1.5",
    ),
    (
        "nas.lan",
        "the name exists in local.records with address 192.168.1.5",
    ),
    ("mail", "the name exists in local.records"),
    ("web", "the name exists in local.records"),
    ("lan", "it is a zone of the config"),
    ("iot", "it is a zone of the config"),
    ("iot.lan", "it is a zone of the config"),
    (
        "x.dev.lan",
        "it is not a host of local.search or local.zones",
    ),
    (
        "www.ok.example",
        "it is not a host of local.search or local.zones",
    ),
    ("a.b.lan", "it is not a host of local.search or local.zones"),
    ("a.b", "it is not a host of local.search or local.zones"),
    ("192.168.1.1", "it reads as a number"),
    (
        "use-application-dns.net",
        "it is not a host of local.search or local.zones",
    ),
    (
        "_dns.resolver",
        "it does not begin with a letter or a digit",
    ),
    (
        "_dns.resolver.arpa",
        "it does not begin with a letter or a digit",
    ),
    ("_ldap", "it does not begin with a letter or a digit"),
    ("-rf", "it does not begin with a letter or a digit"),
    ("1", "it reads as a number"),
    ("3232235777", "it reads as a number"),
    ("0xc0a80101", "it reads as a number"),
    ("0XC0A80101.lan", "it reads as a number"),
    ("5.168.192.in-addr.arpa", "it reads as a number"),
    (
        "x.168.192.in-addr.arpa",
        "it is not a host of local.search or local.zones",
    ),
    ("invalid", "it is a special-use name"),
    ("local", "it is a special-use name"),
    ("internal", "it is a special-use name"),
    ("alt", "it is a special-use name"),
    ("onion", "it is a special-use name"),
];

/// Each name is refused in any spelling, with one note.
#[test]
fn hostile_names_are_not_given() {
    let long = "a".repeat(64);
    let records = [
        "nas.lan A 192.168.1.5",
        "mail.lan MX 10 nas.lan",
        "web.lan CNAME nas.lan",
        "*.dev.lan A 192.168.1.80",
    ];
    for (name, why) in HOSTILE {
        let (set, said) = house(lan(&records), &lease(name));
        let shown = name.strip_suffix('.').unwrap_or(name);
        let expected =
            format!("not giving name {shown} to the DHCP lease of 192.168.1.66 because {why}");
        assert_eq!(said, [expected]);
        assert_eq!(pointer_of(&set, "192.168.1.66"), None, "{name}");
        for form in [shown.to_lowercase(), format!("{shown}.lan")] {
            let found = address_of(&set, &form);
            assert_ne!(found.as_deref(), Some("192.168.1.66"), "{form}");
        }
    }
    // Names that no host has.
    for name in [
        "*.lan",
        "a b",
        "bob's",
        "a..b",
        "..",
        &long,
        "\u{1b}[2J",
        "m\u{fffd}",
        "a\\.b",
        "x/y",
        "$(id)",
    ] {
        let (set, said) = house(lan(&records), &lease(name));
        assert_eq!(said.len(), 1, "{name}: {said:?}");
        assert_eq!(pointer_of(&set, "192.168.1.66"), None, "{name}");
    }
    let (_, said) = house(lan(&records), &lease("*"));
    assert_eq!(said, [""; 0], "dnsmasq's way to say that there is no name");
}

#[test]
fn names_that_nobody_has_are_given_in_each_form() {
    let long = "a".repeat(63);
    let cases = [
        ("phone", &["phone", "phone.lan"][..]),
        ("Phone.LAN.", &["phone", "phone.lan"]),
        ("sensor.iot.lan", &["sensor.iot.lan"]),
        ("my_phone-2", &["my_phone-2", "my_phone-2.lan"]),
        ("2nd", &["2nd", "2nd.lan"]),
        ("0x", &["0x", "0x.lan"]),
        ("k\u{fc}che", &["xn--kche-0ra", "xn--kche-0ra.lan"]),
        (&long, &[&long]),
        // Between our own names, and the parent of a wildcard: empty.
        ("b", &["b", "b.lan"]),
        ("dev", &["dev", "dev.lan"]),
    ];
    for (name, forms) in cases {
        let records = ["a.b.lan A 192.168.1.3", "*.dev.lan A 192.168.1.80"];
        let (set, said) = house(lan(&records), &lease(name));
        assert_eq!(said, [""; 0], "{name}");
        for form in forms {
            let found = address_of(&set, form);
            assert_eq!(found.as_deref(), Some("192.168.1.66"), "{form}");
        }
    }
    let (set, _) = house(lan(&[]), &lease("Phone"));
    let pointer = pointer_of(&set, "192.168.1.66");
    assert_eq!(pointer.as_deref(), Some("Phone.lan."), "as it is written");
    assert_eq!(address_of(&set, "phone.iot.lan"), None, "in one domain");
}

/// Without a search domain and zones a name of one label exists by itself, and any other belongs to somebody else.
#[test]
fn without_domains_leases_have_names_of_one_label() {
    let (set, said) = house(LocalInput::default(), &lease("phone"));
    assert_eq!(said, [""; 0]);
    assert_eq!(address_of(&set, "phone").as_deref(), Some("192.168.1.66"));
    let (_, said) = house(LocalInput::default(), &lease("phone.lan"));
    assert_eq!(said.len(), 1);
}

/// The input of USE.md, both formats, both families.
#[test]
fn odhcpd_names_hosts_inside_our_domains_only() {
    let text = "# lan0 0001aa 1 www.ok.example 1900000000 a2 128 fd00:1::a2/128\n\
                fd00:1::a2\twww.ok.example.lan\twww.ok.example\n\
                # lan0 0001ab 1 x.iot 1900000000 a3 128 fd00:1::a3/128\n\
                fd00:1::a3\tx.iot.lan\tx.iot\n\
                # lan0 0001ac 1 laptop 1900000000 a4 128 fd00:1::a4/128 2001:db8::a4/128\n\
                fd00:1::a4\tlaptop.lan\tlaptop\n\
                # lan0 0200000000ad ipv4 nas 1900000000 60 32 192.168.1.60/32\n\
                192.168.1.60\tnas.lan\tnas\n\
                # lan0 0001ae 1 nas 1900000000 a5 128 fd00:1::a5/128\n";
    let (set, said) = served(lan(&["nas.lan A 192.168.1.5"]), LeaseFormat::Odhcpd, text);
    for name in [
        "www.ok.example",
        "www.ok.example.lan",
        "www.lan",
        "x.iot.lan",
        "x.iot",
    ] {
        assert_eq!(address_of(&set, name), None, "{name}");
    }
    for name in ["laptop", "laptop.lan"] {
        let found = address_of(&set, name);
        assert_eq!(found.as_deref(), Some("fd00:1::a4, 2001:db8::a4"), "{name}");
    }
    assert_eq!(address_of(&set, "nas.lan").as_deref(), Some("192.168.1.5"));
    assert_eq!(
        pointer_of(&set, "fd00:1::a4").as_deref(),
        Some("laptop.lan.")
    );
    assert_eq!(
        pointer_of(&set, "2001:db8::a4").as_deref(),
        Some("laptop.lan.")
    );
    for address in ["fd00:1::a2", "fd00:1::a3", "fd00:1::a5", "192.168.1.60"] {
        assert_eq!(pointer_of(&set, address), None, "{address}");
    }
    let of_nas = "not giving name nas to the DHCP lease of fd00:1::a5 because the name exists in \
                  local.records with address 192.168.1.5";
    assert!(said.iter().any(|said| said == of_nas), "{said:?}");
    // A router whose config names no domain still has the short names of odhcpd's hosts files.
    let hosts = "fd00:1::a4\tlaptop.lan\tlaptop\n";
    let (set, said) = served(LocalInput::default(), LeaseFormat::Odhcpd, hosts);
    assert_eq!(said, [""; 0]);
    assert_eq!(address_of(&set, "laptop").as_deref(), Some("fd00:1::a4"));
    assert_eq!(address_of(&set, "laptop.lan"), None);
}

/// The note names the source that has the address.
#[test]
fn a_name_of_two_sources_is_told_by_the_one_with_the_address() {
    let folder = Folder::new();
    let hosts = folder.write("hosts", "192.168.1.5 nas\n");
    let input = LocalInput {
        hosts: vec![hosts],
        ..lan(&["nas.lan TXT x"])
    };
    let (_, said) = house(input, &lease("nas"));
    let [said] = &said[..] else {
        panic!("{said:?}")
    };
    assert!(said.ends_with("/hosts with address 192.168.1.5"), "{said}");
}

/// Of two clients with one name, the one with the lease that ends last gets it: for dnsmasq, the later one.
#[test]
fn two_clients_with_one_name() {
    let text = "1900000100 m1 192.168.1.7 phone *\n1900000200 m2 192.168.1.8 phone *\n\
                1900000000 m3 192.168.1.9 phone *\n1900000050 1 fd00::7 pad 00:01:aa\n\
                1900000040 2 fd00::8 pad 00:01:aa\n1900000030 3 fd00::9 pad 00:01:bb\n";
    let (set, said) = house(lan(&[]), text);
    assert_eq!(
        address_of(&set, "phone.lan").as_deref(),
        Some("192.168.1.8")
    );
    assert_eq!(
        address_of(&set, "pad.lan").as_deref(),
        Some("fd00::7, fd00::8")
    );
    let refused = |name: &str, address: &str, holder: &str| {
        format!(
            "not giving name {name} to the DHCP lease of {address} because the lease of {holder} has it and ends no sooner"
        )
    };
    let expected = [
        refused("phone", "192.168.1.7", "192.168.1.8"),
        refused("phone", "192.168.1.9", "192.168.1.8"),
        refused("pad", "fd00::9", "fd00::7"),
    ];
    assert_eq!(said, expected);
    for (address, pointer) in [
        ("192.168.1.8", Some("phone.lan.")),
        ("192.168.1.7", None),
        ("fd00::9", None),
    ] {
        assert_eq!(pointer_of(&set, address).as_deref(), pointer, "{address}");
    }
    // A lease that never ends precedes one that does; of equals the first one wins.
    let (set, _) = house(
        lan(&[]),
        "1900000100 m1 192.168.1.7 tv *\n0 m2 192.168.1.8 tv *\n0 m3 192.168.1.9 tv *\n",
    );
    assert_eq!(address_of(&set, "tv").as_deref(), Some("192.168.1.8"));
    // The same client at another address has both, like the same client over both protocols.
    let (set, said) = house(lan(&[]), "0 m1 192.168.1.7 tv *\n0 m1 192.168.1.8 tv *\n");
    assert_eq!(
        address_of(&set, "tv").as_deref(),
        Some("192.168.1.7, 192.168.1.8")
    );
    assert_eq!(said, [""; 0]);
}

/// Clients try IPv6 addresses first: whoever adds one to the name of another client gets its connections.
#[test]
fn over_ipv6_a_client_gets_the_name_of_its_own_machine_alone() {
    let both = "192.168.1.8, fd00::8";
    let dnsmasq = |id: &str, duid: &str| {
        // Over IPv6 it ends later, and so it came later.
        format!(
            "1900000900 7 fd00::8 phone {duid}\n1900000000 02:00:00:00:00:08 192.168.1.8 phone {id}\n"
        )
    };
    let by_number = "00:02:00:00:ab:11:aa";
    let of_duid = format!("ff:00:00:00:08:{by_number}");
    let with_mac = "00:01:00:01:2c:aa:bb:cd:02:00:00:00:00:08";
    let of_another = "00:01:00:01:2c:aa:bb:cd:02:00:00:00:00:66";
    for (id, duid, addresses) in [
        ("*", with_mac, both),
        ("01:02:00:00:00:00:08", with_mac, both),
        ("*", "00:03:00:01:02:00:00:00:00:08", both),
        (&of_duid, by_number, both),
        ("*", of_another, "192.168.1.8"),
        ("*", by_number, "192.168.1.8"),
        ("*", "*", "192.168.1.8"),
        (&of_duid, with_mac, "192.168.1.8"),
        (&of_duid, of_another, "192.168.1.8"),
    ] {
        let (set, said) = house(lan(&[]), &dnsmasq(id, duid));
        for form in ["phone", "phone.lan"] {
            let found = address_of(&set, form);
            assert_eq!(found.as_deref(), Some(addresses), "{form} {id} {duid}");
        }
        let is_given = addresses == both;
        assert_eq!(pointer_of(&set, "fd00::8").is_some(), is_given, "{duid}");
        let refused = "not giving name phone to the DHCP lease of fd00::8 because the lease of 192.168.1.8 has it, and neither \
                       DUID nor MAC address says that both are of one client";
        let expected: &[&str] = if is_given { &[] } else { &[refused] };
        assert_eq!(said, expected, "{id} {duid}");
    }
    // odhcpd's: the lines as in a hosts file say the same once more, and by themselves nothing of whom they are of.
    let odhcpd = |duid: &str| {
        format!(
            "# lan0 {duid} 1 phone 1900000900 8 128 fd00::8/128 2001:db8::8/128\n\
             fd00::8\tphone.lan\tphone\n2001:db8::8\tphone.lan\tphone\n\
             # lan0 2:0:0:0:0:8 ipv4 phone 1900000000 8 32 192.168.1.8/32\n192.168.1.8\tphone.lan\tphone\n"
        )
    };
    let own = odhcpd("00030001020000000008");
    let (set, said) = served(lan(&[]), LeaseFormat::Odhcpd, &own);
    let found = address_of(&set, "phone.lan");
    assert_eq!(
        found.as_deref(),
        Some("192.168.1.8, fd00::8, 2001:db8::8"),
        "{said:?}"
    );
    assert_eq!(said, [""; 0]);
    let hosts: String = own
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| format!("{line}\n"))
        .collect();
    for text in [odhcpd("00030001020000000066"), hosts] {
        let (set, said) = served(lan(&[]), LeaseFormat::Odhcpd, &text);
        let found = address_of(&set, "phone.lan");
        assert_eq!(found.as_deref(), Some("192.168.1.8"), "{said:?}");
        assert!(!said.is_empty());
    }
    let (set, _) = served(
        lan(&[]),
        LeaseFormat::Odhcpd,
        "fd00::8\tpad\n2001:db8::8\tpad\nfd00::66\tpad\n",
    );
    let found = address_of(&set, "pad.lan");
    assert_eq!(found.as_deref(), Some("fd00::8, 2001:db8::8"));
}

/// A client does not rename an address that is ours, or that has a name already.
#[test]
fn the_names_of_fixed_addresses_stay() {
    let records = [
        "router.lan A 192.168.1.1",
        "4.1.168.192.in-addr.arpa PTR written.lan",
        "*.9.168.192.in-addr.arpa PTR wild.lan",
    ];
    let folder = Folder::new();
    let mut input = PolicyInput {
        local: lan(&records),
        ..PolicyInput::default()
    };
    input.local.hosts = vec![folder.write("hosts", "192.168.1.5 nas\n")];
    input.local.leases = vec![LeaseFile {
        path: folder.write(
            "leases",
            "0 m1 192.168.1.1 evil *\n0 m2 192.168.1.4 tv *\n0 m3 192.168.1.5 box *\n0 m4 192.168.1.2 me *\n0 m5 192.168.9.1 w *\n",
        ),
        format: LeaseFormat::Dnsmasq,
    }];
    input.links.own_addresses = vec!["192.168.1.2".parse().expect("an address")];
    let mut notes = Notes::default();
    let set = PolicySet::build(&input, None, &mut notes).expect("compiled");
    let pointers = [
        ("192.168.1.1", Some("router.lan.")),
        ("192.168.1.4", Some("written.lan.")),
        ("192.168.1.5", Some("nas.lan.")),
        ("192.168.1.2", None),
        ("192.168.9.1", Some("wild.lan.")),
    ];
    for (address, pointer) in pointers {
        assert_eq!(pointer_of(&set, address).as_deref(), pointer, "{address}");
    }
    assert_eq!(address_of(&set, "me.lan"), None);
    let said: Vec<&str> = notes
        .refusals
        .iter()
        .map(|problem| problem.what.as_str())
        .collect();
    let own = "not giving name me to the DHCP lease of 192.168.1.2 because the address is this router's own";
    assert_eq!(said, [own]);
}

/// A hosts file gives the lease's own address to its name: nothing is refused, and there is no note.
#[test]
fn a_lease_that_says_what_is_known_is_no_quarrel() {
    let (set, said) = house(lan(&["nas.lan A 192.168.1.66"]), &lease("nas"));
    assert_eq!(said, [""; 0]);
    assert_eq!(address_of(&set, "nas").as_deref(), Some("192.168.1.66"));
}

/// The config's list replaces the default, and counts in any domain.
#[test]
fn the_list_of_names_that_are_never_leased_is_the_operators() {
    let mut input = lan(&[]);
    input.never_leased = vec!["printer".into(), "tv.lan".into()];
    for (name, is_given) in [
        ("printer", false),
        ("printer.iot.lan", false),
        ("tv", false),
        ("tv.iot.lan", true),
        ("wpad", true),
    ] {
        let (set, said) = house(input.clone(), &lease(name));
        assert_eq!(said.is_empty(), is_given, "{name}: {said:?}");
        let found = address_of(&set, name).is_some();
        assert_eq!(found, is_given, "{name}");
    }
}

/// No client has the first or the last address of a network, and the router does not either.
#[test]
fn the_ends_of_a_network_are_no_clients() {
    let addresses = |texts: &[&str]| {
        let parsed = texts.iter().map(|text| text.parse().expect("an address"));
        parsed.collect::<Vec<std::net::IpAddr>>()
    };
    let folder = Folder::new();
    let nobodys = ["192.168.1.0", "192.168.1.255", "fd00::"];
    let own = "192.168.1.1";
    let lines: Vec<String> = [own, "192.168.1.7"]
        .iter()
        .chain(&nobodys)
        .enumerate()
        .map(|(index, address)| format!("0 m{index} {address} phone{index} *\n"))
        .collect();
    let mut input = PolicyInput {
        local: lan(&[]),
        ..PolicyInput::default()
    };
    input.local.leases = vec![LeaseFile {
        path: folder.write("leases", lines.concat()),
        format: LeaseFormat::Dnsmasq,
    }];
    input.links.own_addresses = addresses(&[own]);
    input.links.martian_sources = addresses(&[&nobodys[..], &[own]].concat());
    let mut notes = Notes::default();
    let set = PolicySet::build(&input, None, &mut notes).expect("compiled");
    assert_eq!(address_of(&set, "phone1").as_deref(), Some("192.168.1.7"));
    let said: Vec<&str> = notes
        .refusals
        .iter()
        .map(|refusal| refusal.what.as_str())
        .collect();
    let expected = |index: usize, address: &str, why: &str| {
        format!("not giving name phone{index} to the DHCP lease of {address} because {why}")
    };
    let nobody = "no host of a network has the address";
    let expected = [
        expected(0, own, "the address is this router's own"),
        expected(2, nobodys[0], nobody),
        expected(3, nobodys[1], nobody),
        expected(4, nobodys[2], nobody),
    ];
    assert_eq!(said, expected);
}

#[test]
fn no_name_leads_to_an_address_that_no_host_has() {
    for address in [
        "0.0.0.0",
        "127.0.0.9",
        "224.0.0.251",
        "255.255.255.255",
        "240.0.0.1",
        "::",
        "::1",
        "ff02::fb",
    ] {
        let line = format!("0 02:00:00:00:00:66 {address} phone *\n");
        let (set, said) = house(lan(&[]), &line);
        let expected = format!(
            "not giving name phone to the DHCP lease of {address} because no host of a network has the address"
        );
        assert_eq!(said, [expected]);
        assert_eq!(address_of(&set, "phone"), None, "{address}");
    }
    for address in ["169.254.3.4", "223.255.255.254", "10.0.0.1"] {
        let line = format!("0 02:00:00:00:00:66 {address} phone *\n");
        let (set, said) = house(lan(&[]), &line);
        assert!(said.is_empty(), "{said:?}");
        assert_eq!(address_of(&set, "phone").as_deref(), Some(address));
    }
}
