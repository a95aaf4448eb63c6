//! Environment of one subject: two namespaces, one veth pair of one queue.
//!
//! ```text
//!   client                              server
//!  ┌───────────────────┐               ┌───────────────┐
//!  │ far ──────────────┼──── veth ─────┼─ near         │
//!  │ 10.77.0.2         │               │ 10.77.0.1     │
//!  └───────────────────┘               └───────────────┘
//! ```
//! Load comes from 10.77.0.9, an address without a host: its MAC address differs from that of `far`, so the client's kernel
//! counts a reply and drops it at the first check ("other host"). That costs the sender's core as little as possible.

use std::fs::File;
use std::net::Ipv4Addr;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result};
use nix::net::if_::if_nametoindex;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use super::measure;
use super::query::Ends;
use xdnsd_lab::bpf::Program;
use xdnsd_lab::netns::Namespace;

/// The server's interface.
pub const NEAR: &str = "near";
/// The client's interface.
pub const FAR: &str = "far";
/// Addresses of the load.
pub const ENDS: Ends = Ends {
    client_mac: [0x02, 0, 0, 0, 0x77, 0x09],
    client: Ipv4Addr::new(10, 77, 0, 9),
    server_mac: [0x02, 0, 0, 0, 0x77, 0x01],
    server: Ipv4Addr::new(10, 77, 0, 1),
};
/// Bytes for the digits of a 64-bit counter and a line feed.
const COUNTER_LEN: usize = 32;

/// The two namespaces.
#[derive(Debug)]
pub struct Pair {
    /// Source of the load.
    pub client: Namespace,
    /// Runs the subject.
    pub server: Namespace,
    replies: File,
    sent: [File; 2],
    received: File,
}

impl Pair {
    /// Makes both namespaces and the link between them.
    pub fn new() -> Result<Self> {
        let (client, server) = (Namespace::unnamed()?, Namespace::unnamed()?);
        let queues = "numrxqueues 1 numtxqueues 1";
        let client_path = client.path();
        server.ip(&format!(
            "link add {NEAR} address {} {queues} type veth peer name {FAR} {queues} netns {client_path}\n\
             link set lo up\n\
             link set {NEAR} addrgenmode none up\n\
             address add {}/24 dev {NEAR}\n\
             neigh add {} lladdr {} nud permanent dev {NEAR}\n",
            mac(ENDS.server_mac),
            ENDS.server,
            ENDS.client,
            mac(ENDS.client_mac),
        ))?;
        client.ip(&format!(
            "link set {FAR} addrgenmode none up\naddress add 10.77.0.2/24 dev {FAR}\n"
        ))?;
        let counters = ["rx_packets", "tx_packets", "tx_dropped"];
        let [replies, sent, lost] = counters.map(|name| open_counter((&client, FAR), name));
        Ok(Self {
            received: open_counter((&server, NEAR), "rx_packets")?,
            replies: replies?,
            sent: [sent?, lost?],
            client,
            server,
        })
    }

    /// Frames that have reached the client.
    pub fn replies(&self) -> Result<u64> {
        read_counter(&self.replies)
    }

    /// Frames sent by the client, including those for which the pair had no room.
    pub fn sent(&self) -> Result<u64> {
        self.sent.iter().map(read_counter).sum()
    }

    /// Has a kernel thread on this core receive the server's frames, like a card's interrupts; `None` receives them where they
    /// are sent. Replies reach the client's driver on the core that sends them.
    pub fn thread_server(&self, core: Option<usize>) -> Result<()> {
        thread(&self.server, NEAR, core)
    }

    /// Frames that the program on the server's end has sent back.
    pub fn xdp_sent(&self) -> Result<u64> {
        let text = self.server.output(&["ethtool", "-S", NEAR])?;
        let value = text.lines().find_map(|line| {
            let value = line.trim().strip_prefix("rx_queue_0_xdp_tx:")?;
            value.trim().parse().ok()
        });
        value.with_context(|| format!("ethtool -S {NEAR} has no rx_queue_0_xdp_tx:\n{text}"))
    }

    /// Frames received on the server's end.
    pub fn received(&self) -> Result<u64> {
        read_counter(&self.received)
    }

    /// The program on the server's end.
    pub fn near_program(&self) -> Result<Program> {
        let text = self
            .server
            .output(&["ip", "-d", "link", "show", "dev", NEAR])?;
        let id = program_id(&text).with_context(|| format!("no XDP program on {NEAR}:\n{text}"))?;
        Program::by_id(id).with_context(|| format!("open the program {id}"))
    }

    /// Index of the client's interface.
    pub fn far_index(&self) -> Result<u32> {
        let index = self.client.run(|| if_nametoindex(FAR));
        index.context("find the client's interface")
    }

    /// Index of the server's interface.
    pub fn near_index(&self) -> Result<u32> {
        let index = self.server.run(|| if_nametoindex(NEAR));
        index.context("find the server's interface")
    }

    /// Datagrams that the server's kernel has delivered to UDP sockets, or rejected for lack of one.
    pub fn kernel_datagrams(&self) -> Result<u64> {
        let names = ["InDatagrams", "NoPorts"];
        names.iter().map(|name| self.server.snmp("Udp", name)).sum()
    }
}

/// Has a kernel thread on this core receive an interface's frames; `None` receives them where they are sent.
pub fn thread(host: &Namespace, interface: &str, core: Option<usize>) -> Result<()> {
    let switch = format!("/sys/class/net/{interface}/threaded");
    let digit = if core.is_some() { "1" } else { "0" };
    host.write(&switch, digit)?;
    let Some(core) = core else { return Ok(()) };
    let thread = i32::try_from(receiver(interface)?).context("a process number")?;
    let mut set = CpuSet::new();
    set.set(core).context("a core has a number that fits")?;
    sched_setaffinity(Pid::from_raw(thread), &set).context("pin the driver's thread")
}

/// PID of the kernel thread that receives an interface's frames.
pub fn receiver(interface: &str) -> Result<u32> {
    measure::kernel_thread(&format!("napi/{interface}-"))
}

/// Counter of an interface. Opened inside: sysfs shows the devices of the namespace that mounted it, and an open file stays with its device.
pub fn open_counter((host, interface): (&Namespace, &str), name: &str) -> Result<File> {
    let path = format!("/sys/class/net/{interface}/statistics/{name}");
    let file = host.run(|| File::open(&path));
    file.with_context(|| format!("open {path}"))
}

/// ID of the XDP program in the output of `ip -d link`: `prog/xdp id 57`.
fn program_id(text: &str) -> Option<u32> {
    let (_, rest) = text.split_once("prog/xdp id ")?;
    rest.split_whitespace().next()?.parse().ok()
}

/// Present value of a counter.
pub fn read_counter(file: &File) -> Result<u64> {
    let mut digits = [0; COUNTER_LEN];
    let len = file
        .read_at(&mut digits, 0)
        .context("read a counter of the interface")?;
    let text = String::from_utf8_lossy(&digits[..len]);
    text.trim()
        .parse()
        .context("an interface's counter is a number")
}

/// MAC address in iproute2's format.
pub fn mac(bytes: [u8; 6]) -> String {
    bytes.map(|byte| format!("{byte:02x}")).join(":")
}

#[cfg(test)]
mod tests {
    use super::program_id;

    #[test]
    fn a_program_is_found_by_its_number() {
        let text = "2: near@if2: <UP> mtu 1500 xdp qdisc noqueue\n    link/ether 02:00 promiscuity 0\n    \
                    veth numtxqueues 1 \n    prog/xdp id 57 name xdnsd tag 00 jited \n";
        assert_eq!(program_id(text), Some(57));
        assert_eq!(program_id("2: near@if2: <UP> mtu 1500"), None);
    }
}
