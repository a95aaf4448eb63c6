//! Encoding of an answer in words for the program in the kernel, see [`xdnsd_abi::hot`].

use super::render::{RotatedRun, rotated_run};
use crate::dns::edns::{OPT_LEN, OptReply};
use crate::dns::header::{HEADER_LEN, Header, flag};
use crate::dns::record::Records;
use crate::dns::{QUESTION_FIXED_LEN, class, name, rcode, read_u16};
use crate::time::Instant;
use core::ops::Range;
use xdnsd_abi::checksum::Sum;
use xdnsd_abi::headers::dns::opt::COOKIE_OPTION_LEN;
use xdnsd_abi::hot::{
    self, AnswerShape, AnswerWords, BODY_MAX, NAME_WORDS, RECORDS_MAX, Rotation, kind, word,
};

/// Properties of an answer that was just given from the cache and that the next client gets as well, as far as the reply
/// does not show them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fresh {
    /// Hash of its key.
    pub hash: u64,
    /// Time to which the TTLs in the reply belong.
    pub since: Instant,
    /// Time until which it is given without asking upstream.
    pub until: Instant,
    /// True if clients that understand AD get it.
    pub authentic_data: bool,
    /// True if the addresses of an RRset are rotated from reply to reply.
    pub rotates: bool,
}

/// Encodes the answer in `reply`, except for the words about its time and validity. `None` if the program in the kernel
/// cannot give it: it is too long, truncated, for this client alone, or
/// rotated in a way that the program cannot do.
#[must_use]
pub fn hot_words(reply: &[u8], fresh: &Fresh) -> Option<AnswerWords> {
    let header = Header::parse(reply)?;
    let [1, answers, authorities, additionals @ 0..=1] = header.counts else {
        return None;
    };
    let is_given = matches!(header.rcode(), rcode::NOERROR | rcode::NXDOMAIN);
    if !is_given || header.has(flag::TC) {
        return None;
    }
    let name_end = name::plain_end(reply, HEADER_LEN).ok()?;
    let question_end = name_end + QUESTION_FIXED_LEN;
    let [qtype, qclass] = [0, 2].map(|at| read_u16(reply, name_end + at));
    if qclass? != class::IN {
        return None;
    }
    let (edns, opt_len) = if additionals == 1 {
        opt_at_end(reply)?
    } else {
        (0, 0)
    };
    let body_end = reply.len() - opt_len;
    let mut body = [0; BODY_MAX];
    let body_len = body_end.checked_sub(question_end)?;
    let given = body.get_mut(..body_len)?;
    given.copy_from_slice(&reply[question_end..body_end]);
    let sum = Sum::new().add_bytes(given);
    let mut words: AnswerWords = [0; word::COUNT];
    words[word::KIND] =
        u64::from(qtype?) | edns | bit(header.has(flag::CD), kind::CHECKING_DISABLED);
    words[word::NAME..][..NAME_WORDS].copy_from_slice(&hot_name(&reply[HEADER_LEN..name_end])?);
    let records = Records::new(reply, question_end, usize::from(answers + authorities));
    words[word::TTLS] = ttls(records, question_end..body_end)?;
    let run = rotated_run(reply, question_end, answers);
    let rotation = match run.filter(|_| fresh.rotates) {
        Some(run) => repeat(&mut body, body_len, &run, question_end)?,
        None => Rotation::default(),
    };
    let shape = AnswerShape {
        flags: header.flags & (flag::AA | flag::RCODE_MASK)
            | if fresh.authentic_data { flag::AD } else { 0 },
        answers: answers as u8,
        authorities: authorities as u8,
        rotation,
        body_len: body_len as u8,
    };
    words[word::SHAPE] = shape.to_word();
    words[word::SUM] = sum.fold().to_be().into();
    fill(&mut words[word::BODY..], &body)?;
    Some(words)
}

/// Encodes a name in wire form; `None` if it is too long.
#[must_use]
pub fn hot_name(wire: &[u8]) -> Option<[u64; NAME_WORDS]> {
    let mut lower = [0; hot::NAME_MAX];
    let name = lower.get_mut(..wire.len())?;
    name.copy_from_slice(wire);
    name.make_ascii_lowercase();
    let mut words = [0; NAME_WORDS];
    fill(&mut words, &lower)?;
    Some(words)
}

/// Offsets of the TTLs from the start of `body`, which the records fill; `None` if there are too many records.
fn ttls(records: Records<'_>, body: Range<usize>) -> Option<u64> {
    let mut places = [0; RECORDS_MAX];
    let mut end = body.start;
    let mut count = 0;
    for record in records {
        let record = record.ok()?;
        *places.get_mut(count)? = u8::try_from(record.ttl_at - body.start).ok()?;
        (count, end) = (count + 1, record.end);
    }
    (end == body.end).then(|| u64::from_ne_bytes(places))
}

/// Writes all addresses of the run but the last again behind the body of `len` bytes, see [`Rotation`]. `None` if other records
/// follow on them, or if there is no room.
fn repeat(
    body: &mut [u8; BODY_MAX],
    len: usize,
    run: &RotatedRun,
    question_end: usize,
) -> Option<Rotation> {
    let start = run.records.start - question_end;
    let record_len = run.records.len() / run.count;
    let is_last = run.records.end - question_end == len;
    if !is_last || len + (run.count - 1) * record_len > BODY_MAX {
        return None;
    }
    body.copy_within(start..len - record_len, len);
    Some(Rotation {
        count: run.count as u8,
        record_len: record_len as u8,
        start: start as u8,
    })
}

/// Kind bits and length of our OPT record at the end of the reply; `None` if it has an option other than a cookie. The
/// cookie is no part of the answer: each client gets its own back.
fn opt_at_end(reply: &[u8]) -> Option<(u64, usize)> {
    let cookies = [None, reply.last_chunk().copied()];
    let ours = cookies.into_iter().flat_map(|cookie| {
        [false, true].map(|dnssec_ok| OptReply {
            dnssec_ok,
            cookie,
            ..OptReply::default()
        })
    });
    let mut bytes = [0; OPT_LEN + COOKIE_OPTION_LEN];
    let same = ours.into_iter().find(|ours| {
        let end = ours.emit(&mut bytes, 0);
        end.is_some_and(|end| reply.ends_with(&bytes[..end]))
    })?;
    let kind = kind::EDNS | bit(same.dnssec_ok, kind::DNSSEC_OK);
    Some((kind, same.len()))
}

const fn bit(set: bool, bit: u64) -> u64 {
    if set { bit } else { 0 }
}

/// Writes bytes into words in memory order, padded with zeros; `None` if there are too many.
fn fill(words: &mut [u64], bytes: &[u8]) -> Option<()> {
    if bytes.len() > size_of_val(words) {
        return None;
    }
    for (word, bytes) in words.iter_mut().zip(bytes.chunks(size_of::<u64>())) {
        let mut whole = [0; size_of::<u64>()];
        whole[..bytes.len()].copy_from_slice(bytes);
        *word = u64::from_ne_bytes(whole);
    }
    Some(())
}

const _: () = assert!(BODY_MAX <= u8::MAX as usize, "a place in it is a byte");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::{Answer, Head, Reply, Ttl};
    use crate::dns::build::Writer;
    use crate::dns::rtype;
    use std::vec::Vec;

    const NAME: &[u8] = b"\x03WwW\x07Example\0";
    const LOWER: &[u8] = b"\x03www\x07example\0";

    const FRESH: Fresh = Fresh {
        hash: 0,
        since: Instant::from_millis(0),
        until: Instant::from_millis(1),
        authentic_data: true,
        rotates: true,
    };

    /// A reply with records of these types, each with RDATA of this many bytes.
    fn reply(records: &[(u16, usize)], opt: Option<OptReply>, flags: u16) -> Vec<u8> {
        let mut message = std::vec![0; 1232];
        let mut writer = Writer::new(&mut message);
        writer.question(LOWER, rtype::A, class::IN).expect("fits");
        for &(rtype, len) in records {
            let rdata = std::vec![7; len];
            writer.record(LOWER, rtype, 300, &rdata).expect("fits");
        }
        let end = writer.position();
        let question_end = HEADER_LEN + NAME.len() + QUESTION_FIXED_LEN;
        let body = message[question_end..end].to_vec();
        message[HEADER_LEN..][..NAME.len()].copy_from_slice(NAME);
        let head = Head {
            answers: records.len() as u16,
            authoritative: true,
            ..Head::EMPTY
        };
        let reply = Reply {
            id: 7,
            flags,
            ttl: Ttl::Aged(10),
            limit: 1232,
            opt,
            rotate: 0,
        };
        let answer = Answer {
            head: &head,
            body: &body,
        };
        let rendered = reply.render(&mut message, question_end, &answer);
        message.truncate(rendered.len);
        message
    }

    #[test]
    fn an_answer_in_words() {
        let opt = Some(OptReply {
            dnssec_ok: true,
            ..OptReply::default()
        });
        let records = [(rtype::TXT, 2), (rtype::A, 4)];
        let message = reply(&records, opt, flag::RD | flag::CD);
        let words = hot_words(&message, &FRESH).expect("one for the kernel");
        let kinds = kind::EDNS | kind::DNSSEC_OK | kind::CHECKING_DISABLED;
        assert_eq!(words[word::KIND], u64::from(rtype::A) | kinds);
        assert_eq!(
            words[word::NAME..][..NAME_WORDS],
            hot_name(LOWER).expect("short")
        );
        let shape = AnswerShape::from_word(words[word::SHAPE]);
        assert_eq!((shape.answers, shape.authorities), (2, 0));
        assert_eq!(
            shape.flags,
            flag::AA | flag::AD,
            "what the answer has, not the client"
        );
        assert_eq!(words[word::TTLS].to_ne_bytes(), [6, 20, 0, 0, 0, 0, 0, 0]);
        let body: Vec<u8> = words[word::BODY..]
            .iter()
            .flat_map(|word| word.to_ne_bytes())
            .collect();
        let question_end = HEADER_LEN + NAME.len() + QUESTION_FIXED_LEN;
        let given = &message[question_end..message.len() - OPT_LEN];
        assert_eq!(&body[..usize::from(shape.body_len)], given);
        assert!(body[given.len()..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn what_is_not_for_the_kernel() {
        let is_hot = |message: &[u8]| hot_words(message, &FRESH).is_some();
        let plain = reply(&[(rtype::A, 4)], None, flag::RD);
        assert!(is_hot(&plain));
        for len in 0..plain.len() {
            assert!(!is_hot(&plain[..len]), "cut at {len}");
        }
        assert!(
            !is_hot(&[&plain[..], &[0]].concat()),
            "more than the records"
        );
        for (records, wanted) in [(RECORDS_MAX, true), (RECORDS_MAX + 1, false)] {
            let many = reply(&std::vec![(rtype::TXT, 1); records], None, 0);
            assert_eq!(is_hot(&many), wanted, "{records} records");
        }
        for (len, wanted) in [(BODY_MAX - 12, true), (BODY_MAX - 11, false)] {
            assert_eq!(
                is_hot(&reply(&[(rtype::TXT, len)], None, 0)),
                wanted,
                "{len} bytes"
            );
        }
        let with = |change: fn(&mut OptReply)| {
            let mut opt = OptReply::default();
            change(&mut opt);
            is_hot(&reply(&[(rtype::A, 4)], Some(opt), 0))
        };
        assert!(with(|_| {}));
        assert!(!with(|opt| opt.ede = Some(3)), "an extended error");
        assert!(!with(|opt| opt.keepalive = Some(3)));
        assert!(!with(|opt| opt.extended_rcode = 1));
        assert!(!is_hot(&reply(&[(rtype::A, 4)], None, flag::TC)));
        assert!(!is_hot(&reply(&[(rtype::A, 4)], None, 2)), "SERVFAIL");
        assert!(is_hot(&reply(&[(rtype::A, 4)], None, 3)), "NXDOMAIN");
    }

    /// The program rotates the same addresses as user space, if they are the last records and fit twice.
    #[test]
    fn addresses_rotate_as_in_user_space() {
        let fixed = Fresh {
            rotates: false,
            ..FRESH
        };
        let rotation = |records: &[(u16, usize)]| {
            let message = reply(records, None, 0);
            let words = hot_words(&message, &FRESH)?;
            let shape = AnswerShape::from_word(words[word::SHAPE]);
            let Rotation {
                count,
                record_len,
                start,
            } = shape.rotation;
            let body: Vec<u8> = words[word::BODY..]
                .iter()
                .flat_map(|word| word.to_ne_bytes())
                .collect();
            let len = usize::from(shape.body_len);
            let sum = Sum::new().add_bytes(&body[..len]).fold().to_be();
            assert_eq!(words[word::SUM], u64::from(sum));
            let again = usize::from(count.saturating_sub(1)) * usize::from(record_len);
            assert_eq!(body[len..][..again], body[usize::from(start)..][..again]);
            assert!(body[len + again..].iter().all(|byte| *byte == 0));
            let same = hot_words(&message, &fixed).expect("one for the kernel");
            let shape = AnswerShape::from_word(same[word::SHAPE]);
            assert_eq!(shape.rotation, Rotation::default(), "fixed");
            Some([count, record_len, start])
        };
        const A: (u16, usize) = (rtype::A, 4);
        const AAAA: (u16, usize) = (rtype::AAAA, 16);
        const TXT: (u16, usize) = (rtype::TXT, 3);
        assert_eq!(rotation(&[A]), Some([0; 3]), "one is always the first");
        assert_eq!(rotation(&[A, A]), Some([2, 16, 0]));
        assert_eq!(rotation(&[TXT, A, A, A]), Some([3, 16, 15]));
        assert_eq!(rotation(&[AAAA; 4]), Some([4, 28, 0]));
        assert_eq!(rotation(&[A, A, AAAA, AAAA]), Some([2, 28, 32]), "the last");
        assert_eq!(rotation(&[A, A, TXT]), None, "another one follows");
        assert_eq!(rotation(&[A, TXT, A]), Some([0; 3]), "each is alone");
        assert_eq!(rotation(&[A; 7]), Some([7, 16, 0]));
        assert_eq!(rotation(&[A; 8]), None, "too many to fit twice");
        assert_eq!(rotation(&[AAAA; 5]), None);
    }

    /// A query with a cookie makes a name hot as well, and each client gets its own cookie back.
    #[test]
    fn a_clients_cookie_is_no_part_of_the_answer() {
        for dnssec_ok in [false, true] {
            let with = |cookie| {
                let opt = OptReply {
                    dnssec_ok,
                    cookie,
                    ..OptReply::default()
                };
                let message = reply(&[(rtype::A, 4)], Some(opt), flag::RD);
                hot_words(&message, &FRESH).expect("one for the kernel")
            };
            assert_eq!(with(Some([7; 24])), with(None));
            assert_eq!(with(Some([0; 24])), with(None));
        }
    }

    #[test]
    fn a_name_longer_than_its_words_is_none() {
        let name = |len: usize| {
            let label = |len: usize| [&[len as u8][..], &std::vec![b'X'; len]].concat();
            [label(30), label(len - 33), std::vec![0]].concat()
        };
        assert!(hot_name(&name(hot::NAME_MAX)).is_some());
        assert!(hot_name(&name(hot::NAME_MAX + 1)).is_none());
    }
}
