//! Answers to a local alias whose target is not local data: the alias is answered from here, its target from elsewhere.
//!
//! Cache and table know the target only. So everyone who asks for it shares one answer, by whatever name, and the alias
//! is put in front of it when a client is answered.

use crate::answer::{Head, Reply, Ttl, render_in_place};
use crate::dns::build::{WriteError, Writer};
use crate::dns::header::{HEADER_LEN, flag};
use crate::dns::record::Records;
use crate::dns::{Name, rcode};
use crate::policy::local::End;
use crate::policy::{Labels, Policy};
use core::ops::Range;

/// An answer that stands in a template: behind header and question, its pointers counted from the header.
pub(super) struct Shelf<'h> {
    pub head: &'h Head,
    pub body: Range<usize>,
}

/// The name to which the local aliases at `labels` lead, where that is none of local data.
pub(super) fn leads_to<'q>(
    policy: &Policy<'q>,
    labels: &Labels<'q>,
    qtype: u16,
) -> Option<Labels<'q>> {
    match policy.resolve(labels, qtype, |_, _| {}) {
        End::Upstream(target) => Labels::new(target),
        End::Records | End::Nodata(_) | End::Nxdomain(_) | End::Endless => None,
    }
}

/// Completes `message`, which begins with the question of a client for the alias: the aliases, then what the target has.
/// SERVFAIL where that cannot be written, or where the alias leads elsewhere by now.
pub(super) fn render_alias(
    message: &mut [u8],
    (alias, qtype): (&Name, u16),
    policy: &Policy<'_>,
    template: &[u8],
    shelf: &Shelf<'_>,
    reply: &Reply,
) -> (usize, bool) {
    let question_end = HEADER_LEN + alias.as_wire().len() + 4;
    let has_nothing = shelf.body.is_empty()
        && (shelf.head.rcode != rcode::NOERROR || reply.flags & flag::TC != 0);
    let written = if has_nothing {
        Ok((*shelf.head, question_end))
    } else {
        write(message, (alias, qtype), policy, template, shelf, reply.ttl)
    };
    let failed = Head {
        rcode: rcode::SERVFAIL,
        ..Head::EMPTY
    };
    let (head, end) = written.unwrap_or((failed, question_end));
    // The TTLs are as they should be.
    let reply = Reply {
        ttl: Ttl::Aged(0),
        ..*reply
    };
    render_in_place(message, question_end, &head, end, &reply)
}

fn write(
    message: &mut [u8],
    (alias, qtype): (&Name, u16),
    policy: &Policy<'_>,
    template: &[u8],
    shelf: &Shelf<'_>,
    ttl: Ttl,
) -> Result<(Head, usize), WriteError> {
    let labels = Labels::new(alias.as_wire()).ok_or(WriteError::Malformed)?;
    let mut writer = Writer::after_question(message, HEADER_LEN + alias.as_wire().len() + 4);
    let mut head = Head {
        authentic_data: false,
        ..*shelf.head
    };
    let mut written = Ok(());
    let end = policy.resolve(&labels, qtype, |owner, record| {
        if written.is_ok() {
            head.answers += 1;
            written = writer.record(owner, record.rtype, record.ttl_secs, record.rdata);
        }
    });
    written?;
    let target = template.get(HEADER_LEN..).unwrap_or_default();
    if !matches!(end, End::Upstream(name) if target.starts_with(name)) {
        return Err(WriteError::Malformed);
    }
    let records = usize::from(shelf.head.answers + shelf.head.authorities);
    let source = template.get(..shelf.body.end).ok_or(WriteError::Full)?;
    for record in Records::new(source, shelf.body.start, records) {
        let record = record.map_err(|_| WriteError::Malformed)?;
        writer.copy_record(source, &record, ttl.of(record.ttl_secs))?;
    }
    Ok((head, writer.position()))
}
