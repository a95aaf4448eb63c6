//! Rendering: from a cached answer to the message that one client gets.

use super::{Answer, Head};
use crate::dns::edns::OptReply;
use crate::dns::header::{Header, flag};
use crate::dns::record::{FIXED_LEN, Record, Records};
use crate::dns::{read_u16, rtype};
use core::ops::Range;

/// TTLs of the records of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ttl {
    /// The stored TTLs, less this age in seconds.
    Aged(u32),
    /// This TTL in seconds for all records (stale answers, RFC 8767 section 4).
    Fixed(u32),
}

impl Ttl {
    /// TTL to write for a record that was stored with `stored_secs`.
    #[must_use]
    pub const fn of(self, stored_secs: u32) -> u32 {
        match self {
            Self::Aged(age_secs) => stored_secs.saturating_sub(age_secs),
            Self::Fixed(secs) => secs,
        }
    }
}

/// Properties of the reply to one client.
#[derive(Clone, Copy, Debug)]
pub struct Reply {
    /// ID of the query.
    pub id: u16,
    /// RD and CD of the query, and AD if the client may have it.
    pub flags: u16,
    /// TTLs of the records.
    pub ttl: Ttl,
    /// Longest message that the client may get, in bytes.
    pub limit: usize,
    /// OPT record, if and only if the query has one (RFC 6891 section 6.1.1).
    pub opt: Option<OptReply>,
    /// Number of places by which the addresses of an RRset are rotated; 0: not rotated.
    pub rotate: u16,
}

/// Result of rendering.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Rendered {
    /// Length of the message in bytes.
    pub len: usize,
    /// True if records were left out, so that TC is set.
    pub truncated: bool,
}

impl Reply {
    /// Completes `message`, whose first `question_end` bytes are room for the header and the client's own question: appends
    /// the answer's records and OPT, and writes the header.
    pub fn render(&self, message: &mut [u8], question_end: usize, answer: &Answer<'_>) -> Rendered {
        let cut = self.cut(question_end, answer, message.len());
        let end = question_end + cut.len;
        message[question_end..end].copy_from_slice(&answer.body[..cut.len]);
        self.finish(message, question_end, answer.head, &cut)
    }

    /// Like [`render`](Self::render), for records that stand behind the question already and end at `body_end`.
    pub fn render_in_place(
        &self,
        message: &mut [u8],
        question_end: usize,
        head: &Head,
        body_end: usize,
    ) -> Rendered {
        let body = &message[question_end..body_end];
        let cut = self.cut(question_end, &Answer { head, body }, message.len());
        self.finish(message, question_end, head, &cut)
    }

    /// The part of the answer that fits the reply, in a buffer of `room` bytes.
    fn cut(&self, question_end: usize, answer: &Answer<'_>, room: usize) -> Cut {
        let opt_len = self.opt.as_ref().map_or(0, OptReply::len);
        let limit = self.limit.min(room).saturating_sub(opt_len);
        let room = limit.saturating_sub(question_end);
        let counts = [answer.head.answers, answer.head.authorities];
        if answer.body.len() > room {
            return fit(answer.body, question_end, counts, room);
        }
        Cut {
            counts,
            len: answer.body.len(),
            truncated: false,
        }
    }

    /// Writes all that does not come from the cache: TTLs, order of addresses, OPT, header.
    fn finish(&self, message: &mut [u8], question_end: usize, head: &Head, cut: &Cut) -> Rendered {
        let counts = cut.counts;
        let mut end = question_end + cut.len;
        let addresses = write_ttls(message, question_end, counts, self.ttl);
        if self.rotate != 0 {
            rotate(message, &addresses, self.rotate);
        }
        if let Some(behind) = self.opt.as_ref().and_then(|opt| opt.emit(message, end)) {
            end = behind;
        }
        let opt_count = u16::from(self.opt.is_some());
        let header = Header {
            id: self.id,
            flags: flag::QR
                | flag::RA
                | self.flags
                | u16::from(head.rcode)
                | if head.authoritative { flag::AA } else { 0 }
                | if cut.truncated { flag::TC } else { 0 },
            counts: [1, counts[0], counts[1], opt_count],
        };
        header
            .emit(message)
            .expect("the question stands behind the header");
        Rendered {
            len: end,
            truncated: cut.truncated,
        }
    }
}

/// Part of an answer's records that a client gets.
struct Cut {
    counts: [u16; 2],
    len: usize,
    truncated: bool,
}

/// The records that fit into `room` bytes, cut between RRsets only (RFC 2181 section 9).
fn fit(body: &[u8], question_end: usize, counts: [u16; 2], room: usize) -> Cut {
    let mut cut = Cut {
        counts: [0; 2],
        len: 0,
        truncated: true,
    };
    for (section, count) in counts.into_iter().enumerate() {
        let mut left = count;
        while left > 0 {
            let rrset = rrset(body, question_end, cut.len, left);
            let Some((in_set, end)) = rrset.filter(|(_, end)| *end <= room) else {
                return cut;
            };
            cut.counts[section] += in_set;
            cut.len = end;
            left -= in_set;
        }
    }
    cut.truncated = false;
    cut
}

/// RRset at `at` of `body`, of at most `left` records: its number of records and its end.
fn rrset(body: &[u8], question_end: usize, at: usize, left: u16) -> Option<(u16, usize)> {
    let first = Record::parse(body, at).ok()?;
    let mut count = 1;
    let mut end = first.end;
    while count < left {
        let Ok(next) = Record::parse(body, end) else {
            break;
        };
        if next.rtype != first.rtype || !same_owner(body, question_end, &first, &next) {
            break;
        }
        count += 1;
        end = next.end;
    }
    Some((count, end))
}

/// True if two records of a body that we compressed have one owner: the later owner is then a pointer, to the target of the
/// first owner's pointer or to the first owner itself.
fn same_owner(body: &[u8], question_end: usize, first: &Record, next: &Record) -> bool {
    let pointer = |record: &Record| -> Option<usize> {
        let word = read_u16(body, record.owner)?;
        (word & 0xc000 == 0xc000).then_some(usize::from(word & 0x3fff))
    };
    match (pointer(first), pointer(next)) {
        (Some(one), Some(other)) => one == other,
        // A pointer counts from the message's first byte, an offset in the body from the question's end.
        (None, Some(other)) => other == question_end + first.owner,
        // The writer remembers a bounded number of names; later ones are written out in full.
        (None, None) => body[first.owner..first.ttl_at - 4] == body[next.owner..next.ttl_at - 4],
        (Some(_), None) => false,
    }
}

/// Rewrites the TTL of every record behind the question, and returns the addresses that may be rotated.
fn write_ttls(message: &mut [u8], question_end: usize, counts: [u16; 2], ttl: Ttl) -> AddressRun {
    let mut rewriter = TtlRewriter {
        message,
        at: question_end,
        ttl,
    };
    let [answers, authorities] = counts;
    let addresses = rewriter.section(answers);
    rewriter.section(authorities);
    addresses
}

/// Cursor over the records of a message.
struct TtlRewriter<'m> {
    message: &'m mut [u8],
    /// Offset of the next record.
    at: usize,
    ttl: Ttl,
}

impl TtlRewriter<'_> {
    #[inline(always)]
    fn section(&mut self, count: u16) -> AddressRun {
        let mut run = AddressRun::default();
        for _ in 0..count {
            match self.record(&mut run) {
                Some(end) => self.at = end,
                None => break,
            }
        }
        run
    }

    /// Rewrites the TTL of the next record, and notes whether it is an address. Returns its end; `None` if there is no
    /// record.
    #[inline(always)]
    fn record(&mut self, run: &mut AddressRun) -> Option<usize> {
        // The owner of nearly every record is a pointer, and then one bounds check covers all fields. That matters: this
        // runs for every record of every reply.
        let (at, len) = (self.at, self.message.len());
        let head = self.message.get_mut(at..);
        let head = head.and_then(<[u8]>::first_chunk_mut);
        if let Some(mut head) = head.and_then(PointerHead::of) {
            let end = at + POINTER_HEAD_LEN + head.rdata_len();
            if end > len {
                return None;
            }
            head.set_ttl(self.ttl.of(head.ttl_secs()));
            run.take(head.owner_and_type(), at..end);
            return Some(end);
        }
        let record = Record::parse(self.message, at).ok()?;
        let secs = self.ttl.of(record.ttl_secs);
        self.message[record.ttl_at..record.ttl_at + 4].copy_from_slice(&secs.to_be_bytes());
        run.interrupt();
        Some(record.end)
    }
}

/// Length of a record before its RDATA, if its owner is a pointer, in bytes.
const POINTER_HEAD_LEN: usize = 2 + FIXED_LEN;

/// Start of a record whose owner is a pointer.
///
/// ```text
///  0       2      4       6     10         12
///  | owner | TYPE | CLASS | TTL | RDLENGTH | RDATA ...
/// ```
struct PointerHead<'m>(&'m mut [u8; POINTER_HEAD_LEN]);

impl<'m> PointerHead<'m> {
    #[inline(always)]
    fn of(bytes: &'m mut [u8; POINTER_HEAD_LEN]) -> Option<Self> {
        (bytes[0] & 0xc0 == 0xc0).then_some(Self(bytes))
    }

    fn owner_and_type(&self) -> u32 {
        let [a, b, c, d, ..] = *self.0;
        u32::from_be_bytes([a, b, c, d])
    }

    fn ttl_secs(&self) -> u32 {
        let [.., a, b, c, d, _, _] = *self.0;
        u32::from_be_bytes([a, b, c, d])
    }

    fn set_ttl(&mut self, secs: u32) {
        let [.., a, b, c, d, _, _] = self.0;
        [*a, *b, *c, *d] = secs.to_be_bytes();
    }

    fn rdata_len(&self) -> usize {
        let [.., high, low] = *self.0;
        usize::from(u16::from_be_bytes([high, low]))
    }
}

/// Last RRset of addresses in the answer section whose owners are pointers. Its records have equal length and contain no
/// name that a pointer could refer to, so they can be rotated.
#[derive(Default)]
struct AddressRun {
    records: Range<usize>,
    count: usize,
    /// Owner and type of its records; 0, which no record with a pointer has, if the next record begins another run.
    owner_and_type: u32,
}

impl AddressRun {
    /// Takes in the next record of the section, whose owner is a pointer.
    #[inline(always)]
    fn take(&mut self, owner_and_type: u32, record: Range<usize>) {
        if self.owner_and_type == owner_and_type {
            self.records.end = record.end;
            self.count += 1;
        } else if matches!(owner_and_type as u16, rtype::A | rtype::AAAA) {
            *self = Self {
                records: record,
                count: 1,
                owner_and_type,
            };
        } else {
            self.interrupt();
        }
    }

    /// Ends the run: the next record is of another kind.
    const fn interrupt(&mut self) {
        self.owner_and_type = 0;
    }
}

/// Addresses that are rotated from reply to reply.
pub struct RotatedRun {
    /// Their place in the message: records of equal length, one behind the other.
    pub records: Range<usize>,
    /// Number of them: two or more.
    pub count: usize,
}

/// The addresses among the `answers` records behind the question that [`rotate`] rotates.
pub fn rotated_run(message: &[u8], question_end: usize, answers: u16) -> Option<RotatedRun> {
    let mut run = AddressRun::default();
    for record in Records::new(message, question_end, answers.into()) {
        let record = record.ok()?;
        match message.get(record.owner..)?.first_chunk() {
            Some(&[first @ 0xc0..=0xff, second, high, low]) => {
                let owner_and_type = u32::from_be_bytes([first, second, high, low]);
                run.take(owner_and_type, record.owner..record.end);
            }
            Some(_) | None => run.interrupt(),
        }
    }
    let AddressRun { records, count, .. } = run;
    (count > 1).then_some(RotatedRun { records, count })
}

/// Rotates the records of `run` by `by` places.
fn rotate(message: &mut [u8], run: &AddressRun, by: u16) {
    if run.count < 2 {
        return;
    }
    // All have equal length: addresses of one type behind pointers.
    let record_len = run.records.len() / run.count;
    message[run.records.clone()].rotate_left(usize::from(by) % run.count * record_len);
}

#[cfg(test)]
mod tests;
