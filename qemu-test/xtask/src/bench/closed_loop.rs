//! Misses with the forwarder alone on the cores: a closed loop.
//!
//! ```text
//!   client                     server                        upstream
//!  ┌─────────────┐            ┌──────────────────┐          ┌──────────────┐
//!  │ far ────────┼─── veth ───┼─ near   upward ──┼── veth ──┼─ top         │
//!  │ answer:     │            │    xdnsd run     │          │ query:       │
//!  │ next query  │            │ 10.77.0.1        │          │ its answer   │
//!  └─────────────┘            │        10.78.0.1 │          │ 10.78.0.2    │
//!                             └──────────────────┘          └──────────────┘
//! ```
//! On a router client and upstream are other machines. Here each is an XDP program that sends a frame back: the client's turns
//! every answer into the next query, for a new name, the upstream's turns every query into its answer. The number of open queries
//! stays as at the start, and the rate is bounded by what the forwarder and the kernel under it need for a miss. `bench miss` and
//! the rows beside this one have a real client and a real upstream, which share the cores and take most of them.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::net::if_::if_nametoindex;

use super::measure::cpu_ns;
use super::pair::{ENDS, FAR, NEAR, Pair, mac, thread};
use super::query::Ends;
use super::subject::pin_on_exec;
use super::{LOAD_CORE, SUBJECT_CORE};
use xdnsd_abi::checksum::Sum;
use xdnsd_lab::bpf::assembler::{Assembler, Label};
use xdnsd_lab::bpf::instruction::{Instruction, R0, R1, R2, R3, R4, R6, R7, R8, R9, R10, Register};
use xdnsd_lab::bpf::{Attach, DATA, DATA_END, Link, Program, XDP_PASS, XDP_TX, attach_pass};
use xdnsd_lab::live::Live;
use xdnsd_lab::netns::Namespace;
use xdnsd_lab::process::Process;

/// The server's interface towards the upstream, and the upstream's.
const UPWARD: &str = "upward";
const TOP: &str = "top";
/// The server as the upstream's client.
const ABOVE: Ends = Ends {
    client_mac: [0x02, 0, 0, 0, 0x78, 0x01],
    client: Ipv4Addr::new(10, 78, 0, 1),
    server_mac: [0x02, 0, 0, 0, 0x78, 0x02],
    server: Ipv4Addr::new(10, 78, 0, 2),
};
/// Queries open at once. A veth has room for 256 frames.
const OPEN: u32 = 128;
/// Interval at which lost queries are replaced.
const LOOK: Duration = Duration::from_millis(20);
/// Time until caches are warm and the ports of upstream questions are in use.
const RUN_UP: Duration = Duration::from_millis(300);
const PATIENCE: Duration = Duration::from_secs(10);
/// Fewest answers a second of any build: below, the loop is broken.
const LEAST: f64 = 1000.0;

/// Letters of a name that vary, each by four bits of a random number.
const LETTERS: usize = 8;
const FIRST_LETTER: i32 = b'a' as i32;
const LETTER_BITS: i32 = 4;
/// Offsets in every frame of the loop: there are no IPv4 options.
const SOURCE_PORT: usize = 34;
const DESTINATION_PORT: usize = 36;
const ID: usize = 42;
const QUESTION: usize = 54;
/// Bytes of a question: the name's labels, the root, type and class.
const QUESTION_LEN: usize = 1 + LETTERS + 1 + 5 + 1 + 4 + 1 + 4;
const DNS_PORT: u16 = 53;
const CLIENT_PORT: u16 = 0xc000;
const HELPER_RANDOM: i32 = 7;
const HELPER_REDIRECT: i32 = 23;
const HELPER_ADJUST_HEAD: i32 = 44;
const HELPER_ADJUST_TAIL: i32 = 65;

/// Result of one turn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Turn {
    /// Answers per second.
    pub rate: f64,
    /// Processor time of the subject per answer, in nanoseconds; includes kernel work for the other two.
    pub cpu_ns: f64,
}

/// Starts the appliance `program` with more `sections` in its config, and runs the loop for `length`.
pub fn turn(program: &Path, sections: &str, length: Duration, directory: &Path) -> Result<Turn> {
    let ground = Ground::make()?;
    let config = directory.join("loop.toml");
    let text = format!(
        "[[interface]]\nname = \"{NEAR}\"\nlisten = [\"{}\"]\nxdp = \"native\"\n\n\
         [upstream]\nservers = [\"{}\"]\n\n[control]\nsocket = {:?}\n{sections}",
        ENDS.server,
        ABOVE.server,
        directory.join("loop.sock"),
    );
    fs::write(&config, text).with_context(|| format!("write {}", config.display()))?;
    let mut command = ground.pair.server.command(program);
    command.arg("run").arg(config);
    pin_on_exec(&mut command, SUBJECT_CORE)?;
    let mut process = Process::spawn(command, &directory.join("loop.log"))?;
    process.wait_for_log("ready", PATIENCE)?;
    ground.pair.thread_server(Some(SUBJECT_CORE))?;
    let measured = ground.measure(process.pid(), length);
    measured.with_context(|| format!("its log:\n{}", process.log()))
}

/// The namespaces and the programs in them.
struct Ground {
    pair: Pair,
    start: Live,
    #[expect(dead_code, reason = "held for its drop")]
    upstream: Namespace,
    #[expect(dead_code, reason = "held for their drop, which detaches")]
    links: [Link; 3],
}

impl Ground {
    fn make() -> Result<Self> {
        let pair = Pair::new()?;
        let upstream = Namespace::unnamed()?;
        let queues = "numrxqueues 1 numtxqueues 1";
        pair.server.ip(&format!(
            "link add {UPWARD} address {} {queues} type veth peer name {TOP} address {} {queues} netns {}\n\
             link set {UPWARD} addrgenmode none up\n\
             address add {}/24 dev {UPWARD}\n\
             neigh add {} lladdr {} nud permanent dev {UPWARD}\n",
            mac(ABOVE.client_mac),
            mac(ABOVE.server_mac),
            upstream.path(),
            ABOVE.client,
            ABOVE.server,
            mac(ABOVE.server_mac),
        ))?;
        upstream.ip(&format!("link set {TOP} addrgenmode none up\n"))?;
        let far = pair.far_index()?;
        let links = [
            attach(&pair.client, far, &client())?,
            attach(&upstream, index(&upstream, TOP)?, &answerer())?,
            attach_pass(&pair.server, UPWARD).context("attach a program that passes")?,
        ];
        for (host, interface, core) in [
            (&pair.client, FAR, LOAD_CORE),
            (&upstream, TOP, LOAD_CORE),
            (&pair.server, UPWARD, SUBJECT_CORE),
        ] {
            thread(host, interface, Some(core))?;
        }
        Ok(Self {
            start: Live::new(&starter(far), query())?,
            pair,
            upstream,
            links,
        })
    }

    fn measure(&self, pid: u32, length: Duration) -> Result<Turn> {
        self.keep_open(RUN_UP)?;
        let look = || -> Result<_> { Ok((Instant::now(), self.pair.replies()?, cpu_ns(pid)?)) };
        let (start, replies, used) = look()?;
        self.keep_open(length)?;
        let (end, replies_after, used_after) = look()?;
        let answers = (replies_after - replies) as f64;
        let rate = answers / (end - start).as_secs_f64();
        ensure!(rate > LEAST, "{rate} answers a second");
        Ok(Turn {
            rate,
            cpu_ns: (used_after - used) as f64 / answers,
        })
    }

    /// Replaces queries without an answer, for `length`.
    fn keep_open(&self, length: Duration) -> Result<()> {
        let start = Instant::now();
        loop {
            let answered = self.pair.replies()?;
            let open = self.pair.received()?.saturating_sub(answered);
            let missing = u64::from(OPEN).saturating_sub(open);
            if let Ok(missing @ 1..) = u32::try_from(missing) {
                self.start.burst(&self.pair.client, missing)?;
            }
            let Some(left) = length.checked_sub(start.elapsed()) else {
                return Ok(());
            };
            sleep(left.min(LOOK));
        }
    }
}

fn index(host: &Namespace, name: &str) -> Result<u32> {
    let index = host.run(|| if_nametoindex(name));
    index.with_context(|| format!("find {name}"))
}

fn attach(host: &Namespace, index: u32, code: &[Instruction]) -> Result<Link> {
    let link = host.run(|| Program::load(code)?.attach(index, Attach::Native));
    link.context("attach a program of the loop")
}

/// A frame of the loop, from the client or the server of `ends`. Its datagram has no checksum, as RFC 768 allows.
fn frame(ends: &Ends, is_answer: bool, message: &[u8]) -> Vec<u8> {
    let udp_len = 8 + message.len() as u16;
    let (ports, macs, addresses) = if is_answer {
        (
            [DNS_PORT, 0],
            [ends.client_mac, ends.server_mac],
            [ends.server, ends.client],
        )
    } else {
        (
            [CLIENT_PORT, DNS_PORT],
            [ends.server_mac, ends.client_mac],
            [ends.client, ends.server],
        )
    };
    let mut header = vec![0x45, 0];
    header.extend((20 + udp_len).to_be_bytes());
    // No ID, do not fragment, TTL 64, UDP.
    header.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
    header.extend(addresses.iter().flat_map(Ipv4Addr::octets));
    let sum = Sum::new().add_bytes(&header).finish();
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    let mut frame = macs.concat();
    frame.extend([0x08, 0x00]);
    frame.extend(header);
    frame.extend(ports.iter().flat_map(|port| port.to_be_bytes()));
    frame.extend(udp_len.to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(message);
    frame
}

/// `aaaaaaaa.bench.test`, type A, class IN.
fn question() -> Vec<u8> {
    let mut question = vec![LETTERS as u8];
    question.extend([FIRST_LETTER as u8; LETTERS]);
    question.extend(b"\x05bench\x04test\x00\x00\x01\x00\x01");
    question
}

/// Frame of the first query.
fn query() -> Vec<u8> {
    let mut message = vec![0, 0, 0x01, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    message.extend(question());
    frame(&ENDS, false, &message)
}

/// Frame of the answer: one address for a day, and an OPT record like that of our queries.
fn answer() -> Vec<u8> {
    let mut message = vec![0, 0, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 1];
    message.extend(question());
    message.extend([0xc0, 0x0c, 0, 1, 0, 1, 0, 1, 0x51, 0x80, 0, 4, 192, 0, 2, 1]);
    message.extend([0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0]);
    frame(&ABOVE, true, &message)
}

/// Sets R6 to the frame, and jumps to `end` if it is shorter than `len`; the context is in `context`.
fn check_room(code: &mut Assembler, context: Register, len: usize, end: Label) {
    code.push(&[
        Instruction::load_u32(R6, context, DATA),
        Instruction::load_u32(R3, context, DATA_END),
        Instruction::copy(R2, R6),
        Instruction::add(R2, len as i32),
    ]);
    code.jump(Instruction::skip_if_greater(R2, R3, 0), end);
}

/// Writes a query for a random name into the frame at [`R6`].
fn write_query(code: &mut Assembler) {
    code.push(&Instruction::store_bytes(R6, 0, &query()));
    code.push(&[
        Instruction::call(HELPER_RANDOM),
        Instruction::store_u16(R6, ID as i16, R0),
    ]);
    for letter in 0..LETTERS {
        code.push(&[
            Instruction::copy(R1, R0),
            Instruction::and(R1, (1 << LETTER_BITS) - 1),
            Instruction::add(R1, FIRST_LETTER),
            Instruction::store_u8(R6, (QUESTION + 1 + letter) as i16, R1),
            Instruction::shift_right(R0, LETTER_BITS),
        ]);
    }
}

/// Program that sends the first queries.
fn starter(far: u32) -> Vec<Instruction> {
    let mut code = Assembler::new();
    let end = code.label();
    code.push(&[Instruction::copy(R7, R1), Instruction::set(R0, 0)]);
    check_room(&mut code, R7, query().len(), end);
    write_query(&mut code);
    code.push(&[
        Instruction::set(R1, far as i32),
        Instruction::set(R2, 0),
        Instruction::call(HELPER_REDIRECT),
    ]);
    code.place(end);
    code.push(&[Instruction::exit()]);
    code.finish()
}

/// Program of the client: turns every answer into the next query.
fn client() -> Vec<Instruction> {
    let mut code = Assembler::new();
    let (pass, end) = (code.label(), code.label());
    code.push(&[Instruction::copy(R7, R1)]);
    check_room(&mut code, R7, query().len(), pass);
    code.push(&[Instruction::load_u16(R2, R6, SOURCE_PORT as i16)]);
    code.jump(
        Instruction::skip_if_other(R2, DNS_PORT.to_be().into(), 0),
        pass,
    );
    // Length adjustment: the query's length less data_end - data.
    code.push(&[
        Instruction::subtract(R3, R6),
        Instruction::set(R2, query().len() as i32),
        Instruction::subtract(R2, R3),
        Instruction::copy(R1, R7),
        Instruction::call(HELPER_ADJUST_TAIL),
        Instruction::set(R0, 0),
    ]);
    check_room(&mut code, R7, query().len(), end);
    write_query(&mut code);
    code.push(&[Instruction::set(R0, XDP_TX), Instruction::exit()]);
    code.place(pass);
    code.push(&[Instruction::set(R0, XDP_PASS)]);
    code.place(end);
    code.push(&[Instruction::exit()]);
    code.finish()
}

/// Program of the upstream: turns every query for a name of the loop into its answer.
fn answerer() -> Vec<Instruction> {
    let answer = answer();
    // Kept of the query while the frame grows: ports and ID in registers, the question on the stack.
    let words = (0..QUESTION_LEN).step_by(size_of::<u64>());
    let kept = |at: usize| at as i16 - 32;
    let mut code = Assembler::new();
    let (pass, end) = (code.label(), code.label());
    code.push(&[Instruction::copy(R7, R1)]);
    check_room(
        &mut code,
        R7,
        QUESTION + words.clone().len() * size_of::<u64>(),
        pass,
    );
    code.push(&[Instruction::load_u16(R2, R6, DESTINATION_PORT as i16)]);
    code.jump(
        Instruction::skip_if_other(R2, DNS_PORT.to_be().into(), 0),
        pass,
    );
    code.push(&[
        Instruction::load_u16(R8, R6, SOURCE_PORT as i16),
        Instruction::load_u16(R9, R6, ID as i16),
    ]);
    for at in words.clone() {
        code.push(&[
            Instruction::load_u64(R4, R6, (QUESTION + at) as i16),
            Instruction::store_u64(R10, kept(at), R4),
        ]);
    }
    // A veth has no room after a frame, so it grows in front.
    code.push(&[
        Instruction::subtract(R3, R6),
        Instruction::copy(R2, R3),
        Instruction::add(R2, -(answer.len() as i32)),
        Instruction::copy(R1, R7),
        Instruction::call(HELPER_ADJUST_HEAD),
        Instruction::set(R0, 0),
    ]);
    check_room(&mut code, R7, answer.len(), end);
    for at in words {
        code.push(&[
            Instruction::load_u64(R4, R10, kept(at)),
            Instruction::store_u64(R6, (QUESTION + at) as i16, R4),
        ]);
    }
    write_answer(&mut code, &answer);
    code.place(pass);
    code.push(&[Instruction::set(R0, XDP_PASS)]);
    code.place(end);
    code.push(&[Instruction::exit()]);
    code.finish()
}

/// Writes everything around the question, and sends the frame.
fn write_answer(code: &mut Assembler, answer: &[u8]) {
    let after = QUESTION + QUESTION_LEN;
    code.push(&Instruction::store_bytes(R6, 0, &answer[..QUESTION]));
    code.push(&Instruction::store_bytes(
        R6,
        after as i16,
        &answer[after..],
    ));
    code.push(&[
        Instruction::store_u16(R6, DESTINATION_PORT as i16, R8),
        Instruction::store_u16(R6, ID as i16, R9),
        Instruction::set(R0, XDP_TX),
        Instruction::exit(),
    ]);
}

#[cfg(test)]
mod tests {
    use super::{ABOVE, ENDS, ID, LETTERS, QUESTION, QUESTION_LEN, Sum, answer, query, question};

    #[test]
    fn frames_are_whole() {
        for (frame, ends, message) in [(query(), ENDS, 37), (answer(), ABOVE, 64)] {
            assert_eq!(frame.len(), 14 + 20 + 8 + message);
            assert!(Sum::new().add_bytes(&frame[14..34]).adds_up(), "the header");
            assert_eq!(frame[16..18], (20 + 8 + message as u16).to_be_bytes());
            assert_eq!(frame[38..40], (8 + message as u16).to_be_bytes());
            assert_eq!(frame[QUESTION..QUESTION + QUESTION_LEN], question());
            let addresses = [ends.client.octets(), ends.server.octets()];
            let mut found = [&frame[26..30], &frame[30..34]];
            if frame[ID + 2] & 0x80 != 0 {
                found.reverse();
            }
            assert_eq!(found, addresses);
        }
        assert_eq!(question()[..=LETTERS], *b"\x08aaaaaaaa");
    }

    #[test]
    fn an_answer_has_one_record_and_an_opt() {
        let message = &answer()[ID..];
        assert_eq!(message[2..12], [0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 1]);
        let records = &message[12 + QUESTION_LEN..];
        assert_eq!(records[..2], [0xc0, 0x0c], "of the name asked for");
        assert_eq!(records[10..16], [0, 4, 192, 0, 2, 1]);
        assert_eq!(records[16..19], [0, 0, 41]);
    }
}
