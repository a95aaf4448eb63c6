//! Where callers' frames and answers were lost: counters of the kernel and the appliance during a flood.
//!
//! ```text
//!  callers ─► ring of lan0 ─► XDP ─┬─ XDP_TX ────────────────────► ring of eth0 ─► stack ─► sockets
//!              to_router           ├─ AF_XDP ring ─► worker ─┐     answers,            └─ buffers
//!                                  │    sockets              ├──►  from_router
//!                                  └─ backlog ─► stack ──────┘
//! ```

use std::process::Command;

use anyhow::{Context, Result};
use xdnsd_lab::lab::{HOST_INTERFACE, LAN, Lab};
use xdnsd_lab::netns::Namespace;

/// Counters, in the order of a query's path.
const NAMES: [&str; 7] = [
    "callers' frames without room on the link",
    "AF_XDP without room",
    "AF_XDP without chunks",
    "the stack's backlog full",
    "XDP's answers without room on the link",
    "other answers without room on the link",
    "callers' sockets full",
];

/// Readings of the counters, or differences between two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses([u64; NAMES.len()]);

impl Losses {
    /// Reads the counters. `program` asks the appliance for its own; `None` without sockets of this kind.
    pub fn read(lab: &Lab, program: Option<Command>) -> Result<Self> {
        let (client, router) = ((&lab.client, HOST_INTERFACE), (&lab.router, LAN));
        let answers = driver(router, "_xdp_tx_errors")?;
        let sockets = program.map_or_else(|| Ok(String::new()), stats)?;
        Ok(Self([
            // The device's counter includes frames sent in bulk.
            dropped(client)?.saturating_sub(driver(client, "_xdp_xmit_errors")?),
            metric(&sockets, "xdnsd_xsk_rx_ring_full_total")
                + metric(&sockets, "xdnsd_xsk_rx_dropped_total"),
            metric(&sockets, "xdnsd_xsk_rx_fill_ring_empty_descs_total"),
            backlog(&lab.router.read("/proc/net/softnet_stat")?),
            answers,
            dropped(router)?.saturating_sub(answers),
            lab.client.snmp("Udp", "RcvbufErrors")?,
        ]))
    }

    /// Differences since the earlier reading.
    pub fn since(self, earlier: Self) -> Self {
        let apart = |at: usize| self.0[at].saturating_sub(earlier.0[at]);
        Self(std::array::from_fn(apart))
    }

    /// Counters other than 0, in words.
    pub fn in_words(self) -> String {
        let named = NAMES.into_iter().zip(self.0);
        let there = named.filter(|(_, count)| *count != 0);
        let words: Vec<_> = there
            .map(|(name, count)| format!("{count} {name}"))
            .collect();
        match words.is_empty() {
            true => "nothing".to_owned(),
            false => words.join(", "),
        }
    }
}

impl std::ops::AddAssign for Losses {
    fn add_assign(&mut self, other: Self) {
        for (count, more) in self.0.iter_mut().zip(other.0) {
            *count += more;
        }
    }
}

fn stats(mut program: Command) -> Result<String> {
    let output = program
        .output()
        .context("ask the appliance for its counters")?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Sum of a metric over all its labels.
fn metric(text: &str, name: &str) -> u64 {
    let values = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        if !rest.starts_with(['{', ' ']) {
            return None;
        }
        rest.rsplit(' ').next()?.parse::<u64>().ok()
    });
    values.sum()
}

/// Sum of a driver's counters, over all queues.
fn driver((host, interface): (&Namespace, &str), suffix: &str) -> Result<u64> {
    Ok(counters(
        &host.output(&["ethtool", "-S", interface])?,
        suffix,
    ))
}

fn counters(text: &str, suffix: &str) -> u64 {
    let values = text.lines().filter_map(|line| {
        let (name, value) = line.trim().split_once(':')?;
        let value = name
            .ends_with(suffix)
            .then(|| value.trim().parse::<u64>())?;
        value.ok()
    });
    values.sum()
}

fn dropped((host, interface): (&Namespace, &str)) -> Result<u64> {
    let path = format!("/sys/class/net/{interface}/statistics/tx_dropped");
    let text = host.read(&path)?;
    let count = text.trim().parse();
    count.with_context(|| format!("{path} is a number"))
}

/// Packets without room in a core's backlog: the second number of each line, in hexadecimal.
fn backlog(text: &str) -> u64 {
    let values = text.lines().filter_map(|line| {
        let word = line.split_whitespace().nth(1)?;
        u64::from_str_radix(word, 16).ok()
    });
    values.sum()
}

#[cfg(test)]
mod tests {
    use super::{Losses, NAMES, backlog, counters, metric};

    #[test]
    fn counters_add_up_over_queues_cores_and_labels() {
        let text = "NIC statistics:\n     rx_queue_0_xdp_tx_errors: 3\n     rx_queue_0_xdp_tx: 99\n     rx_queue_1_xdp_tx_errors: 4\n";
        assert_eq!(counters(text, "_xdp_tx_errors"), 7);
        let text = "# TYPE a_total counter\na_total{queue=\"0\"} 5\na_total{queue=\"1\"} 6\na_total_more 9\nb 1\n";
        assert_eq!(metric(text, "a_total"), 11);
        assert_eq!(backlog("0001 0000000a 0000\n0002 00000010 0000\n"), 26);
    }

    #[test]
    fn losses_are_what_came_between_two_readings() {
        let (mut first, mut second) = ([7; NAMES.len()], [7; NAMES.len()]);
        (first[0], second[0], second[6]) = (1, 3, 12);
        let mut losses = Losses(second).since(Losses(first));
        losses += losses;
        let words = losses.in_words();
        assert_eq!(
            words,
            "4 callers' frames without room on the link, 10 callers' sockets full"
        );
        assert_eq!(Losses::default().in_words(), "nothing");
    }
}
