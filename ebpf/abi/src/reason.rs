//! What became of a frame: the reasons that the XDP program counts by.

use crate::{FRAME_MAX, HEARTBEAT_STALE_NS, MESSAGE_MAX, SYN_FRAME_MAX};

crate::counters! {
    /// What became of a frame. The match arm, the counter index and the metric name are the same word.
    pub enum Reason: u32 {
        /// Given to the AF_XDP socket of its RX queue.
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
        /// To an address of ours in a frame to a MAC address that is not: another station's, which a promiscuous port hears.
        PassOtherMac = "pass_other_mac",
        /// Received by another interface than the sockets', for which this one's program runs as well: a port of a bond.
        PassOtherDevice = "pass_other_device",
        /// By a port of a bridge whose frames are all the bridge's: it is closed by the spanning tree, it is locked (802.1X), its VLANs
        /// are not the bridge's own untagged one, or the bridge is down.
        PassPort = "pass_port",
        /// By a port of a bridge, from a station that the bridge is to hear of: for the first time, by another port than before, or
        /// once in a quarter of the time for which it remembers.
        PassStation = "pass_station",
        /// IPv4 header checksum does not add up (RFC 1071).
        PassIpv4Checksum = "pass_ipv4_checksum",
        /// UDP checksum does not add up: damage, or a partial sum left by offload. The kernel knows which.
        PassUdpChecksum = "pass_udp_checksum",
        /// Packet is longer than its datagram, or the datagram does not say how long it is; where garbage is not dropped also
        /// what is truncated.
        PassLength = "pass_length",
        /// Message longer than 512 bytes.
        PassLong = "pass_long",
        /// Frame in several buffers, or longer than 1024 bytes; with a SYN to a guarded port longer than 128.
        PassLargeFrame = "pass_large_frame",
        /// QR = 1: a response, to another port than 53 or where garbage is not dropped.
        PassResponse = "pass_response",
        /// Source address is multicast, broadcast, loopback or unspecified, or source port 0; where garbage is not dropped also an
        /// address of ours.
        PassSource = "pass_source",
        /// The FIB sends the reply elsewhere than where the query came from.
        PassRoute = "pass_route",
        /// The queue's worker has not been alive for a second.
        PassStale = "pass_stale",
        /// No AF_XDP socket is bound to this RX queue.
        PassNoSocket = "pass_no_socket",
        /// A SYN to a guarded port, answered with a cookie by the driver (XDP_TX).
        SynCookie = "syn_cookie",
        /// A SYN to a guarded port while SYN cookies rest: nobody floods, or their answers do not arrive.
        PassSyn = "pass_syn",
        /// A SYN to a guarded port that carries data (RFC 7413), or whose lengths disagree.
        PassSynLength = "pass_syn_length",
        /// TCP checksum of a SYN to a guarded port does not add up: damage, or a partial sum left by offload.
        PassTcpChecksum = "pass_tcp_checksum",
        /// The kernel gave no cookie for a SYN to a guarded port: nobody listens there, the listener's queue is full, the
        /// connection exists, or tcp_syncookies is not 2.
        PassNoCookie = "pass_no_cookie",
        /// The driver has no room for the answer to a SYN.
        PassNoRoom = "pass_no_room",
        /// A segment to a guarded port that brings back a cookie, while cookies are given.
        PassCookie = "pass_cookie",
        /// From a client that has lately brought back a cookie: a SYN to a guarded port, or a segment to one that belongs to no
        /// connection.
        PassVerified = "pass_verified",
        /// A segment to a guarded port that belongs to no connection, one of the few a second that the kernel is left to refuse.
        PassStray = "pass_stray",
        /// A SYN to a protected address behind this host, answered with a cookie of our own by the driver (XDP_TX).
        ForwardCookie = "forward_cookie",
        /// An ACK that brings such a cookie back: the client is verified from here on, and is told by an RST to come again (XDP_TX).
        ForwardProof = "forward_proof",
        /// A SYN to a protected address from a verified client.
        ForwardVerified = "forward_verified",
        /// A SYN to an address that is protected from floods alone, while there is none.
        ForwardCalm = "forward_calm",
        /// Dropped: a segment to a guarded port that belongs to no connection and brings back no cookie, while cookies are given.
        DropStray = "drop_stray",
        /// Dropped: an RST to a guarded port that belongs to no connection, while cookies are given.
        DropReset = "drop_reset",
        /// Dropped: a DNS response to port 53 of ours, where nobody has asked anything.
        DropResponse = "drop_response",
        /// Dropped: to an address of ours from that address (land), or from another one of ours on the same device.
        DropSource = "drop_source",
        /// Dropped: to a port of ours, with a datagram that is longer than its packet or shorter than a DNS header.
        DropTruncated = "drop_truncated",
        /// Dropped: to an address of ours, from a prefix that is denied.
        DropDenied = "drop_denied",
        /// Dropped: to a protected address from a client that is not verified, a SYN that cannot be answered: with data or a FIN,
        /// behind IP options or extension headers, in parts.
        DropForward = "drop_forward",
        /// A query for a hot name, answered by the driver (XDP_TX).
        Answered = "answered",
        /// A query of a client that has asked more than it may, or of one of too many new ones, answered with TC by the driver
        /// (XDP_TX).
        RateSlipped = "rate_slipped",
        /// Dropped: a query of a client that has asked more than it may.
        DropRate = "drop_rate",
        /// Dropped: a query of a client that no worker has answered lately, while more such come than user space is given.
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
