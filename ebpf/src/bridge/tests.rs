use super::*;
use std::cell::{Cell, RefCell};
use xdnsd_abi::bridge::{ELEMENT_WORDS, Element};

const INTERVAL: u32 = 75_000;

/// A port of a bridge, and the table of all of them.
struct Port {
    table: RefCell<Vec<Element>>,
    now: Cell<u32>,
    bridge: Cell<u32>,
    ingress: Cell<u32>,
    vlan: Cell<Option<u16>>,
}

impl Port {
    fn new() -> Self {
        Self {
            table: vec![[0; ELEMENT_WORDS]; ELEMENTS as usize].into(),
            now: 1_000.into(),
            bridge: 7.into(),
            ingress: 8.into(),
            vlan: Some(0).into(),
        }
    }

    fn asks(&self, station: Mac, at: u32) -> bool {
        self.now.set(at);
        has_heard(station, self)
    }
}

impl Stations for Port {
    type Element = usize;
    fn element(&self, index: u32) -> Option<usize> {
        assert!(index < ELEMENTS);
        Some(index as usize)
    }
    fn word(&self, element: usize, at: usize) -> u64 {
        self.table.borrow()[element][at]
    }
    fn set_word(&self, element: usize, at: usize, word: u64) {
        self.table.borrow_mut()[element][at] = word;
    }
    fn now_ms(&self) -> u32 {
        self.now.get()
    }
    fn interval_ms(&self) -> u32 {
        INTERVAL
    }
    fn bridge(&self) -> u32 {
        self.bridge.get()
    }
    fn ingress(&self) -> u32 {
        self.ingress.get()
    }
    fn vlan(&self) -> Option<u16> {
        self.vlan.get()
    }
}

fn station(number: u16) -> Mac {
    let [a, b] = number.to_be_bytes();
    Mac::of([2, 0, 0, 1, a, b])
}

#[test]
fn a_station_passes_first_and_then_once_in_the_interval() {
    let port = Port::new();
    let mut passed = Vec::new();
    // Around the wrap of the 32-bit clock.
    let start = u32::MAX - INTERVAL;
    for second in 0..300 {
        let at = start.wrapping_add(second * 1_000);
        if !port.asks(station(1), at) {
            passed.push(second);
        }
    }
    assert_eq!(passed, [0, 75, 150, 225]);
}

#[test]
fn a_station_that_has_moved_passes_at_once_and_when_it_comes_back_too() {
    let port = Port::new();
    assert!(!port.asks(station(1), 1_000));
    assert!(port.asks(station(1), 1_001));
    port.ingress.set(9);
    assert!(!port.asks(station(1), 1_002), "elsewhere");
    assert!(port.asks(station(1), 1_003));
    port.ingress.set(8);
    assert!(!port.asks(station(1), 1_004), "back again");
    assert!(port.asks(station(1), 1_005));
}

/// A host may be in two networks of one table, and is the same station in both.
#[test]
fn a_station_of_another_bridge_is_another_one() {
    let port = Port::new();
    assert!(!port.asks(station(1), 1_000));
    port.bridge.set(5);
    port.ingress.set(6);
    assert!(!port.asks(station(1), 1_000));
    for _ in 0..3 {
        assert!(port.asks(station(1), 1_001));
        port.bridge.set(7);
        port.ingress.set(8);
        assert!(port.asks(station(1), 1_001));
        port.bridge.set(5);
        port.ingress.set(6);
    }
}

/// The FDB has an entry for each VLAN, and each ages.
#[test]
fn a_station_in_another_vlan_is_another_one_and_one_of_another_kind_of_tag_is_the_bridges() {
    let port = Port::new();
    for vlan in [1, 10, 4094] {
        port.vlan.set(Some(vlan));
        assert!(!port.asks(station(1), 1_000), "{vlan}");
    }
    for vlan in [1, 10, 4094] {
        port.vlan.set(Some(vlan));
        assert!(port.asks(station(1), 1_001), "{vlan}");
    }
    port.vlan.set(None);
    assert!(!port.asks(station(1), 1_002));
    assert!(!port.asks(station(1), 1_003));
}

/// An untagged port of VLAN 10, and one that has it with a tag.
#[test]
fn a_station_that_moves_to_a_port_with_a_tag_has_moved() {
    let port = Port::new();
    port.vlan.set(Some(10));
    for ingress in [8, 9, 8] {
        port.ingress.set(ingress);
        assert!(!port.asks(station(1), 1_000), "{ingress}");
        assert!(port.asks(station(1), 1_001), "{ingress}");
    }
}

/// Bridge 23 and VLAN 1 have the number of bridge 7 without one.
#[test]
fn two_networks_of_one_number_displace_each_other_and_are_two() {
    let port = Port::new();
    for (bridge, vlan, ingress) in [(7, 0, 8), (23, 1, 9), (7, 0, 8)] {
        port.bridge.set(bridge);
        port.vlan.set(Some(vlan));
        port.ingress.set(ingress);
        assert!(!port.asks(station(1), 1_000), "{bridge}");
        assert!(port.asks(station(1), 1_001), "{bridge}");
    }
}

#[test]
fn a_full_element_forgets_who_was_seen_longest_ago() {
    let port = Port::new();
    let same = |number: &u16| element_of(station(*number)) == element_of(station(1));
    let stations: Vec<Mac> = (1..).filter(same).take(WAYS + 1).map(station).collect();
    for (second, station) in (1..).zip(&stations) {
        assert!(!port.asks(*station, second * 1_000), "{second}");
    }
    let known: Vec<bool> = stations
        .iter()
        .skip(1)
        .map(|one| port.asks(*one, 9_000))
        .collect();
    assert_eq!(known, [true; WAYS]);
    assert!(!port.asks(stations[0], 9_000), "forgotten");
}

#[test]
fn stations_of_one_maker_spread_over_the_table_and_a_group_sends_nothing() {
    let port = Port::new();
    let count = ELEMENTS as u16;
    let mut elements: Vec<u32> = (0..count)
        .map(|number| element_of(station(number)))
        .collect();
    elements.sort_unstable();
    elements.dedup();
    assert!(
        elements.len() > usize::from(count) / 2,
        "{}",
        elements.len()
    );
    for _ in 0..2 {
        assert!(!port.asks(Mac::of([1, 0, 0x5e, 0, 0, 1]), 1_000));
    }
    assert!(
        port.table
            .borrow()
            .iter()
            .all(|element| *element == [0; ELEMENT_WORDS])
    );
}
