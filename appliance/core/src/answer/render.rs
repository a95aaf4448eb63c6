//! From what the cache keeps to the message that one client gets.

use super::{Answer, Head};
use crate::dns::edns::OptReply;
use crate::dns::header::{Header, flag};
use crate::dns::record::Record;
use crate::dns::{read_u16, rtype};
use core::ops::Range;

/// Which TTL the records of a reply carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ttl {
    /// What they were stored with, less this age in seconds.
    Aged(u32),
    /// This, for all of them (stale answers, RFC 8767 section 4).
    Fixed(u32),
}

impl Ttl {
    /// The TTL to write for a record that was stored with `stored_secs`.
    #[must_use]
    pub const fn of(self, stored_secs: u32) -> u32 {
        match self {
            Self::Aged(age_secs) => stored_secs.saturating_sub(age_secs),
            Self::Fixed(secs) => secs,
        }
    }
}

/// What one client gets.
#[derive(Clone, Copy, Debug)]
pub struct Reply {
    /// The query's ID.
    pub id: u16,
    /// RD and CD as the query had them, and AD where the client may have it.
    pub flags: u16,
    /// How the TTLs are written.
    pub ttl: Ttl,
    /// The longest message that the client may get, in bytes.
    pub limit: usize,
    /// The OPT record, if and only if the query had one (RFC 6891 section 6.1.1).
    pub opt: Option<OptReply>,
    /// Whether addresses of one RRset change their order from reply to reply; the number says by how much.
    pub rotate: u16,
}

/// A message that was completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Rendered {
    /// Its length in bytes.
    pub len: usize,
    /// Whether records were left out, so that TC is set.
    pub truncated: bool,
}

impl Reply {
    /// Completes `message`, whose first `question_end` bytes end with the client's own question: appends the answer's
    /// records, OPT, and writes the header.
    pub fn render(&self, message: &mut [u8], question_end: usize, answer: &Answer<'_>) -> Rendered {
        let cut = self.cut(question_end, answer, message.len());
        let end = question_end + cut.len;
        message[question_end..end].copy_from_slice(&answer.body[..cut.len]);
        self.finish(message, question_end, answer.head, &cut)
    }

    /// As [`render`](Self::render), where the records stand behind the question already and end at `body_end`.
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

    /// What of the answer fits, where the buffer has `room` bytes.
    fn cut(&self, question_end: usize, answer: &Answer<'_>, room: usize) -> Cut {
        let opt_len = self.opt.map_or(0, |opt| opt.len());
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

    /// Writes what does not come from the cache: TTLs, the order of addresses, OPT, the header.
    fn finish(&self, message: &mut [u8], question_end: usize, head: &Head, cut: &Cut) -> Rendered {
        let counts = cut.counts;
        let mut end = question_end + cut.len;
        let addresses = write_ttls(message, question_end, counts, self.ttl);
        if self.rotate != 0 {
            rotate(message, &addresses, self.rotate);
        }
        if let Some(behind) = self.opt.and_then(|opt| opt.emit(message, end)) {
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

/// What of an answer's records a client gets.
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

/// The RRset at `at` of `body` (at most `left` records): how many records, and where it ends.
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

/// Whether two records of a body that we compressed ourselves have one owner: the later one is then a pointer, to what
/// the first one points to or to the first one itself.
fn same_owner(body: &[u8], question_end: usize, first: &Record, next: &Record) -> bool {
    let pointer = |record: &Record| -> Option<usize> {
        let word = read_u16(body, record.owner)?;
        (word & 0xc000 == 0xc000).then_some(usize::from(word & 0x3fff))
    };
    match (pointer(first), pointer(next)) {
        (Some(one), Some(other)) => one == other,
        // A pointer counts from the message's first byte, a place in the body from the question's end.
        (None, Some(other)) => other == question_end + first.owner,
        // The writer remembers a bounded number of names: behind those, both are written out.
        (None, None) => body[first.owner..first.ttl_at - 4] == body[next.owner..next.ttl_at - 4],
        (Some(_), None) => false,
    }
}

/// Rewrites the TTL of every record behind the question, and finds the addresses that may be rotated on the way.
fn write_ttls(message: &mut [u8], question_end: usize, counts: [u16; 2], ttl: Ttl) -> AddressRun {
    let mut run = AddressRun::default();
    let mut at = question_end;
    for (section, count) in counts.into_iter().enumerate() {
        for _ in 0..count {
            let Ok(record) = Record::parse(message, at) else {
                return run;
            };
            let secs = ttl.of(record.ttl_secs);
            message[record.ttl_at..record.ttl_at + 4].copy_from_slice(&secs.to_be_bytes());
            at = record.end;
            if section == 0 {
                run.take(message, &record);
            }
        }
    }
    run
}

/// The last RRset of the answer section whose records are equally long and hold no name that can be the target of a
/// pointer: addresses, with a pointer as owner.
#[derive(Default)]
struct AddressRun {
    records: Range<usize>,
    count: usize,
    rtype: u16,
    owner: [u8; 2],
}

impl AddressRun {
    /// Goes on with the next record of the section.
    fn take(&mut self, message: &[u8], record: &Record) {
        let owner = [message[record.owner], message[record.owner + 1]];
        let has_pointer = record.ttl_at - record.owner == 6 && owner[0] & 0xc0 == 0xc0;
        if !has_pointer || !matches!(record.rtype, rtype::A | rtype::AAAA) {
            // What comes behind is another run.
            self.rtype = 0;
            return;
        }
        if self.rtype == record.rtype && self.owner == owner {
            self.records.end = record.end;
            self.count += 1;
        } else {
            *self = Self {
                records: record.owner..record.end,
                count: 1,
                rtype: record.rtype,
                owner,
            };
        }
    }
}

/// Rotates the records of `run` by `by` records.
fn rotate(message: &mut [u8], run: &AddressRun, by: u16) {
    if run.count < 2 {
        return;
    }
    let record_len = run.records.len() / run.count;
    message[run.records.clone()].rotate_left(usize::from(by) % run.count * record_len);
}
