//! Chooses the worker for a query over the kernel's UDP sockets: all queries for one name go to the same worker. So clients that
//! ask for it at the same time wait in one table, and upstream is asked once.
//!
//! The kernel would choose by the client's address and port. A classic BPF program (SO_ATTACH_REUSEPORT_CBPF) chooses by QNAME,
//! whatever its letter case: it walks the labels and hashes some bytes at both ends of each. Malformed messages go to the first
//! worker, and if the chosen worker has no socket yet the kernel chooses as usual.
//!
//! ```text
//! memory | 0 hash | 1 place of the label | 2 its length |
//! ```

use std::io;
use std::net::UdpSocket;

use libc::{
    BPF_A, BPF_ADD, BPF_ALU, BPF_B, BPF_IMM, BPF_IND, BPF_JEQ, BPF_JGT, BPF_JMP, BPF_K, BPF_LD,
    BPF_LDX, BPF_MEM, BPF_MISC, BPF_MOD, BPF_MUL, BPF_OR, BPF_RET, BPF_RSH, BPF_ST, BPF_SUB,
    BPF_TAX, BPF_W, BPF_X, sock_filter,
};
use xdnsd_core::dns::header::HEADER_LEN;
use xdnsd_core::dns::name;

use super::socket;

/// Offset of the question.
const QNAME_AT: u32 = HEADER_LEN as u32;
/// Most labels that are hashed; further ones are ignored.
const LABELS: usize = 8;
/// Longest label; a higher length byte is a pointer or reserved (RFC 1035 section 4.1.4).
const LABEL_MAX: u32 = name::LABEL_MAX as u32;
/// Sets the lower-case bit of letters. Other bytes change as well, alike for every client.
const LOWER_CASE: u32 = 0x2020_2020;
/// Multiplier of the hash: odd, near 2^32 divided by the golden ratio.
const MULTIPLIER: u32 = 0x9e37_79b1;
/// Instructions for one label.
const LABEL_LEN: usize = 26;

const HASH: u32 = 0;
const PLACE: u32 = 1;
const LENGTH: u32 = 2;

/// Attaches the program to the reuseport group of `socket`, for `workers` sockets.
///
/// # Errors
/// The kernel refused the program.
pub fn by_name(socket: &UdpSocket, workers: usize) -> io::Result<()> {
    socket::attach_reuseport_filter(socket, &program(workers as u32))
}

/// The program, which returns the index of a worker.
fn program(workers: u32) -> Vec<sock_filter> {
    let mut program = vec![
        op(BPF_LD | BPF_IMM, 0),
        op(BPF_ST, HASH),
        op(BPF_LD | BPF_IMM, QNAME_AT),
        op(BPF_ST, PLACE),
    ];
    for left in (0..LABELS).rev() {
        program.extend(label(left));
    }
    program.extend([
        op(BPF_LD | BPF_MEM, HASH),
        op(BPF_ALU | BPF_RSH | BPF_K, 16),
        op(BPF_ALU | BPF_MOD | BPF_K, workers),
        op(BPF_RET | BPF_A, 0),
    ]);
    program
}

/// Hashes the label at PLACE and advances to the next; the root label ends the walk and skips the `left` blocks that follow.
fn label(left: usize) -> Vec<sock_filter> {
    let to_end = |at: usize| (LABEL_LEN - 1 - at + left * LABEL_LEN) as u8;
    let mut block = vec![
        op(BPF_LDX | BPF_MEM, PLACE),
        op(BPF_LD | BPF_B | BPF_IND, 0),
        jump(BPF_JEQ, 0, to_end(2)),
        jump(BPF_JGT, LABEL_MAX, to_end(3)),
        op(BPF_ST, LENGTH),
        // The length byte and three more.
        op(BPF_LD | BPF_W | BPF_IND, 0),
    ];
    block.extend(mix());
    block.extend([
        // The label's last two bytes and the two that follow: at least QTYPE.
        op(BPF_LDX | BPF_MEM, PLACE),
        op(BPF_LD | BPF_MEM, LENGTH),
        op(BPF_ALU | BPF_ADD | BPF_X, 0),
        op(BPF_ALU | BPF_SUB | BPF_K, 1),
        op(BPF_MISC | BPF_TAX, 0),
        op(BPF_ALU | BPF_ADD | BPF_K, 2),
        op(BPF_ST, PLACE),
        op(BPF_LD | BPF_W | BPF_IND, 0),
    ]);
    block.extend(mix());
    debug_assert_eq!(block.len(), LABEL_LEN, "jumps count on it");
    block
}

/// Mixes the accumulator into HASH.
fn mix() -> [sock_filter; 6] {
    [
        op(BPF_ALU | BPF_OR | BPF_K, LOWER_CASE),
        op(BPF_MISC | BPF_TAX, 0),
        op(BPF_LD | BPF_MEM, HASH),
        op(BPF_ALU | BPF_ADD | BPF_X, 0),
        op(BPF_ALU | BPF_MUL | BPF_K, MULTIPLIER),
        op(BPF_ST, HASH),
    ]
}

const fn op(code: u32, k: u32) -> sock_filter {
    sock_filter {
        code: code as u16,
        jt: 0,
        jf: 0,
        k,
    }
}

const fn jump(condition: u32, k: u32, to: u8) -> sock_filter {
    sock_filter {
        code: (BPF_JMP | condition | BPF_K) as u16,
        jt: to,
        jf: 0,
        k,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::name;
    use crate::worker::open_udp;
    use std::net::SocketAddr;
    use std::time::Duration;

    const SOCKETS: usize = 4;

    /// A query for `name` in its letter case, with an ID, and an OPT record if `edns`.
    fn query(text: &str, id: u16, edns: bool) -> Vec<u8> {
        let mut message = id.to_be_bytes().to_vec();
        message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(edns)]);
        let mut qname = name::parse(text).expect("a name");
        let upper = text.bytes().any(|byte| byte.is_ascii_uppercase());
        if upper {
            qname.make_ascii_uppercase();
        }
        message.extend(qname);
        message.extend([0, 1, 0, 1]);
        if edns {
            message.extend([0, 0, 41]);
            message.extend(id.to_be_bytes());
            message.extend([0; 6]);
        }
        message
    }

    struct Group {
        address: SocketAddr,
        sockets: Vec<UdpSocket>,
    }

    impl Group {
        fn new(address: &str) -> Self {
            let first = UdpSocket::bind(address).expect("a port");
            let address = first.local_addr().expect("its address");
            drop(first);
            let sockets = (1..=SOCKETS).map(|count| {
                let socket = open_udp(address).expect("shared");
                by_name(&socket, count).expect("attached");
                socket
            });
            Self {
                address,
                sockets: sockets.collect(),
            }
        }

        /// Index of the socket that receives `message` from a new client.
        fn gets(&self, message: &[u8]) -> usize {
            let any = SocketAddr::new(self.address.ip(), 0);
            let client = UdpSocket::bind(any).expect("a client");
            client.send_to(message, self.address).expect("sent");
            let mut buffer = [0; 512];
            // Bound: loopback delivers before send_to returns.
            for _ in 0..100 {
                for (index, socket) in self.sockets.iter().enumerate() {
                    if socket.recv(&mut buffer).is_ok() {
                        return index;
                    }
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            panic!("nobody got it");
        }
    }

    #[test]
    fn everybody_who_asks_for_a_name_gets_the_same_worker() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let group = Group::new(address);
            for name in [
                ".",
                "a",
                "a.b.c.d.e.f.g.h.i.j.k",
                "www.example.org",
                "no.www.example.org",
                "x.example",
            ] {
                let first = group.gets(&query(name, 1, false));
                for id in 2..12 {
                    let text = if id % 2 == 0 {
                        name.to_ascii_uppercase()
                    } else {
                        name.into()
                    };
                    assert_eq!(group.gets(&query(&text, id, id % 3 == 0)), first, "{name}");
                }
            }
        }
    }

    #[test]
    fn names_are_spread_and_what_is_no_query_arrives() {
        let group = Group::new("127.0.0.1:0");
        let mut counts = [0; SOCKETS];
        for number in 0..400 {
            counts[group.gets(&query(&format!("www.host{number}.example"), 1, true))] += 1;
        }
        assert!(counts.iter().all(|&count| count > 40), "{counts:?}");
        for message in [
            &b""[..],
            &[0; 12],
            &[0xff; 40],
            &query("a.b", 1, false)[..15],
        ] {
            group.gets(message);
        }
    }
}
