//! Outcome of a frame: the reasons by which the XDP program counts.

use crate::{FRAME_MAX, HEARTBEAT_STALE_NS, MESSAGE_MAX, SYN_FRAME_MAX};

crate::counters! {
    /// Outcome of a frame. The match arm, the counter index and the metric name are the same word.
    pub enum Reason: u32 {
        /// Redirected to the AF_XDP socket of its RX queue.
        Redirected = "redirected",
        /// Shorter than its own headers say.
        PassTruncated = "pass_truncated",
        /// Ethernet destination is multicast or broadcast.
        PassMulticast = "pass_multicast",
        /// Neither IPv4 nor IPv6.
        PassEthertype = "pass_ethertype",
        /// More than two VLAN tags.
        PassVlanDepth = "pass_vlan_depth",
        /// A tag with VLAN ID 0: it carries a priority and names no VLAN.
        PassVlanPriority = "pass_vlan_priority",
        /// IPv4 with options (IHL not 5), or not version 4.
        PassIpv4Options = "pass_ipv4_options",
        /// IPv4 fragment (RFC 791).
        PassFragment = "pass_fragment",
        /// Neither UDP over IPv4 nor next header UDP over IPv6 (TCP but what SYN cookies guard, ICMP, extension headers, not version 6).
        PassProtocol = "pass_protocol",
        /// UDP to a (VLAN, address, port) that is not ours: forwarded DNS among it.
        PassForeign = "pass_foreign",
        /// To an address of ours, but to a MAC address of another station, as a promiscuous port receives it.
        PassOtherMac = "pass_other_mac",
        /// Received by another interface than the sockets', on which this program runs as well: a port of a bond.
        PassOtherDevice = "pass_other_device",
        /// By a port of a bridge whose frames all belong to the bridge: it is closed by the spanning tree, it is locked
        /// (802.1X), its VLANs are not the bridge's own untagged one, or the bridge is down.
        PassPort = "pass_port",
        /// By a port of a bridge, from a station that the bridge has to see: for the first time, by another port than
        /// before, or once in a quarter of its ageing time.
        PassStation = "pass_station",
        /// IPv4 header checksum is wrong (RFC 1071).
        PassIpv4Checksum = "pass_ipv4_checksum",
        /// UDP checksum is wrong, and not the sum of the pseudo-header, which offload leaves: damage. The kernel can tell.
        PassUdpChecksum = "pass_udp_checksum",
        /// Packet is longer than its datagram, or the datagram does not state its length; if garbage is not dropped also a
        /// truncated one.
        PassLength = "pass_length",
        /// Message longer than 512 bytes.
        PassLong = "pass_long",
        /// Frame in several buffers, or longer than 1024 bytes; with a SYN to a guarded port longer than 128.
        PassLargeFrame = "pass_large_frame",
        /// QR = 1: a response, to another port than 53 or if garbage is not dropped.
        PassResponse = "pass_response",
        /// Source address is multicast, broadcast, loopback or unspecified, or source port 0; if garbage is not dropped
        /// also an address of ours.
        PassSource = "pass_source",
        /// The FIB sends the reply another way than the query came.
        PassRoute = "pass_route",
        /// The queue's worker has had no heartbeat for a second.
        PassStale = "pass_stale",
        /// No AF_XDP socket is bound to this RX queue.
        PassNoSocket = "pass_no_socket",
        /// A SYN to a guarded port, answered with a cookie by the driver (XDP_TX).
        SynCookie = "syn_cookie",
        /// A SYN to a guarded port while SYN cookies are off: there is no flood, or their answers do not arrive.
        PassSyn = "pass_syn",
        /// A SYN to a guarded port that carries data (RFC 7413), or whose lengths disagree.
        PassSynLength = "pass_syn_length",
        /// TCP checksum of a SYN to a guarded port is wrong: damage, or a partial sum left by offload.
        PassTcpChecksum = "pass_tcp_checksum",
        /// The kernel gave no cookie for a SYN to a guarded port: nobody listens there, the listener's queue is full, the
        /// connection exists, or tcp_syncookies is not 2.
        PassNoCookie = "pass_no_cookie",
        /// The driver has no room for the answer to a SYN.
        PassNoRoom = "pass_no_room",
        /// A segment to a guarded port that brings a cookie back, while cookies are given.
        PassCookie = "pass_cookie",
        /// From a client that has lately brought a cookie back: a SYN to a guarded port, or a segment to one that belongs
        /// to no connection.
        PassVerified = "pass_verified",
        /// A segment to a guarded port that belongs to no connection, one of the few per second that the kernel refuses.
        PassStray = "pass_stray",
        /// A SYN to a protected address behind this host, answered with a cookie of our own by the driver (XDP_TX).
        ForwardCookie = "forward_cookie",
        /// An ACK that brings such a cookie back: the client is verified from here on, and an RST makes it come again
        /// (XDP_TX).
        ForwardProof = "forward_proof",
        /// A SYN to a protected address from a verified client.
        ForwardVerified = "forward_verified",
        /// A SYN to an address that is protected only during floods, while there is none.
        ForwardCalm = "forward_calm",
        /// Dropped: a segment to a guarded port that belongs to no connection and brings no cookie back, while cookies are
        /// given.
        DropStray = "drop_stray",
        /// Dropped: an RST to a guarded port that belongs to no connection, while cookies are given.
        DropReset = "drop_reset",
        /// Dropped: a DNS response to port 53 of ours, from which nothing is asked.
        DropResponse = "drop_response",
        /// Dropped: to an address of ours from that address (land), or from another one of ours on the same device.
        DropSource = "drop_source",
        /// Dropped: to a port of ours, with a datagram that is longer than its packet or shorter than a DNS header.
        DropTruncated = "drop_truncated",
        /// Dropped: to an address of ours, from a prefix that is denied.
        DropDenied = "drop_denied",
        /// Dropped: a query of a client that `access` drops by its address.
        DropAccess = "drop_access",
        /// Dropped: a SYN to a protected address from a client that is not verified, which cannot be answered: with data or
        /// a FIN, behind IP options or extension headers, or fragmented.
        DropForward = "drop_forward",
        /// A query for a hot name, answered by the driver (XDP_TX).
        Answered = "answered",
        /// A query of a client over its limit, or of one of too many new clients, answered with TC by the driver (XDP_TX).
        RateSlipped = "rate_slipped",
        /// Dropped: a query of a client over its limit.
        DropRate = "drop_rate",
        /// Dropped: a query of a client that no worker has answered lately, beyond the rate of such queries for user space.
        DropNewcomer = "drop_newcomer",
    }
}

const _: () = assert!(
    MESSAGE_MAX == 512
        && FRAME_MAX == 1024
        && SYN_FRAME_MAX == 128
        && HEARTBEAT_STALE_NS == 1_000_000_000,
    "the help of PassLong, PassLargeFrame and PassStale says so"
);
