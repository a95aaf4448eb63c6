//! Duplicate records of an RRset, which RFC 2181 section 5 forbids.

use crate::dns::Name;
use crate::dns::record::{Layout, Record};
use heapless::Vec;

/// Most distinct records of one RRset that are remembered. When full, later records are compared with these alone.
const REMEMBERED_MAX: usize = 128;
/// Most comparisons for one response: as many as one RRset takes that fills the memory. A response of 64 KiB with records
/// of many names could cause two hundred times as many; records behind the limit are kept unchecked.
pub(super) const COMPARISONS_MAX: u32 = (REMEMBERED_MAX * (REMEMBERED_MAX - 1) / 2) as u32;

/// Distinct records of one RRset.
pub(super) struct Distinct<'r> {
    response: &'r [u8],
    /// Start and end of their RDATA. A message has at most 65,535 bytes.
    rdata: Vec<(u16, u16), REMEMBERED_MAX>,
}

impl<'r> Distinct<'r> {
    /// For an RRset in `response`.
    pub(super) const fn of(response: &'r [u8]) -> Self {
        Self {
            response,
            rdata: Vec::new(),
        }
    }

    /// True if `record` is no duplicate. Each comparison takes one off `comparisons_left`; at 0 every record counts as new.
    pub(super) fn is_new(&mut self, record: &Record, comparisons_left: &mut u32) -> bool {
        let own = (record.rdata_at as u16, record.end as u16);
        let is_repeat = |&earlier: &(u16, u16)| {
            let Some(left) = comparisons_left.checked_sub(1) else {
                return false;
            };
            *comparisons_left = left;
            same_rdata(self.response, record.rtype, earlier, own)
        };
        if self.rdata.iter().any(is_repeat) {
            return false;
        }
        // When full, the record is not remembered.
        let _ = self.rdata.push(own);
        true
    }
}

/// True if the RDATA of two records of one type, given by start and end, is equal.
fn same_rdata(response: &[u8], rtype: u16, one: (u16, u16), other: (u16, u16)) -> bool {
    let bytes = |(at, end): (u16, u16)| &response[usize::from(at)..usize::from(end)];
    if bytes(one) == bytes(other) {
        return true;
    }
    // Equal names may differ in bytes: the second is written as a pointer to the first.
    let layout = Layout::of(rtype, bytes(one));
    if !layout.ends_with_one_name() {
        return false;
    }
    let head = |rdata| bytes(rdata).get(..layout.names_at());
    let name = |(at, _): (u16, u16)| {
        let name = Name::parse(response, usize::from(at) + layout.names_at());
        name.ok().map(|(name, _)| name)
    };
    // Unreadable records count as different here; copying refuses them.
    head(one) == head(other) && name(one).is_some_and(|one| Some(one) == name(other))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::{Expected, TtlBounds, sanitize};
    use crate::dns::build::Writer;
    use crate::dns::header::{Header, flag};
    use crate::dns::{class, rtype};
    use crate::time::Instant;
    use std::vec;
    use std::vec::Vec;

    /// A message with a record of type A for each number, and the positions of the records.
    fn addresses(numbers: impl Iterator<Item = u32>) -> (Vec<u8>, Vec<Record>) {
        let mut message = vec![0; 65_535];
        let mut writer = Writer::new(&mut message);
        let mut records = Vec::new();
        for number in numbers {
            let at = writer.position();
            writer
                .record(b"\0", rtype::A, 60, &number.to_be_bytes())
                .expect("it fits");
            records.push(at);
        }
        let records = records
            .iter()
            .map(|&at| Record::parse(&message, at).expect("a record"))
            .collect();
        (message, records)
    }

    #[test]
    fn an_rrset_of_different_records_is_compared_to_the_last_one() {
        let numbers = (0..REMEMBERED_MAX as u32).chain([127, 0]);
        let (message, records) = addresses(numbers);
        let (repeats, rest) = (
            records[REMEMBERED_MAX..].to_vec(),
            &records[..REMEMBERED_MAX],
        );
        let mut left = COMPARISONS_MAX + 1_000;
        let mut distinct = Distinct::of(&message);
        assert!(rest.iter().all(|record| distinct.is_new(record, &mut left)));
        assert_eq!(left, 1_000, "each with each, once");
        assert!(
            !repeats
                .iter()
                .any(|record| distinct.is_new(record, &mut left))
        );
    }

    /// As many different records as a message holds: the work does not grow with the square of their number.
    #[test]
    fn more_records_than_are_remembered_cost_no_more_each() {
        let (message, records) = addresses(0..4_000);
        let mut left = u32::MAX;
        let mut distinct = Distinct::of(&message);
        assert!(
            records
                .iter()
                .all(|record| distinct.is_new(record, &mut left))
        );
        assert!(u32::MAX - left <= 4_000 * 128, "{}", u32::MAX - left);
    }

    /// Two RRsets of one response, each with a duplicate of its first record. If the first RRset is long, no comparison is
    /// left for the second.
    #[test]
    fn the_comparisons_are_counted_over_the_whole_response() {
        let repeats_kept = |long: usize| {
            let mut response = vec![0; 65_535];
            let mut writer = Writer::new(&mut response);
            let qname = b"\x01q\x07example\0";
            writer
                .question(qname, rtype::A, class::IN)
                .expect("it fits");
            let mut records = 0;
            let mut alias = |number: usize| {
                // Two letters, so that all are different.
                let target = [2, b'a' + (number / 26) as u8, b'a' + (number % 26) as u8, 0];
                writer
                    .record(qname, rtype::CNAME, 60, &target)
                    .expect("it fits");
                records += 1;
            };
            (0..long).for_each(&mut alias);
            alias(0);
            for last in [1, 2, 1] {
                writer
                    .record(b"\x02aa\0", rtype::A, 60, &[192, 0, 2, last])
                    .expect("it fits");
                records += 1;
            }
            let end = writer.position();
            let header = Header {
                id: 1,
                flags: flag::QR,
                counts: [1, records, 0, 0],
            };
            header.emit(&mut response).expect("it fits");
            let name = Name::from_wire(qname).expect("a name");
            let expected = Expected {
                name: &name,
                qtype: rtype::A,
                dnssec_ok: false,
                sent: None,
                bounds: &TtlBounds {
                    min_secs: 0,
                    max_secs: 60,
                    negative_max_secs: 60,
                },
                original: None,
            };
            let mut scratch = vec![0; 65_535];
            let now = Instant::from_millis(0);
            let answer = sanitize(&response[..end], &expected, now, &mut scratch);
            usize::from(answer.expect("an answer").head.answers) - long - 2
        };
        assert_eq!(repeats_kept(10), 0, "both are left out");
        // 127 distinct ones take 8,001 comparisons, their duplicate takes one, and the addresses two.
        assert_eq!(repeats_kept(REMEMBERED_MAX - 1), 0);
        assert_eq!(
            repeats_kept(REMEMBERED_MAX),
            2,
            "nothing is left for either"
        );
    }
}
