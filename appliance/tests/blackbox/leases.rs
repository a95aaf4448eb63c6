//! Real DHCP: Debian's dnsmasq gives leases to busybox' udhcpc with names that it must not get, and its lease file is read as
//! it is written. Names that dnsmasq filters are in a second file, as another server might write it.

use std::fs;

use anyhow::{Context, Result, ensure};
use hickory_proto::op::ResponseCode;
use xdnsd_lab::lab::LAN;
use xdnsd_lab::process::{End, Process};

use crate::support::TIMEOUT;
use crate::support::scene::{Directory, Scene, Setup, scene};
use crate::support::script::Rule;
use crate::support::text::{Case, ask_all, check_all, wait_for_answer};
use crate::support::ways::Ways;

const NX: ResponseCode = ResponseCode::NXDomain;
const OK: ResponseCode = ResponseCode::NoError;

const HOUSE: &str = r#"
[local]
zones = ["lan"]
search = ["lan"]
forward_plain_names = false
lease_ttl = 9
records = ["router.lan A 10.53.0.1", "*.dev.lan A 192.168.1.80", "_ipp._tcp.lan PTR My\\032Printer\\.2._ipp._TCP.lan"]
hosts = ["{directory}/hosts"]
dnsmasq_leases = ["{directory}/dhcp.leases", "{directory}/other.leases"]
odhcpd_leases = ["{directory}/odhcpd"]
[filter]
block = ["ads.lan"]
[[upstream]]
name = "elsewhere"
servers = ["10.54.0.3"]
domains = ["part.lan"]
"#;

/// Names of clients, and what dnsmasq makes of them. `None`: the client gets no name of ours.
const CLIENTS: &[(&str, Option<&str>)] = &[
    ("phone", Some("phone")),
    ("UPPER", Some("upper")),
    ("my_phone", Some("my_phone")),
    ("tablet.example.org", Some("tablet")),
    ("evil name", Some("evil")),
    ("Router", None),
    ("localhost", None),
    ("wpad", None),
    ("isatap", None),
    ("nas", None),
    ("lan", None),
    ("ads", None),
    ("part", None),
    ("internal", None),
    ("12345", None),
    ("10.53.0.1", None),
    ("*", None),
    ("_dns.resolver", None),
    ("-x", None),
    ("m\u{fc}nchen", None),
    ("\u{1b}[2J", None),
    (
        "aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffgggggggggg",
        None,
    ),
];

/// Lines that dnsmasq would not write: names that it truncates or refuses, a blank in a name, an address of the router.
const OTHER: &str = "0 02:00:00:00:00:01 192.168.1.61 www.ok.example *\n\
    0 02:00:00:00:00:02 192.168.1.62 x.dev.lan *\n\
    0 02:00:00:00:00:03 192.168.1.63 use-application-dns.net *\n\
    0 02:00:00:00:00:04 192.168.1.64 _dns.resolver.arpa *\n\
    0 02:00:00:00:00:05 192.168.1.65 \u{1b}[2Jred *\n\
    0 02:00:00:00:00:06 10.53.0.1 mine *\n\
    0 02:00:00:00:00:07 192.168.1.67 a b *\n\
    0 02:00:00:00:00:08 192.168.1.68 other.test *\n\
    0 02:00:00:00:00:09 192.168.1.69 last *\n\
    0 1 fd00::9 nas 00:01:00:01:aa\n\
    0 2 fd00::10 six 00:01:00:01:bb\n";

/// odhcpd's state file in its format: each lease, then lines as in a hosts file.
const ODHCPD: &str = "# lan0 00010001aa 1 www.ok.example 1900000000 a2 128 fd00:1::a2/128\n\
    fd00:1::a2\twww.ok.example.lan\twww.ok.example\n\
    # lan0 00010001bb 1 laptop 1900000000 a3 128 fd00:1::a3/128\n\
    fd00:1::a3\tlaptop.lan\tlaptop\n\
    # lan0 020000000060 ipv4 router 1900000000 60 32 192.168.1.90/32\n\
    192.168.1.90\trouter.lan\trouter\n";

fn house(folder: &Directory) -> Result<Setup> {
    fs::write(
        folder.path().join("hosts"),
        "192.168.1.5 nas\n192.168.1.6 bob's tv\n",
    )?;
    let sections = HOUSE.replace("{directory}", &folder.path().display().to_string());
    Ok(Setup::three_ways().sections(&sections))
}

fn start_dnsmasq(scene: &Scene, folder: &Directory) -> Result<Process> {
    let mut command = scene.lab.router.command("dnsmasq");
    let leases = folder.path().join("dhcp.leases");
    command.args([
        "--conf-file=/dev/null",
        "--port=0",
        "--dhcp-range=10.53.0.100,10.53.0.199,1h",
    ]);
    command.args([
        "--dhcp-authoritative",
        "--no-ping",
        "--pid-file=",
        "--keep-in-foreground",
        "--user=root",
        "--log-facility=-",
    ]);
    command.arg(format!("--interface={LAN}"));
    command.arg(format!("--dhcp-leasefile={}", leases.display()));
    let log = folder.path().join("dnsmasq.log");
    let mut process = Process::spawn_with_end(command, &log, End::Terminate)
        .context("start dnsmasq (package dnsmasq-base)")?;
    process.wait_for_log("DHCP, IP range", TIMEOUT)?;
    Ok(process)
}

/// Makes a client ask for a lease, and returns its address.
fn lease(scene: &Scene, number: usize, name: &str) -> Result<String> {
    let mut command = scene.lab.client.command("udhcpc");
    command.args([
        "-i",
        "eth0",
        "-f",
        "-q",
        "-n",
        "-t",
        "5",
        "-T",
        "1",
        "-s",
        "/bin/true",
    ]);
    command.args([
        "-x",
        &format!("hostname:{name}"),
        "-x",
        &format!("0x3d:00{number:02x}aa"),
    ]);
    let output = command.output().context("run udhcpc (package udhcpc)")?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned()
        + &String::from_utf8_lossy(&output.stdout);
    let (_, behind) = said.split_once("lease of ").with_context(|| said.clone())?;
    let address = behind.split([' ', ',']).next().unwrap_or_default();
    Ok(address.to_owned())
}

fn pointer(address: &str) -> String {
    let octets: Vec<&str> = address.split('.').rev().collect();
    format!("{}.in-addr.arpa.", octets.join("."))
}

#[test]
fn clients_of_a_real_dhcp_server_take_no_name_that_is_somebody_elses() -> Result<()> {
    let folder = Directory::new()?;
    let scene = scene!(house(&folder)?);
    let _dnsmasq = start_dnsmasq(&scene, &folder)?;
    let ways = Ways::open(&scene)?;
    let mut addresses = Vec::new();
    for (number, (name, _)) in CLIENTS.iter().enumerate() {
        addresses.push(lease(&scene, number + 1, name)?);
    }
    // Comes last, so that everything before it has been read.
    let mark = lease(&scene, CLIENTS.len() + 1, "mark")?;
    wait_for_answer(&ways, "mark.lan. A", |answer| {
        answer.to_string().contains(&mark)
    })?;
    for ((name, expected), address) in CLIENTS.iter().zip(&addresses) {
        let owner = pointer(address);
        match expected {
            Some(label) => {
                for form in [format!("{label}."), format!("{label}.lan.")] {
                    let record = format!("{form} 9 A {address}");
                    check_all(&ways, &[(&format!("{form} A"), OK, &[&record])])?;
                    check_all(&ways, &[(&format!("{form} HTTPS"), OK, &[])])?;
                }
                let answer = ask_all(&ways, &format!("{owner} PTR"))?;
                ensure!(answer.answers().len() == 1, "{name}: {answer}");
            }
            None => {
                let answer = ask_all(&ways, &format!("{owner} PTR"))?;
                ensure!(answer.response_code() == NX, "{name} has {answer}");
                let denial = answer.name_servers().iter().map(|record| record.ttl());
                ensure!(denial.collect::<Vec<_>>() == [9], "{name}: {answer}");
            }
        }
    }
    check_all(&ways, HOME)?;
    let told = fs::read_to_string(folder.path().join("dhcp.leases"))?;
    ensure!(
        told.contains(" Router ") && told.contains(" localhost "),
        "dnsmasq lets them through: {told}"
    );
    // Once, however often the file was written meanwhile; also the bad line of the hosts file.
    for what in [
        "not giving name Router to the DHCP lease of ",
        "not giving name wpad to",
        "`bob's` has characters",
    ] {
        ensure!(
            scene.daemon.log().matches(what).count() == 1,
            "{what}: {}",
            scene.daemon.log()
        );
    }
    ensure!(
        scene.upstream.asked_all().is_empty(),
        "something was asked outside"
    );
    ways.check_tiers()
}

/// Names that are answered whatever clients come.
const HOME: &[Case] = &[
    ("router.lan. A", OK, &["router.lan. 60 A 10.53.0.1"]),
    ("router. A", OK, &["router. 60 A 10.53.0.1"]),
    ("nas.lan. A", OK, &["nas.lan. 60 A 192.168.1.5"]),
    ("nas. A", OK, &["nas. 60 A 192.168.1.5"]),
    ("nas. AAAA", OK, &[]),
    ("localhost. A", OK, &["localhost. 10800 A 127.0.0.1"]),
    ("localhost.lan. A", NX, &[]),
    ("wpad. A", NX, &[]),
    ("wpad.lan. A", NX, &[]),
    ("lan. A", OK, &[]),
    ("ads.lan. A", NX, &[]),
    ("internal. A", NX, &[]),
    ("internal.lan. A", NX, &[]),
    ("x.dev.lan. A", OK, &["x.dev.lan. 60 A 192.168.1.80"]),
    (
        "1.0.53.10.in-addr.arpa. PTR",
        OK,
        &["1.0.53.10.in-addr.arpa. 60 PTR router.lan."],
    ),
];

/// Names of clients that dnsmasq would have truncated or refused, and those of odhcpd.
#[test]
fn names_of_leases_with_dots_are_hosts_of_ours_or_nobodys() -> Result<()> {
    let folder = Directory::new()?;
    let setup = house(&folder)?;
    fs::write(folder.path().join("other.leases"), OTHER)?;
    fs::write(folder.path().join("odhcpd"), ODHCPD)?;
    let scene = scene!(setup);
    for name in ["www.ok.example.", "other.test."] {
        let outside = Rule::records(&[
            &format!("{name} 300 A 192.0.2.1"),
            &format!("{name} 300 AAAA 2001:db8::1"),
        ]);
        scene.upstream.on(name, outside);
    }
    let ways = Ways::open(&scene)?;
    check_all(&ways, HOME)?;
    let cases: &[Case] = &[
        (
            "www.ok.example. A",
            OK,
            &["www.ok.example. 300 A 192.0.2.1"],
        ),
        (
            "www.ok.example. AAAA",
            OK,
            &["www.ok.example. 300 AAAA 2001:db8::1"],
        ),
        ("other.test. A", OK, &["other.test. 300 A 192.0.2.1"]),
        ("www.lan. A", NX, &[]),
        ("www.ok.example.lan. AAAA", NX, &[]),
        ("mine.lan. A", NX, &[]),
        ("_dns.resolver.arpa. A", OK, &[]),
        ("last.lan. A", OK, &["last.lan. 9 A 192.168.1.69"]),
        ("six. AAAA", OK, &["six. 9 AAAA fd00::10"]),
        ("laptop.lan. AAAA", OK, &["laptop.lan. 9 AAAA fd00:1::a3"]),
        ("laptop. A", OK, &[]),
        ("90.1.168.192.in-addr.arpa. PTR", NX, &[]),
        (
            "69.1.168.192.in-addr.arpa. PTR",
            OK,
            &["69.1.168.192.in-addr.arpa. 9 PTR last.lan."],
        ),
    ];
    check_all(&ways, cases)?;
    ensure!(
        !scene.daemon.log().contains('\u{1b}'),
        "an escape sequence is in the log"
    );
    ways.check_tiers()
}

/// A known name is answered locally for all types, in both forms.
#[test]
fn every_type_of_a_known_name_is_answered_here() -> Result<()> {
    let folder = Directory::new()?;
    let setup = house(&folder)?;
    fs::write(
        folder.path().join("other.leases"),
        "0 m 192.168.1.69 phone *\n",
    )?;
    let scene = scene!(setup);
    let ways = Ways::open(&scene)?;
    for name in ["router", "nas", "phone"] {
        for kind in [
            "AAAA", "HTTPS", "SVCB", "TXT", "MX", "SRV", "PTR", "NS", "SOA", "DS", "DNSKEY",
        ] {
            for form in [format!("{name}."), format!("{name}.lan.")] {
                let answer = ask_all(&ways, &format!("{form} {kind}"))?;
                ensure!(
                    answer.response_code() == OK && answer.answers().is_empty(),
                    "{answer}"
                );
                ensure!(answer.name_servers().len() == 1, "{answer}");
            }
        }
        let any = ask_all(&ways, &format!("{name}. ANY"))?;
        ensure!(
            any.response_code() == OK && any.answers().len() == 1,
            "{any}"
        );
    }
    for kind in ["A", "AAAA", "HTTPS", "TXT"] {
        let answer = ask_all(&ways, &format!("nobody. {kind}"))?;
        ensure!(answer.response_code() == NX, "{answer}");
    }
    ensure!(
        scene.upstream.asked_all().is_empty(),
        "something was asked outside"
    );
    ways.check_tiers()
}

/// RDATA is as written, whatever the letter case of the question.
#[test]
fn names_of_instances_keep_their_letter_case() -> Result<()> {
    let folder = Directory::new()?;
    let scene = scene!(house(&folder)?);
    let ways = Ways::open(&scene)?;
    for owner in ["_ipp._tcp.lan.", "_IPP._TCP.LAN.", "_iPp._TcP.lAn."] {
        let answer = ask_all(&ways, &format!("{owner} PTR"))?;
        let [record] = answer.answers() else {
            anyhow::bail!("{answer}");
        };
        ensure!(
            record.data().to_string() == "My\\040Printer\\.2._ipp._TCP.lan.",
            "{answer}"
        );
        ensure!(record.name().to_ascii() == owner, "{answer}");
    }
    Ok(())
}

/// However often leases change, and once more when its own file does.
#[test]
fn a_bad_line_of_a_hosts_file_is_said_once_per_change_of_that_file() -> Result<()> {
    let folder = Directory::new()?;
    let scene = scene!(house(&folder)?);
    let ways = Ways::open(&scene)?;
    let is_known = |name: &str| {
        wait_for_answer(&ways, &format!("{name}.lan. A"), |answer| {
            answer.answers().len() == 1
        })
    };
    let said = || scene.daemon.log().matches("`bob's` has characters").count();
    let mut leases = String::new();
    for number in 1..=5 {
        leases += &format!("0 02:00:00:00:00:0{number} 192.168.1.7{number} phone{number} *\n");
        fs::write(folder.path().join("other.leases"), &leases)?;
        is_known(&format!("phone{number}"))?;
    }
    ensure!(said() == 1, "{}", scene.daemon.log());
    let hosts = "192.168.1.5 nas\n192.168.1.6 bob's tv\n192.168.1.9 other\n";
    fs::write(folder.path().join("hosts"), hosts)?;
    is_known("other")?;
    scene
        .daemon
        .wait_log_count("hosts:2: `bob's` has characters", 2)?;
    ensure!(said() == 2, "{}", scene.daemon.log());
    Ok(())
}
