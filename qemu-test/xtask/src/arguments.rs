//! Parsers and tests common to the arguments of several commands.

use std::ops::RangeInclusive;

use clap::builder::RangedI64ValueParser;
use clap::value_parser;

/// At least 1.
pub const SOME: RangeInclusive<u32> = 1..=u32::MAX;

/// A number in `range`. The error for any other names the option, the number and the range.
pub fn number_in(range: RangeInclusive<u32>) -> RangedI64ValueParser<u32> {
    let (first, last) = range.into_inner();
    value_parser!(u32).range(i64::from(first)..=i64::from(last))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use clap::error::ErrorKind;
    use clap::{CommandFactory, Parser};

    use crate::{CommandLine, workspace};

    /// Error for a command line without a subcommand.
    const MISSING: ErrorKind = ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
    /// Pages with command lines to type.
    const PAGES: [&str; 7] = [
        "README.md",
        "ARCHITECTURE.md",
        "appliance/tests/README.md",
        "buildroot/README.md",
        "qemu-test/README.md",
        "qemu-test/BENCH.md",
        "qemu-test/paper/README.md",
    ];

    /// Splits words like a shell, with double quotes.
    fn words(line: &str) -> Vec<String> {
        let mut words = Vec::new();
        for (number, part) in line.split('"').enumerate() {
            if number % 2 == 1 {
                words.push(part.to_owned());
            } else {
                words.extend(part.split_whitespace().map(str::to_owned));
            }
        }
        words
    }

    fn parse(line: &str) -> Result<CommandLine, clap::Error> {
        CommandLine::try_parse_from(words(&format!("xtask {line}")))
    }

    #[test]
    fn the_definition_holds_together() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn every_verb_and_option_is_taken() {
        for line in [
            "",
            "setup",
            "setup lab afxdp ebpf scripts image image-aarch64 peers paper package",
            "lab up --queues 4 --mtu 9216 --offload on --vlan in-frame --prefix a",
            "lab up --vlan beside --offload off",
            "lab up --ports 4 --filter --bond --guest",
            "lab down --prefix a",
            "lab status",
            "lab flood syn",
            "lab flood names --prefix a --seconds 600 --count 1000000 --family 6 --from fd00:: --port 5353 --qname a.test",
            "lab exec client ip address",
            "lab exec --prefix a router sh -c ls --prefix b",
            "lab exec upstream -- true",
            "image",
            "image --arch aarch64 --kernel newest --server xdnsd",
            "image --kernel 6.1 --disk --report",
            "image --report --image output/images",
            "ebpf",
            "ebpf --check",
            "test",
            "test blackbox --quick",
            "test --long image",
            "test --way udp",
            "test --way tcp --way connected caching",
            "test --way all",
            "test --mutations",
            "test --mutations U1 U2",
            "test --image output/images --long --accel kvm --jobs 2 power",
            "bench xsk --only ad --rounds 9 --seconds 1 --save",
            "bench miss --rate 10 --rounds 7 --seconds 1 --save",
            "bench lists --rounds 1",
            "bench paper --names 400 --rate 1000 --distance 20 --save",
            "bench tier0 --only adf --rounds 3 --seconds 1 --save",
            "bench shield --rounds 1 --seconds 2 --save",
            "bench bridge --rounds 3 --seconds 1 --ours xdnsd --save",
            "bench tap --ours xdnsd --without other/xdnsd --rounds 3 --save",
            "bench against --seconds 2 other/xdnsd --save",
            "fuzz",
            "fuzz frame answer-stream --minutes 5 --seed 2",
            "fuzz --libfuzzer --minutes 60",
            "soak",
            "soak --minutes 15 --seed 2 --save --server xdnsd",
            "tidy",
            "measure",
            "measure --list ../other ../another",
            "run",
            "run --once --image DIR --memory 64 --queues 8 --cpus 8 --accel tcg --upstream host",
            "run --kernel 6.12 --arch x86_64 --server xdnsd --upstream own",
            "run --lab",
            "run --once --lab --queues 64 --mtu 1280 --offload on --prefix a --server xdnsd",
            "boot",
            "boot update --long --image DIR --accel kvm --jobs 64 --server xdnsd",
            "dist",
            "dist --check",
            "package",
            "package --check",
            "package --install",
        ] {
            parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_what_is_right() {
        for (line, wanted) in [
            ("tpyo", &["tpyo"] as &[&str]),
            (
                "setup kitchen",
                &[
                    "kitchen",
                    "lab, afxdp, ebpf, scripts, image, image-aarch64, peers, paper",
                ],
            ),
            ("lab", &["up", "down", "status", "flood", "exec"]),
            ("lab flood", &["KIND"]),
            (
                "lab flood all",
                &["all", "syn, ack, rst, query, names, response, garbage"],
            ),
            (
                "lab flood syn --seconds 601",
                &["--seconds", "601 is not in 1..=600"],
            ),
            ("lab flood syn --family 5", &["--family", "5", "4, 6"]),
            ("lab flood syn --from here", &["--from", "here"]),
            ("lab up --queues 0", &["--queues", "0 is not in 1..=64"]),
            (
                "lab up --mtu 1279",
                &["--mtu", "1279 is not in 1280..=9216"],
            ),
            ("lab up --mtu big", &["--mtu", "big"]),
            ("lab up --mtu", &["--mtu", "value is required"]),
            ("lab up --offload maybe", &["--offload", "maybe", "on, off"]),
            (
                "lab up --vlan there",
                &["--vlan", "there", "in-frame, beside"],
            ),
            (
                "lab exec kitchen true",
                &["kitchen", "client, router, upstream"],
            ),
            ("lab exec client", &["COMMAND"]),
            (
                "image --arch sparc",
                &["--arch", "sparc", "x86_64, aarch64"],
            ),
            (
                "image --kernel 5.4",
                &["--kernel", "5.4", "6.1, 6.12, newest"],
            ),
            ("image --image DIR", &["--report"]),
            ("run --accel warp", &["--accel", "warp", "kvm, tcg"]),
            ("run --upstream his", &["--upstream", "his", "own, host"]),
            ("run --memory 63", &["--memory", "63 is not in 64..=65536"]),
            ("run --cpus 9", &["--cpus", "9 is not in 1..=8"]),
            ("run --cpus -1", &["-1"]),
            (
                "run --cpus 4294967297",
                &["--cpus", "4294967297 is not in 1..=8"],
            ),
            ("run --queues 65", &["--queues", "65 is not in 1..=64"]),
            ("run --image DIR --kernel 6.1", &["--image", "--kernel"]),
            ("run --image DIR --server FILE", &["--image", "--server"]),
            ("run --mtu 1400", &["--lab"]),
            ("run --lab --cpus 2", &["--lab", "--cpus"]),
            ("run twice", &["twice"]),
            ("test --quick --long", &["--quick", "--long"]),
            ("test one two", &["two"]),
            ("test one --mutations", &["--mutations", "FILTER"]),
            (
                "test --way ucp",
                &["--way", "ucp", "xdp, udp, tcp, connected, hot, keeper, all"],
            ),
            ("test --way udp --long", &["--way", "--long"]),
            ("test --mutations --quick", &["--mutations", "--quick"]),
            ("boot --jobs 65", &["--jobs", "65 is not in 1..=64"]),
            (
                "bench",
                &["xsk", "miss", "lists", "against", "tier0", "shield"],
            ),
            ("bench speed", &["speed"]),
            ("bench miss --rate 0", &["--rate", "0 is not in 1..="]),
            ("bench xsk --rounds 0", &["--rounds", "0 is not in 1..="]),
            (
                "bench lists --seconds 0",
                &["--seconds", "0 is not in 1..="],
            ),
            ("bench against", &["PROGRAM"]),
            ("bench tier0 --rounds 0", &["--rounds", "0 is not in 1..="]),
            ("bench shield --udp 0", &["--udp", "0 is not in 1..="]),
            ("dist --chekc", &["--chekc", "--check"]),
            ("soak --minutes 0", &["--minutes", "0 is not in 1..="]),
            ("tidy up", &["up"]),
        ] {
            let Err(error) = parse(line) else {
                panic!("{line} is taken");
            };
            let said = error.to_string();
            for wanted in wanted {
                assert!(said.contains(wanted), "{line}: no {wanted:?} in\n{said}");
            }
        }
    }

    #[test]
    fn what_the_pages_say_to_type_is_taken() {
        let mut count = 0;
        for page in PAGES {
            let text = fs::read_to_string(workspace::root().join(page)).expect("a page");
            // Text between backticks, within a line or across its end.
            for piece in text.split('`') {
                if let Some(line) = piece.trim().strip_prefix("cargo xtask ") {
                    count += 1;
                    // Help is reported as an error; a name alone may stand for a family of commands.
                    let is_taken = match parse(line) {
                        Ok(_) => true,
                        Err(error) if error.kind() == MISSING => !line.contains(' '),
                        Err(error) => error.kind() == ErrorKind::DisplayHelp,
                    };
                    assert!(is_taken, "{page}: cargo xtask {line}");
                }
            }
        }
        assert!(count > 20, "{count} lines are found");
    }
}
