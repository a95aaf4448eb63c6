//! RX queues with an AF_XDP socket: queries received over it, the socket's counters, and where its chunks are.

use super::Reading;
use super::exposition::Exposition;
use crate::worker::{QueueName, SocketReading, SocketStats};

/// An RX queue that has a socket, or had one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueReading {
    pub name: QueueName,
    /// Counts in the order of [`SocketStats::COUNTED`].
    pub counts: [u64; SocketStats::COUNTED.len()],
    pub socket: Option<SocketReading>,
}

impl QueueReading {
    pub fn of(stats: &SocketStats) -> Option<Self> {
        let count = |counter| stats.get(counter).unwrap_or(0);
        Some(Self {
            name: stats.queue()?,
            counts: SocketStats::COUNTED.map(count),
            socket: stats.reading(),
        })
    }
}

impl Reading {
    /// AF_XDP sockets, each with its interface and RX queue.
    fn sockets(&self) -> impl Iterator<Item = (&QueueName, &SocketReading)> {
        let queues = self.queues.iter();
        queues.filter_map(|queue| Some((&queue.name, queue.socket.as_ref()?)))
    }

    pub(super) fn socket_families(&self, out: &mut dyn Exposition) {
        let counters = |socket: &SocketReading| {
            let (kernel, own) = (socket.statistics.named(), socket.counters.named());
            kernel.into_iter().chain(own).collect::<Vec<_>>()
        };
        let names = counters(&SocketReading::default());
        for (index, (field, help, _)) in names.into_iter().enumerate() {
            let name = format!("xsk_{field}_total");
            out.family(&name, help, "counter");
            for (of, socket) in self.sockets() {
                let queue = of.queue.to_string();
                let labels = [("interface", of.interface.as_str()), ("queue", &queue)];
                out.sample(&name, &labels, counters(socket)[index].2);
            }
        }
        let name = "xsk_zero_copy";
        let help = "1 if the driver receives into the UMEM, 0 if the kernel copies";
        out.family(name, help, "gauge");
        for (of, socket) in self.sockets() {
            let queue = of.queue.to_string();
            let labels = [("interface", of.interface.as_str()), ("queue", &queue)];
            out.sample(name, &labels, socket.has_zero_copy.into());
        }
        let name = "xsk_chunks";
        out.family(name, "Chunks of the UMEM, by where they are", "gauge");
        for (of, socket) in self.sockets() {
            let queue = of.queue.to_string();
            for (place, _, chunks) in socket.census.named() {
                let labels = [
                    ("interface", of.interface.as_str()),
                    ("queue", &queue),
                    ("place", place),
                ];
                out.sample(name, &labels, chunks.into());
            }
        }
    }
}
