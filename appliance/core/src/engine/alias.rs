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

/// An answer that stands in a scratch buffer: behind header and question, its pointers counted from the header.
pub(super) struct Sections<'h> {
    pub head: &'h Head,
    /// The buffer.
    pub source: &'h [u8],
    /// Where its records are.
    pub body: Range<usize>,
}

impl Sections<'_> {
    /// Its records.
    pub(super) fn body(&self) -> &[u8] {
        self.source.get(self.body.clone()).unwrap_or_default()
    }
}

/// A local alias that a client asked for.
pub(super) struct Alias<'p> {
    pub name: &'p Name,
    pub qtype: u16,
    pub policy: &'p Policy<'p>,
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
    alias: &Alias<'_>,
    sections: &Sections<'_>,
    reply: &Reply,
) -> (usize, bool) {
    let question_end = HEADER_LEN + alias.name.as_wire().len() + 4;
    let head = sections.head;
    let has_nothing =
        sections.body.is_empty() && (head.rcode != rcode::NOERROR || reply.flags & flag::TC != 0);
    let written = if has_nothing {
        Ok((*head, question_end))
    } else {
        write(message, alias, sections, reply.ttl)
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
    alias: &Alias<'_>,
    sections: &Sections<'_>,
    ttl: Ttl,
) -> Result<(Head, usize), WriteError> {
    let labels = Labels::new(alias.name.as_wire()).ok_or(WriteError::Malformed)?;
    let question_end = HEADER_LEN + alias.name.as_wire().len() + 4;
    let mut writer = Writer::after_question(message, question_end);
    let mut head = Head {
        authentic_data: false,
        ..*sections.head
    };
    let mut written = Ok(());
    let end = alias.policy.resolve(&labels, alias.qtype, |owner, record| {
        if written.is_ok() {
            head.answers += 1;
            written = writer.record(owner, record.rtype, record.ttl_secs, record.rdata);
        }
    });
    written?;
    let target = sections.source.get(HEADER_LEN..).unwrap_or_default();
    if !matches!(end, End::Upstream(name) if target.starts_with(name)) {
        return Err(WriteError::Malformed);
    }
    let records = usize::from(sections.head.answers + sections.head.authorities);
    let source = sections.source.get(..sections.body.end);
    let source = source.ok_or(WriteError::Full)?;
    for record in Records::new(source, sections.body.start, records) {
        let record = record.map_err(|_| WriteError::Malformed)?;
        writer.copy_record(source, &record, ttl.of(record.ttl_secs))?;
    }
    Ok((head, writer.position()))
}
