//! Ingress device of each query that a kernel socket receives, and counters per device. An address of ours is answered whatever
//! device its packet arrives on (RFC 1122 section 3.3.4.2, the weak model), so a socket on the LAN's address hears the WAN, too.
//!
//! ```text
//!  UDP  IP_PKTINFO, IPV6_PKTINFO (os::datagrams::receive)  a bridge, not its port; a VLAN device, not the one below
//!  TCP  the same of the handshake (os::socket::arrival_of)
//! ```
//! A query of this machine arrives on the loopback device, but the kernel reports the device that has the queried address
//! (`rt_iif`, `ip6_dst_idev`). Such a query is recognized by its source, which is an address of ours.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use nix::net::if_::if_nameindex;
use xdnsd_core::counters::Counter;
use xdnsd_core::policy::on_link::LOOPBACK;

/// Devices counted separately. Full: further ones are counted as `other` until one of these is gone.
const DEVICES_MAX: usize = 32;

/// Counters kept per device, in this order.
const COUNTED: [Counter; 4] = [
    Counter::QueriesUdp,
    Counter::AnswersUdp,
    Counter::QueriesTcp,
    Counter::AnswersTcp,
];

/// Counts of one device, in the order of [`COUNTED`].
#[derive(Debug)]
struct Tally([AtomicU64; COUNTED.len()]);

impl Tally {
    const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; COUNTED.len()])
    }

    fn read(&self) -> [u64; COUNTED.len()] {
        std::array::from_fn(|index| self.0[index].load(Relaxed))
    }
}

/// Ingress of a query, as far as it is counted separately. Part of the reply path: an answer is counted where its query was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ingress {
    /// This machine itself.
    Own,
    /// A device without a place of its own, or one that the kernel does not report.
    #[default]
    Other,
    /// A device, by its place in [`Arrivals`].
    Device(u8),
}

/// Counts per ingress device, for the kernel's sockets of all workers.
#[derive(Debug)]
pub struct Arrivals {
    own: Tally,
    other: Tally,
    /// Interface indices; 0: a free place.
    devices: [AtomicU32; DEVICES_MAX],
    tallies: [Tally; DEVICES_MAX],
}

impl Arrivals {
    /// All counts zero.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            own: Tally::new(),
            other: Tally::new(),
            devices: [const { AtomicU32::new(0) }; DEVICES_MAX],
            tallies: [const { Tally::new() }; DEVICES_MAX],
        }
    }

    /// Ingress to count `device` under. A device that is seen for the first time takes a place, served or not.
    pub fn ingress(&self, device: u32, is_own: bool) -> Ingress {
        if is_own || device == LOOPBACK {
            return Ingress::Own;
        }
        if device == 0 {
            return Ingress::Other;
        }
        let of_device = |place: &AtomicU32| place.load(Relaxed) == device;
        // Another worker may take the free place first, for this device or for another.
        let take = |place: &AtomicU32| {
            let taken = place.compare_exchange(0, device, Relaxed, Relaxed);
            taken.is_ok() || taken == Err(device)
        };
        let found = self.devices.iter().position(of_device);
        let found = found.or_else(|| self.devices.iter().position(take));
        found.map_or(Ingress::Other, |index| Ingress::Device(index as u8))
    }

    /// Counts for `ingress`. Counters outside [`COUNTED`] are ignored.
    pub fn count(&self, ingress: Ingress, counter: Counter) {
        let tally = match ingress {
            Ingress::Own => Some(&self.own),
            Ingress::Other => Some(&self.other),
            Ingress::Device(index) => self.tallies.get(usize::from(index)),
        };
        let column = COUNTED.iter().position(|counted| *counted == counter);
        if let (Some(tally), Some(column)) = (tally, column) {
            tally.0[column].fetch_add(1, Relaxed);
        }
    }

    /// Frees the places of devices that are gone and adds their counts to `other`. One thread at a time may call this. A query
    /// that arrives on such a device meanwhile may be counted for the next device in its place.
    pub fn forget(&self, is_gone: impl Fn(u32) -> bool) {
        for (place, tally) in self.devices.iter().zip(&self.tallies) {
            let device = place.load(Relaxed);
            if device == 0 || !is_gone(device) {
                continue;
            }
            for (from, to) in tally.0.iter().zip(&self.other.0) {
                to.fetch_add(from.swap(0, Relaxed), Relaxed);
            }
            place.store(0, Relaxed);
        }
    }

    /// [`Self::forget`] for devices that no longer exist on this machine.
    pub fn forget_gone(&self) {
        if let Ok(devices) = if_nameindex() {
            self.forget(|index| devices.iter().all(|device| device.index() != index));
        }
    }

    /// Counts by device name: `lo` is this machine itself, `other` every device without a place.
    #[must_use]
    pub fn read(&self) -> Vec<(Counter, Vec<(String, u64)>)> {
        let mut all = vec![("lo".to_owned(), self.own.read())];
        let mut others = self.other.read();
        let devices = if_nameindex().ok();
        let name_of = |index| -> Option<String> {
            let mut devices = devices.iter().flat_map(|devices| devices.iter());
            let device = devices.find(|device| device.index() == index)?;
            Some(device.name().to_string_lossy().into_owned())
        };
        for (place, tally) in self.devices.iter().zip(&self.tallies) {
            let index = place.load(Relaxed);
            // A removed device has no name.
            match name_of(index).filter(|_| index != 0) {
                Some(name) => all.push((name, tally.read())),
                None => {
                    for (sum, more) in others.iter_mut().zip(tally.read()) {
                        *sum += more;
                    }
                }
            }
        }
        all.push(("other".to_owned(), others));
        let column = |(column, counter): (usize, &Counter)| {
            let of_device =
                |(name, tally): &(String, [u64; COUNTED.len()])| (name.clone(), tally[column]);
            (*counter, all.iter().map(of_device).collect())
        };
        COUNTED.iter().enumerate().map(column).collect()
    }
}

impl Default for Arrivals {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(arrivals: &Arrivals, counter: Counter) -> u64 {
        let all = arrivals.read();
        let of_counter = all.iter().filter(|(other, _)| *other == counter);
        let counts = of_counter.flat_map(|(_, by_name)| by_name);
        counts.map(|(_, count)| count).sum()
    }

    fn of(arrivals: &Arrivals, counter: Counter, name: &str) -> Option<u64> {
        let all = arrivals.read();
        let (_, by_name) = all.iter().find(|(other, _)| *other == counter)?;
        let found = by_name.iter().find(|(other, _)| other == name)?;
        Some(found.1)
    }

    #[test]
    fn what_this_machine_asks_itself_came_by_lo_whatever_device_the_kernel_names() {
        let arrivals = Arrivals::new();
        for (device, is_own, expected) in [
            (LOOPBACK, false, Ingress::Own),
            (LOOPBACK, true, Ingress::Own),
            (7, true, Ingress::Own),
            (0, true, Ingress::Own),
            (0, false, Ingress::Other),
            (7, false, Ingress::Device(0)),
            (9, false, Ingress::Device(1)),
            (7, false, Ingress::Device(0)),
        ] {
            assert_eq!(
                arrivals.ingress(device, is_own),
                expected,
                "{device} {is_own}"
            );
        }
        arrivals.count(Ingress::Own, Counter::QueriesTcp);
        assert_eq!(of(&arrivals, Counter::QueriesTcp, "lo"), Some(1));
        assert_eq!(of(&arrivals, Counter::AnswersTcp, "lo"), Some(0));
    }

    #[test]
    fn each_counter_is_counted_apart_and_those_of_workers_are_not() {
        let arrivals = Arrivals::new();
        for (times, counter) in COUNTED.into_iter().enumerate() {
            (0..=times).for_each(|_| arrivals.count(Ingress::Other, counter));
        }
        arrivals.count(Ingress::Other, Counter::CacheHits);
        for (times, counter) in COUNTED.into_iter().enumerate() {
            assert_eq!(sum(&arrivals, counter), times as u64 + 1, "{counter:?}");
        }
        assert_eq!(sum(&arrivals, Counter::CacheHits), 0);
    }

    /// More devices than places come and go: no query is lost, and no place.
    #[test]
    fn a_device_that_has_gone_leaves_its_place_and_its_queries_are_others() {
        const FIRST: u32 = 1_000_000;
        let arrivals = Arrivals::new();
        let more = 2 * DEVICES_MAX as u32;
        for device in FIRST..FIRST + more {
            let ingress = arrivals.ingress(device, false);
            arrivals.count(ingress, Counter::QueriesUdp);
            assert_eq!(
                ingress == Ingress::Other,
                device >= FIRST + DEVICES_MAX as u32
            );
        }
        assert_eq!(sum(&arrivals, Counter::QueriesUdp), u64::from(more));
        // Devices that do not exist have no name, and are `other`.
        assert_eq!(
            of(&arrivals, Counter::QueriesUdp, "other"),
            Some(more.into())
        );
        arrivals.forget(|device| device == FIRST + 3);
        assert_eq!(sum(&arrivals, Counter::QueriesUdp), u64::from(more));
        assert_eq!(arrivals.ingress(9, false), Ingress::Device(3));
        assert_eq!(arrivals.ingress(FIRST + 4, false), Ingress::Device(4));
        arrivals.forget_gone();
        assert_eq!(arrivals.ingress(8, false), Ingress::Device(0));
    }
}
