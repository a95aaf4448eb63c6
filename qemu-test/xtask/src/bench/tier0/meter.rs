//! The benchmark's client, all of it in the kernel: a program that sends queries at a rate, and one that receives the replies,
//! counts them and records their latency.
//!
//! ```text
//!   Ethernet 14 | IPv4 20 | UDP 8 | DNS header 12 | 3 x a a | 5 bench | 4 test | 0 | A | IN
//!                  source port ↑     ↑ ID = number of the query, 14 bits
//! ```
//! The letter is random, and the source port keeps the checksum constant. The sender notes each query's time in words shared by
//! both programs; the receiver finds it by the reply's ID. So the latency is from just before the query is passed to the link to
//! the moment when the client's driver has the reply.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::bench::pair::{ENDS, Pair};
use crate::bench::query::{self, DNS, DNS_PORT, FIRST_LETTER, PROTOCOL_UDP, QNAME, UDP};
use xdnsd_lab::bpf::assembler::{Assembler, Label};
use xdnsd_lab::bpf::instruction::{Instruction, R0, R1, R2, R3, R4, R6, R7, R8, R9};
use xdnsd_lab::bpf::maps::Words;
use xdnsd_lab::bpf::{Attach, DATA, DATA_END, Link, Program, XDP_DROP, XDP_PASS};
use xdnsd_lab::live::{ENDLESS, Live, Running};

/// Number of names.
pub const NAMES: usize = 16;
/// Number of query numbers; a query that is answered after so many later ones has no latency.
const NUMBERS: usize = 1 << 14;
/// Nanoseconds of a latency class, as a shift.
const CLASS_SHIFT: i32 = 6;
/// Latency classes; the last one has all longer latencies.
const CLASSES: usize = 1 << 15;
/// Port of query 0; later ones decrease.
const FIRST_PORT: u16 = 0xffff;
/// Queries sent at once if only the rate is measured. Their memory pool has room for as many: surplus frames that return are
/// freed, on the server's core.
const MANY: u32 = 128;
/// Queries sent at once while latency is measured at a high rate.
const SOME: u32 = 16;
/// Queries a second from which the rate is high.
const HIGH_RATE: f64 = 100_000.0;

/// How queries are sent.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Queries a second; `None`: as fast as possible.
    rate: Option<f64>,
    /// Queries at once.
    batch: u32,
}

impl Load {
    /// Measures the rate of answers.
    pub const fn to_count(rate: Option<f64>) -> Self {
        Self { rate, batch: MANY }
    }

    /// Measures latency.
    pub fn to_time(rate: f64) -> Self {
        let batch = if rate >= HIGH_RATE { SOME } else { 1 };
        let rate = Some(rate);
        Self { rate, batch }
    }
}

/// Indices of the shared words.
mod word {
    use super::{CLASSES, NUMBERS};

    /// Number of the next query.
    pub const NEXT: usize = 0;
    /// When it may be sent.
    pub const DUE: usize = 1;
    /// Nanoseconds between queries; 0 for none.
    pub const GAP: usize = 2;
    /// Queries sent.
    pub const SENT: usize = 3;
    /// Datagrams from port 53.
    pub const REPLIES: usize = 4;
    /// Responses with one answer among them.
    pub const ANSWERS: usize = 5;
    /// Latency classes.
    pub const TIMES: usize = 8;
    /// When each query was sent.
    pub const STAMPS: usize = TIMES + CLASSES;
    /// Number of words.
    pub const COUNT: usize = STAMPS + NUMBERS;
}

/// The two programs and their shared words.
#[derive(Debug)]
pub struct Meter {
    words: Words,
    live: Live,
    #[expect(dead_code, reason = "held for its drop, which detaches")]
    receiver: Link,
}

/// Counters at one moment.
#[derive(Clone, Debug)]
pub struct Count {
    at: Instant,
    words: Vec<u64>,
}

/// Counts between two moments.
#[derive(Clone, Debug, PartialEq)]
pub struct Counted {
    /// Duration in seconds.
    pub secs: f64,
    /// Queries sent.
    pub sent: f64,
    /// Datagrams from port 53 that came back.
    pub replies: f64,
    /// Responses with one answer among them.
    pub answers: f64,
    /// Replies by latency class.
    times: Vec<u64>,
}

impl Meter {
    /// Loads both programs; the receiver is attached to the client's end.
    pub fn new(pair: &Pair) -> Result<Self> {
        let words = Words::new(word::COUNT).context("make a map of words")?;
        let index = pair.far_index()?;
        let sender = sender(index, words.descriptor());
        let receiver = Program::load(&receiver(words.descriptor()));
        let receiver = receiver.context("load the program that takes replies")?;
        let attached = pair.client.run(|| receiver.attach(index, Attach::Native));
        Ok(Self {
            words,
            live: Live::new(&sender, frame())?,
            receiver: attached.context("attach the program that takes replies")?,
        })
    }

    /// Sends from `core` until stopped.
    pub fn start(&self, pair: &Pair, core: usize, load: Load) -> Result<Running> {
        let gap = load.rate.map_or(0, |rate| (1e9 / rate).max(1.0) as u64);
        let mut words = vec![0; word::COUNT];
        words[word::GAP] = gap;
        self.words.write(&words).context("set the rate")?;
        let live = self.live.clone().in_batches_of(load.batch);
        Ok(live.start(&pair.client, Some(core), ENDLESS))
    }

    /// Counters since the start.
    pub fn count(&self) -> Result<Count> {
        let words = self.words.read().context("read the counters")?;
        let at = Instant::now();
        Ok(Count { at, words })
    }
}

impl Count {
    /// Counts from this moment to `later`.
    pub fn until(&self, later: &Self) -> Counted {
        let more = |place: usize| later.words[place].wrapping_sub(self.words[place]);
        let secs = (later.at - self.at).as_secs_f64();
        Counted {
            secs,
            sent: more(word::SENT) as f64,
            replies: more(word::REPLIES) as f64,
            answers: more(word::ANSWERS) as f64,
            times: (word::TIMES..word::STAMPS).map(more).collect(),
        }
    }
}

impl Counted {
    /// Latency within which this share of the replies arrived; `None` without replies.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let total: u64 = self.times.iter().sum();
        let wanted = (total as f64 * share).ceil().max(1.0) as u64;
        let mut sum = 0;
        let reaches = |count: &u64| {
            sum += count;
            sum >= wanted
        };
        let class = self.times.iter().position(reaches)?;
        // The middle of the class.
        let nanos = ((class as u64) << CLASS_SHIFT) + (1 << (CLASS_SHIFT - 1));
        Some(Duration::from_nanos(nanos))
    }
}

/// Frame of query 0.
pub fn frame() -> Vec<u8> {
    query::frame_from(&ENDS, FIRST_PORT, 0)
}

/// Program that makes the next query when it is due, and sends it out of `ifindex`.
fn sender(ifindex: u32, words: i32) -> Vec<Instruction> {
    const HELPER_KTIME: i32 = 5;
    const HELPER_REDIRECT: i32 = 23;
    /// A longer delay is not caught up: a burst that fills the link's ring says nothing about the server.
    const LATE_MAX_NS: i32 = 50_000;
    /// Clock readings before a frame is given back: some microseconds. The memory pool is also used for the replies' frames, on
    /// the server's core, which a sender that gave frames back all the time would keep from it.
    const LOOKS: usize = 200;
    let (now, due) = (R8, R9);
    let mut code = Assembler::new();
    let (wait, send) = (code.label(), code.label());
    let (is_due, in_time) = (code.label(), code.label());
    code.push(&[
        Instruction::load_u32(R6, R1, DATA),
        Instruction::load_u32(R1, R1, DATA_END),
        Instruction::copy(R2, R6),
        Instruction::add(R2, frame().len() as i32),
    ]);
    code.jump(Instruction::skip_if_greater(R2, R1, 0), wait);
    code.push(&Instruction::set_map_value(R7, words, 0));
    code.push(&[
        Instruction::call(HELPER_KTIME),
        Instruction::copy(now, R0),
        Instruction::load_u64(R1, R7, place(word::GAP)),
    ]);
    code.jump(Instruction::skip_if_equal(R1, 0, 0), send);
    code.push(&[Instruction::load_u64(due, R7, place(word::DUE))]);
    for _ in 0..LOOKS {
        code.jump(Instruction::skip_if_greater(now, due, 0), is_due);
        code.push(&[Instruction::call(HELPER_KTIME), Instruction::copy(now, R0)]);
    }
    code.jump(Instruction::skip_if_greater(due, now, 0), wait);
    code.place(is_due);
    code.push(&[
        Instruction::copy(R3, now),
        Instruction::add(R3, -LATE_MAX_NS),
    ]);
    code.jump(Instruction::skip_if_greater(due, R3, 0), in_time);
    code.push(&[Instruction::copy(due, now)]);
    code.place(in_time);
    code.push(&[
        Instruction::load_u64(R1, R7, place(word::GAP)),
        Instruction::add_register(due, R1),
        Instruction::store_u64(R7, place(word::DUE), due),
    ]);
    code.place(send);
    code.push(&more(word::SENT));
    write_next(&mut code, words);
    code.push(&[
        Instruction::set(R1, ifindex as i32),
        Instruction::set(R2, 0),
        Instruction::call(HELPER_REDIRECT),
        Instruction::exit(),
    ]);
    code.place(wait);
    code.push(&[Instruction::set(R0, XDP_DROP), Instruction::exit()]);
    code.finish()
}

/// Numbers the query, notes the time in R8, and writes the frame at R6. R7 points to the words.
fn write_next(code: &mut Assembler, words: i32) {
    const HELPER_RANDOM: i32 = 7;
    let (now, number) = (R8, R9);
    code.push(&[
        Instruction::load_u64(number, R7, place(word::NEXT)),
        Instruction::copy(R1, number),
        Instruction::add(R1, 1),
        Instruction::store_u64(R7, place(word::NEXT), R1),
        Instruction::and(number, NUMBERS as i32 - 1),
        Instruction::copy(R2, number),
        Instruction::shift_left(R2, 3),
    ]);
    code.push(&Instruction::set_map_value(R3, words, byte(word::STAMPS)));
    code.push(&[
        Instruction::add_register(R3, R2),
        Instruction::store_u64(R3, 0, now),
    ]);
    // The whole frame: a server that answers in place leaves the answer there for the next query.
    code.push(&Instruction::store_bytes(R6, 0, &frame()));
    code.push(&[
        Instruction::call(HELPER_RANDOM),
        Instruction::copy(R1, R0),
        Instruction::and(R1, NAMES as i32 - 1),
        Instruction::copy(R2, R1),
        Instruction::add(R2, FIRST_LETTER.into()),
        Instruction::store_u8(R6, QNAME as i16 + 1, R2),
        Instruction::set(R3, FIRST_PORT.into()),
        Instruction::subtract(R3, number),
        Instruction::subtract(R3, R1),
        Instruction::network_order_16(R3),
        Instruction::store_u16(R6, UDP as i16, R3),
        Instruction::copy(R4, number),
        Instruction::network_order_16(R4),
        Instruction::store_u16(R6, DNS as i16, R4),
    ]);
}

/// Program that takes every datagram from port 53 and passes all other frames.
fn receiver(words: i32) -> Vec<Instruction> {
    const HELPER_KTIME: i32 = 5;
    const ETHERTYPE: i16 = 12;
    const PROTOCOL: i16 = 23;
    const FLAGS: i16 = DNS as i16 + 2;
    const ANSWER_COUNT: i16 = DNS as i16 + 6;
    const IS_RESPONSE: i32 = 0x80;
    let word = |bytes: [u8; 2]| i32::from(u16::from_ne_bytes(bytes));
    let mut code = Assembler::new();
    let (pass, take, is_none) = (code.label(), code.label(), code.label());
    code.push(&[
        Instruction::load_u32(R6, R1, DATA),
        Instruction::load_u32(R1, R1, DATA_END),
        Instruction::copy(R2, R6),
        Instruction::add(R2, QNAME as i32),
    ]);
    code.jump(Instruction::skip_if_greater(R2, R1, 0), pass);
    for (load, wanted) in [
        (Instruction::load_u16(R1, R6, ETHERTYPE), word([0x08, 0x00])),
        (Instruction::load_u8(R1, R6, PROTOCOL), PROTOCOL_UDP.into()),
        (
            Instruction::load_u16(R1, R6, UDP as i16),
            word(DNS_PORT.to_be_bytes()),
        ),
    ] {
        code.push(&[load]);
        code.jump(Instruction::skip_if_other(R1, wanted, 0), pass);
    }
    code.push(&[Instruction::call(HELPER_KTIME), Instruction::copy(R8, R0)]);
    code.push(&Instruction::set_map_value(R7, words, 0));
    code.push(&more(word::REPLIES));
    code.push(&[
        Instruction::load_u8(R1, R6, FLAGS),
        Instruction::and(R1, IS_RESPONSE),
    ]);
    code.jump(Instruction::skip_if_equal(R1, 0, 0), is_none);
    code.push(&[Instruction::load_u16(R1, R6, ANSWER_COUNT)]);
    code.jump(Instruction::skip_if_other(R1, word([0, 1]), 0), is_none);
    code.push(&more(word::ANSWERS));
    code.place(is_none);
    take_time(&mut code, words, take);
    code.place(take);
    code.push(&[Instruction::set(R0, XDP_DROP), Instruction::exit()]);
    code.place(pass);
    code.push(&[Instruction::set(R0, XDP_PASS), Instruction::exit()]);
    code.finish()
}

/// Counts the reply at R6, received at R8, in its latency class; jumps to `no_time` if it has none.
fn take_time(code: &mut Assembler, words: i32, no_time: Label) {
    code.push(&[
        Instruction::load_u16(R1, R6, DNS as i16),
        Instruction::network_order_16(R1),
        Instruction::and(R1, NUMBERS as i32 - 1),
        Instruction::shift_left(R1, 3),
    ]);
    code.push(&Instruction::set_map_value(R2, words, byte(word::STAMPS)));
    code.push(&[
        Instruction::add_register(R2, R1),
        Instruction::load_u64(R3, R2, 0),
    ]);
    // The latency is already taken, or the query is from before the start.
    code.jump(Instruction::skip_if_equal(R3, 0, 0), no_time);
    code.push(&[
        Instruction::set(R1, 0),
        Instruction::store_u64(R2, 0, R1),
        Instruction::subtract(R8, R3),
        Instruction::shift_right(R8, CLASS_SHIFT),
    ]);
    let last = CLASSES as i32 - 1;
    code.push(&[
        Instruction::skip_if_at_most(R8, last, 1),
        Instruction::set(R8, last),
        Instruction::shift_left(R8, 3),
    ]);
    code.push(&Instruction::set_map_value(R2, words, byte(word::TIMES)));
    code.push(&[
        Instruction::add_register(R2, R8),
        Instruction::load_u64(R1, R2, 0),
        Instruction::add(R1, 1),
        Instruction::store_u64(R2, 0, R1),
    ]);
}

/// Increments a word; R7 points to the words.
fn more(word: usize) -> [Instruction; 3] {
    [
        Instruction::load_u64(R1, R7, place(word)),
        Instruction::add(R1, 1),
        Instruction::store_u64(R7, place(word), R1),
    ]
}

fn place(word: usize) -> i16 {
    byte(word) as i16
}

fn byte(word: usize) -> i32 {
    (word * size_of::<u64>()) as i32
}

#[cfg(test)]
impl Counted {
    /// Counts of a window in which the replies took these nanoseconds.
    pub fn of(secs: f64, sent: f64, answers: f64, nanos: &[u64]) -> Self {
        let mut times = vec![0; CLASSES];
        for nanos in nanos {
            let class = (nanos >> CLASS_SHIFT) as usize;
            times[class.min(CLASSES - 1)] += 1;
        }
        Self {
            secs,
            sent,
            replies: answers,
            answers,
            times,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{CLASS_SHIFT, Counted, FIRST_PORT, NAMES, NUMBERS, frame};
    use crate::bench::pair::ENDS;
    use crate::bench::query::{self, DNS, QNAME, UDP};
    use std::time::Duration;

    #[test]
    fn checksums_add_up_whatever_a_querys_number() {
        for number in 0..NUMBERS as u16 {
            let mut frame = frame();
            // The others are in between.
            let letter = number / 7 % NAMES as u16;
            let port = FIRST_PORT - number - letter;
            assert!(port > 0xbf00, "{port} is no port that is left alone");
            frame[UDP..UDP + 2].copy_from_slice(&port.to_be_bytes());
            frame[DNS..DNS + 2].copy_from_slice(&number.to_be_bytes());
            frame[QNAME + 1] += letter as u8;
            assert!(query::datagram_sum(&frame, &ENDS).adds_up(), "{number}");
        }
    }

    #[test]
    fn a_quantile_is_the_class_that_reaches_its_share() {
        let nanos: Vec<u64> = (1..=100).map(|number| number * 1000).collect();
        let counted = Counted::of(1.0, 100.0, 100.0, &nanos);
        let half = 1 << (CLASS_SHIFT - 1);
        let class = |nanos: u64| Duration::from_nanos((nanos >> CLASS_SHIFT << CLASS_SHIFT) + half);
        assert_eq!(counted.quantile(0.5), Some(class(50_000)));
        assert_eq!(counted.quantile(0.99), Some(class(99_000)));
        assert_eq!(counted.quantile(0.0), Some(class(1_000)));
        assert_eq!(Counted::of(1.0, 0.0, 0.0, &[]).quantile(0.5), None);
    }
}
