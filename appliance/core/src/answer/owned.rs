//! The records of one name in an upstream's response.

use crate::dns::build::stands_at;
use crate::dns::header::HEADER_LEN;
use crate::dns::record::Record;
use crate::dns::{Name, class};

/// A pointer to the question's name.
const TO_QUESTION: [u8; 2] = [0xc0, HEADER_LEN as u8];

/// Records of one owner. The check runs several times for each record, so the usual case is fast: an owner that is QNAME is
/// written as a pointer to it.
#[derive(Clone, Copy)]
pub(super) struct Owned<'r> {
    response: &'r [u8],
    owner: &'r Name,
    is_asked: bool,
}

impl<'r> Owned<'r> {
    /// Records of `owner` in a response whose question, if it has one, was found to be for `asked`.
    pub(super) fn by(owner: &'r Name, response: &'r [u8], asked: &Name) -> Self {
        Self {
            response,
            owner,
            is_asked: owner == asked,
        }
    }

    /// True if `record` has this owner, class IN and type `wanted`.
    pub(super) fn has(&self, record: &Record, wanted: u16) -> bool {
        record.rtype == wanted && record.class == class::IN && self.stands_at(record.owner)
    }

    fn stands_at(&self, offset: usize) -> bool {
        let is_pointer = self.response.get(offset..offset + 2) == Some(&TO_QUESTION);
        is_pointer && self.is_asked || stands_at(self.response, offset, self.owner.as_wire())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    fn name(wire: &[u8]) -> Name {
        Name::from_wire(wire).expect("a name")
    }

    /// A response with one A record whose owner is written as `owner`.
    fn response(owner: &[u8]) -> std::vec::Vec<u8> {
        let mut response = vec![0; HEADER_LEN];
        response.extend(b"\x03WWW\x07example\0\0\x01\0\x01");
        response.extend(owner);
        response.extend([0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1]);
        response
    }

    #[test]
    fn a_pointer_to_the_question_is_the_name_in_question_and_no_other() {
        let (asked, other) = (name(b"\x03www\x07example\0"), name(b"\x07example\0"));
        let cases: [(&[u8], bool, bool); 4] = [
            (&[0xc0, 12], true, false),
            (&[0xc0, 16], false, true),
            (b"\x03wWw\x07EXAMPLE\0", true, false),
            (b"\x03ftp\xc0\x10", false, false),
        ];
        for (owner, is_asked, is_other) in cases {
            let response = response(owner);
            let at = HEADER_LEN + asked.as_wire().len() + 4;
            let record = Record::parse(&response, at).expect("a record");
            let of = |name| Owned::by(name, &response, &asked).has(&record, 1);
            assert_eq!((of(&asked), of(&other)), (is_asked, is_other), "{owner:?}");
            assert!(!Owned::by(&asked, &response, &asked).has(&record, 28));
            let of_chain = Owned::by(&asked, &response, &other);
            assert_eq!(of_chain.has(&record, 1), is_asked, "asked of another chain");
        }
    }
}
