//! Check of an answer from an untrusted file: every name and record is read like an upstream's.

use super::kept::Kept;
use crate::dns::name::{self, Name};
use crate::dns::record::{self, Layout, MalformedRdata, Record, Records};

/// True for a valid key name: one uncompressed name with nothing behind it, ASCII letters in lower case.
#[must_use]
pub fn is_key_name(name: &[u8]) -> bool {
    name::plain_end(name, 0) == Ok(name.len()) && !name.iter().any(u8::is_ascii_uppercase)
}

/// True if `body` consists of exactly `records` well-formed records: every owner name, and every name inside the RDATA of
/// types that have [some](Layout), stays within the bounds of name and message, and compression pointers go strictly
/// backwards and never into the header or between the question's name and the body.
///
/// `name` is the question's. Name and body together must fit a slot of the cache.
#[must_use]
pub fn body_is_well_formed(name: &[u8], records: usize, body: &[u8]) -> bool {
    let Some(kept) = Kept::new(name, body) else {
        return false;
    };
    let message = kept.message();
    let mut at = kept.body().start;
    for record in Records::new(message, at, records) {
        match record {
            Ok(record) if is_well_formed(message, &record) => at = record.end,
            Ok(_) | Err(_) => return false,
        }
    }
    at == message.len()
}

fn is_well_formed(message: &[u8], record: &Record) -> bool {
    let layout = Layout::of(record.rtype, &message[record.rdata()]);
    Name::parse(message, record.owner).is_ok()
        && record::read_names(message, record, &layout, |_| Ok::<_, MalformedRdata>(())).is_ok()
}

#[cfg(test)]
mod tests;
