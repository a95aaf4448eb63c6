//! The sk_lookup program: assigns answers of upstream servers to the worker that asked.
//!
//! It runs when the kernel looks for the socket of a datagram and has found no connected one. A datagram from a server to
//! the very address and port of a question in flight to it goes to that worker's socket. For all others the program assigns
//! nothing, so a port without a question is closed like any other.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod object;

#[cfg(target_arch = "bpf")]
mod program {
    use aya_ebpf::bindings::{BPF_F_MMAPABLE, bpf_sk_lookup};
    use aya_ebpf::macros::{map, sk_lookup};
    use aya_ebpf::maps::{Array, SockMap};
    use aya_ebpf::programs::SkLookupContext;
    use xdnsd_abi::headers::protocol;
    use xdnsd_abi::ports::{self, KEY, RECEIVERS_MAX, SLOTS, ServerV6};

    // The names are those of `xdnsd_abi::ports`; the macro takes literals only. Loading fails if they differ.

    #[map(name = "ports")]
    static PORTS: Array<u64> = Array::with_max_entries(SLOTS + 1, BPF_F_MMAPABLE);
    #[map(name = "receivers")]
    static RECEIVERS: SockMap = SockMap::with_max_entries(RECEIVERS_MAX, 0);

    const AF_INET6: u32 = 10;
    /// fe80::/10, in an address's first word as read on this machine.
    const LINK_LOCAL: u32 = u32::from_be(0xfe80_0000);
    const LINK_LOCAL_MASK: u32 = u32::from_be(0xffc0_0000);
    /// Continue: with the assigned socket, or with the ordinary look-up.
    const SK_PASS: u32 = 1;

    /// Entry point.
    #[sk_lookup]
    pub fn xdnsd_ports(ctx: SkLookupContext) -> u32 {
        // SAFETY: the kernel lends the context for as long as the program runs; every field may be read.
        let lookup = unsafe { &*ctx.lookup };
        if lookup.protocol == u32::from(protocol::UDP)
            && let Some(receiver) = receiver(lookup)
        {
            // Without a socket, or with one that the kernel refuses, the datagram takes the ordinary way.
            let _ = RECEIVERS.redirect_sk_lookup(&ctx, receiver, 0);
        }
        SK_PASS
    }

    /// Index of the socket of the worker that waits for this datagram.
    #[inline(always)]
    fn receiver(lookup: &bpf_sk_lookup) -> Option<u32> {
        let port = lookup.local_port as u16;
        let entry = *PORTS.get(ports::slot(port))?;
        if entry == 0 {
            return None;
        }
        let v6 = lookup.family == AF_INET6;
        let tag = tag(lookup, v6, *PORTS.get(KEY)?);
        let is_open = ports::matches(entry, ports::open(port, v6, tag));
        is_open.then(|| ports::receiver(ports::worker(entry), v6))
    }

    #[inline(always)]
    fn tag(lookup: &bpf_sk_lookup, v6: bool, key: u64) -> u32 {
        let port = u16::from_be(lookup.remote_port);
        if !v6 {
            return ports::tag_v4(key, lookup.remote_ip4, lookup.local_ip4, port);
        }
        let address = lookup.remote_ip6;
        let link = if address[0] & LINK_LOCAL_MASK == LINK_LOCAL {
            lookup.ingress_ifindex
        } else {
            0
        };
        let server = ServerV6 {
            address,
            port,
            link,
        };
        ports::tag_v6(key, server, lookup.local_ip6)
    }
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
