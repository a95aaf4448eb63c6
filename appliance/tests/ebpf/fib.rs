//! The route check: the reply has to leave by the device and to the neighbour that the query came from.

use crate::bench::{Bench, listen};
use crate::frames::{CLIENT_MAC, Query};
use xdnsd_abi::Reason;
use xdnsd_lab::netns::Namespace;

const CLIENT: &str = "02:00:00:00:00:02";
const _: () = assert!(CLIENT_MAC[5] == 2);

/// A router's interface `lan`, and what stands for its VLAN 5 and VLAN 6 in VLAN 5. To the FIB a VLAN's device is a
/// device like any other; so these are veth pairs too, which every kernel has. The client is a neighbour on each.
///
/// ```text
///  lan  192.0.2.53/24     2001:db8::53/64      lan-peer    (up, so that there is carrier)
///  five 198.51.100.53/24  2001:db8:5::53/64    five-peer
///  six  203.0.113.53/24                        six-peer
/// ```
fn router(bench: &Bench) {
    let pairs = ["lan", "five", "six"].map(|name| {
        format!(
            "link add name {name} type veth peer name {name}-peer\nlink set {name} up\nlink set {name}-peer up\n"
        )
    });
    let addresses = format!(
        "addr add 192.0.2.53/24 dev lan
addr add 2001:db8::53/64 dev lan nodad
addr add 198.51.100.53/24 dev five
addr add 2001:db8:5::53/64 dev five nodad
addr add 203.0.113.53/24 dev six
neigh add 192.0.2.1 lladdr {CLIENT} dev lan nud permanent
neigh add 2001:db8::1 lladdr {CLIENT} dev lan nud permanent
neigh add 198.51.100.1 lladdr {CLIENT} dev five nud permanent
neigh add 2001:db8:5::1 lladdr {CLIENT} dev five nud permanent
neigh add 203.0.113.1 lladdr {CLIENT} dev six nud permanent"
    );
    let script = format!("link set lo up\n{}{addresses}", pairs.concat());
    bench.namespace.ip(&script).expect("a router");
    forward(&bench.namespace, "1");
}

fn forward(namespace: &Namespace, value: &str) {
    for path in [
        "/proc/sys/net/ipv4/ip_forward",
        "/proc/sys/net/ipv6/conf/all/forwarding",
    ] {
        namespace
            .write(path, value)
            .expect("a setting of the namespace");
    }
}

fn index(bench: &Bench, name: &str) -> u32 {
    bench
        .namespace
        .run(|| nix::net::if_::if_nametoindex(name))
        .expect("it is there")
}

/// Listens on the interface itself and asks the FIB.
fn untagged(bench: &mut Bench) {
    let lan = index(bench, "lan");
    bench.listen(&[
        (listen("192.0.2.53", 0, 0), lan),
        (listen("2001:db8::53", 0, 0), lan),
    ]);
}

#[test]
fn a_reply_that_leaves_as_the_query_came_is_ours() {
    let Some(mut bench) = Bench::new("a_reply_that_leaves_as_the_query_came_is_ours") else {
        return;
    };
    router(&bench);
    untagged(&mut bench);
    for query in [Query::v4(), Query::v6()] {
        bench.expect(&query.frame(), Reason::Redirected);
        let mut another_mac = query.frame();
        for at in 6..12 {
            another_mac[at] ^= 0x40;
            bench.expect(&another_mac, Reason::PassRoute);
            another_mac[at] ^= 0x40;
        }
    }
}

#[test]
fn a_tagged_query_needs_the_device_of_its_vlan() {
    let Some(mut bench) = Bench::new("a_tagged_query_needs_the_device_of_its_vlan") else {
        return;
    };
    router(&bench);
    let (lan, five, six) = (
        index(&bench, "lan"),
        index(&bench, "five"),
        index(&bench, "six"),
    );
    for (query, outer, inner, right) in [
        (
            Query::between("198.51.100.1", "198.51.100.53").tagged(&[[0x8100, 5]]),
            5,
            0,
            five,
        ),
        (
            Query::between("2001:db8:5::1", "2001:db8:5::53").tagged(&[[0x8100, 5]]),
            5,
            0,
            five,
        ),
        (
            Query::between("203.0.113.1", "203.0.113.53").tagged(&[[0x8100, 5], [0x8100, 6]]),
            5,
            6,
            six,
        ),
    ] {
        let key = listen(&query.destination.to_string(), outer, inner);
        for egress in [lan, five, six] {
            bench.listen(&[(key, egress)]);
            let reason = if egress == right {
                Reason::Redirected
            } else {
                Reason::PassRoute
            };
            bench.expect(&query.frame(), reason);
        }
    }
}

/// The trap: a query of VLAN 5 with its tag moved out of the frame, so that it looks untagged.
#[test]
fn a_query_whose_tag_was_hidden_passes() {
    let Some(mut bench) = Bench::new("a_query_whose_tag_was_hidden_passes") else {
        return;
    };
    router(&bench);
    let lan = index(&bench, "lan");
    let hidden = Query::between("198.51.100.1", "192.0.2.53").frame();
    bench.listen(&[(listen("192.0.2.53", 0, 0), lan)]);
    bench.expect(&hidden, Reason::PassRoute);
    // Without the check it would be redirected.
    bench.listen(&[(listen("192.0.2.53", 0, 0), 0)]);
    bench.expect(&hidden, Reason::Redirected);
}

#[test]
fn a_machine_that_does_not_forward_has_no_answer_of_the_fib() {
    let Some(mut bench) = Bench::new("a_machine_that_does_not_forward_has_no_answer_of_the_fib")
    else {
        return;
    };
    router(&bench);
    untagged(&mut bench);
    for (value, reason) in [("0", Reason::PassRoute), ("1", Reason::Redirected)] {
        forward(&bench.namespace, value);
        for query in [Query::v4(), Query::v6()] {
            bench.expect(&query.frame(), reason);
        }
    }
}

#[test]
fn a_client_that_is_no_neighbour_or_not_reachable_passes() {
    let Some(mut bench) = Bench::new("a_client_that_is_no_neighbour_or_not_reachable_passes")
    else {
        return;
    };
    router(&bench);
    untagged(&mut bench);
    let ask = |bench: &mut Bench, reason| {
        bench.expect(&Query::v4().frame(), reason);
        bench.expect(&Query::v6().frame(), reason);
    };
    ask(&mut bench, Reason::Redirected);
    let script = "neigh del 192.0.2.1 dev lan\nneigh del 2001:db8::1 dev lan";
    bench.namespace.ip(script).expect("the neighbours go");
    ask(&mut bench, Reason::PassRoute);
    for source in ["203.0.114.1", "2001:db8:77::1"] {
        let ours = if source.contains(':') {
            "2001:db8::53"
        } else {
            "192.0.2.53"
        };
        bench.expect(&Query::between(source, ours).frame(), Reason::PassRoute);
    }
}

/// The client is behind another router, and the query has that router's MAC address.
#[test]
fn a_client_behind_a_gateway_is_answered_through_it() {
    let Some(mut bench) = Bench::new("a_client_behind_a_gateway_is_answered_through_it") else {
        return;
    };
    router(&bench);
    untagged(&mut bench);
    let routes = "route add 203.0.114.0/24 via 192.0.2.1 dev lan\nroute add 2001:db8:77::/64 via 2001:db8::1 dev lan";
    bench.namespace.ip(routes).expect("two routes");
    bench.expect(
        &Query::between("203.0.114.1", "192.0.2.53").frame(),
        Reason::Redirected,
    );
    bench.expect(
        &Query::between("2001:db8:77::1", "2001:db8::53").frame(),
        Reason::Redirected,
    );
}
