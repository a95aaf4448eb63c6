//! Answers to a local alias whose target is outside of local data: local aliases first, then the target's answer.
//!
//! Cache and pending table know the target only. So all aliases of a name share one answer, and each client's alias is put
//! in front of it when the client is answered.

use crate::answer::{Answer, Head, Rendered, Reply, Ttl};
use crate::dns::build::{WriteError, Writer};
use crate::dns::header::{HEADER_LEN, flag};
use crate::dns::record::Records;
use crate::dns::{Name, QUESTION_FIXED_LEN, rcode};
use crate::policy::local::End;
use crate::policy::{Labels, Policy};
use core::ops::Range;

/// An answer in a message of its own, to which its compression pointers refer.
pub(super) struct AnswerMessage<'h> {
    pub head: &'h Head,
    /// Header and question, then the records.
    pub message: &'h [u8],
    /// Range of the records in `message`.
    pub body: Range<usize>,
}

impl<'h> AnswerMessage<'h> {
    /// An answer without records.
    pub(super) const fn bare(head: &'h Head) -> Self {
        Self {
            head,
            message: &[],
            body: 0..0,
        }
    }

    /// The answer without its message.
    pub(super) fn answer(&self) -> Answer<'h> {
        Answer {
            head: self.head,
            body: self.message.get(self.body.clone()).unwrap_or_default(),
        }
    }
}

/// A client's question for a local alias.
pub(super) struct AliasQuestion<'p> {
    pub name: &'p Name,
    pub qtype: u16,
    pub policy: &'p Policy<'p>,
}

/// Name at the end of the local aliases from `labels` on; `None` if local data answers by itself.
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

impl AliasQuestion<'_> {
    /// Completes `message`, which begins with the client's question, with the local aliases and the target's records. The
    /// reply is SERVFAIL if they cannot be written, or if the alias leads elsewhere by now.
    pub(super) fn render(
        &self,
        message: &mut [u8],
        target: &AnswerMessage<'_>,
        reply: &Reply,
    ) -> Rendered {
        let question_end = self.question_end();
        let head = target.head;
        let is_answer = matches!(head.rcode, rcode::NOERROR | rcode::NXDOMAIN);
        let has_nothing = target.body.is_empty() && (!is_answer || reply.flags & flag::TC != 0);
        let written = if has_nothing {
            Ok((*head, question_end))
        } else {
            self.write(message, target, reply.ttl)
        };
        let failed = Head {
            rcode: rcode::SERVFAIL,
            ..Head::EMPTY
        };
        let (head, end) = written.unwrap_or((failed, question_end));
        // The TTLs are already final.
        let reply = Reply {
            ttl: Ttl::Aged(0),
            ..*reply
        };
        reply.render_in_place(message, question_end, &head, end)
    }

    /// Writes the records behind the question. Returns the head of the answer and the end of its records.
    fn write(
        &self,
        message: &mut [u8],
        target: &AnswerMessage<'_>,
        ttl: Ttl,
    ) -> Result<(Head, usize), WriteError> {
        let labels = Labels::new(self.name.as_wire()).ok_or(WriteError::Malformed)?;
        let mut writer = Writer::after_question(message, self.question_end());
        let mut head = Head {
            authentic_data: false,
            ..*target.head
        };
        let mut written = Ok(());
        let end = self.policy.resolve(&labels, self.qtype, |owner, record| {
            if written.is_ok() {
                head.answers += 1;
                written = writer.record(owner, record.rtype, record.ttl_secs, record.rdata);
            }
        });
        written?;
        let name = target.message.get(HEADER_LEN..).unwrap_or_default();
        if !matches!(end, End::Upstream(alias_target) if name.starts_with(alias_target)) {
            return Err(WriteError::Malformed);
        }
        let records = usize::from(target.head.answers + target.head.authorities);
        let source = target.message.get(..target.body.end);
        let source = source.ok_or(WriteError::Full)?;
        for record in Records::new(source, target.body.start, records) {
            let record = record.map_err(|_| WriteError::Malformed)?;
            writer.copy_record(source, &record, ttl.of(record.ttl_secs))?;
        }
        Ok((head, writer.position()))
    }

    fn question_end(&self) -> usize {
        HEADER_LEN + self.name.as_wire().len() + QUESTION_FIXED_LEN
    }
}
