use super::*;
use std::cell::{Cell, RefCell};
use xdnsd_abi::checksum::{Sum, pseudo_header};
use xdnsd_abi::hot::{AnswerShape, Rotation, control, kind};

/// A query from 192.0.2.1, port 40000, to 192.0.2.53 for "wWw.ab", A, with RD.
const QUERY: [u8; 66] = [
    0x02, 0x00, 0x00, 0x00, 0x00, 0x01, 0x02, 0x00, 0x00, 0x00, 0x00, 0x02, 0x08, 0x00, 0x45, 0x00,
    0x00, 0x34, 0x12, 0x34, 0x40, 0x00, 0x40, 0x11, 0xa4, 0x4e, 0xc0, 0x00, 0x02, 0x01, 0xc0, 0x00,
    0x02, 0x35, 0x9c, 0x40, 0x00, 0x35, 0x00, 0x20, 0x5f, 0xbf, 0xbe, 0xef, 0x01, 0x00, 0x00, 0x01,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x03, 0x77, 0x57, 0x77, 0x02, 0x61, 0x62, 0x00, 0x00, 0x01,
    0x00, 0x01,
];
const BODY: [u8; 16] = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 100, 0, 4, 192, 0, 2, 80];
const KEY: u64 = 77;
const VALID: u64 = 1 << 32 | 2;
const NOW: u64 = 50 * NANOS_PER_SEC;
const NUMBER: u32 = 9;

/// A kernel with fixed answers.
struct FakeKernel {
    frame: RefCell<Vec<u8>>,
    words: AnswerWords,
    hash: u64,
    valid: u64,
    client: Cell<u64>,
    has_room: bool,
    hits: Cell<u32>,
}

impl HotKernel for FakeKernel {
    fn frame(&self) -> Cursor<'_> {
        let range = self.frame.borrow().as_ptr_range();
        // SAFETY: the range of a live vector, which grows only when nobody looks at it any more.
        unsafe { Cursor::new(range.start, range.end) }
    }
    fn frame_len(&self) -> usize {
        self.frame.borrow().len()
    }
    fn opaque(&self, place: &u64) -> u64 {
        *place
    }
    fn again(&self, number: u64) -> u64 {
        number
    }
    fn control(&self, index: u32) -> u64 {
        match index {
            control::KEY => KEY,
            control::VALID => self.valid,
            _ => 0,
        }
    }
    fn is_silent(&self, port: u16) -> bool {
        port == 7
    }
    fn index(&self, place: u32) -> u64 {
        if place == hot::place(self.hash) {
            hot::entry(self.hash, NUMBER as u16)
        } else {
            0
        }
    }
    fn answer(&self, number: u32) -> Option<&AnswerWords> {
        (number == NUMBER).then_some(&self.words)
    }
    fn hits(&self, number: u32) -> u64 {
        assert_eq!(number, NUMBER);
        self.hits.get().into()
    }
    fn hit(&self, number: u32) {
        assert_eq!(number, NUMBER);
        self.hits.set(self.hits.get() + 1);
    }
    fn client(&self, place: u32) -> u64 {
        let entry = self.client.get();
        if place == hot::client_place(entry) {
            entry
        } else {
            0
        }
    }
    fn set_client(&self, place: u32, entry: u64) {
        assert_eq!(place, hot::client_place(entry));
        self.client.set(entry);
    }
    fn now(&self) -> u64 {
        NOW
    }
    fn grow(&self, more: i32) -> Option<()> {
        self.has_room.then(|| {
            let mut frame = self.frame.borrow_mut();
            let len = frame
                .len()
                .checked_add_signed(more as isize)
                .expect("a length");
            // At its head: the old bytes move back.
            *frame = [vec![0xa5; len.saturating_sub(frame.len())], frame.clone()].concat();
            frame.truncate(len);
        })
    }
    fn frame_mut(&self) -> CursorMut<'_> {
        let range = self.frame.borrow_mut().as_mut_ptr_range();
        // SAFETY: the range of a live vector, which nobody else looks at meanwhile.
        unsafe { CursorMut::new(range.start, range.end) }
    }
}

/// Of no record.
const EMPTY: AnswerShape = AnswerShape {
    flags: 0,
    answers: 0,
    authorities: 0,
    rotation: Rotation {
        count: 0,
        record_len: 0,
        start: 0,
    },
    body_len: 0,
};

/// Gives the answer this body, and what stands behind it.
fn set_body(words: &mut AnswerWords, shape: AnswerShape, body: &[u8], behind: &[u8]) {
    let shape = AnswerShape {
        body_len: body.len() as u8,
        ..shape
    };
    words[word::SHAPE] = shape.to_word();
    words[word::SUM] = Sum::new().add_bytes(body).fold().to_be().into();
    let mut whole = [0; BODY_MAX];
    let all = [body, behind].concat();
    whole[..all.len()].copy_from_slice(&all);
    let (wholes, _) = whole.as_chunks();
    for (word, bytes) in words[word::BODY..].iter_mut().zip(wholes) {
        *word = u64::from_ne_bytes(*bytes);
    }
}

/// With the answer to the query, and its client.
fn told(frame: &[u8]) -> FakeKernel {
    let mut words: AnswerWords = [0; word::COUNT];
    words[word::KIND] = 1;
    words[word::NAME] = u64::from_ne_bytes(*b"\x03www\x02ab\0");
    words[word::OVER] = NOW + 1;
    words[word::SINCE] = NOW - 30 * NANOS_PER_SEC;
    words[word::VALID] = VALID;
    words[word::TTLS] = u64::from_ne_bytes([6, 0, 0, 0, 0, 0, 0, 0]);
    let shape = AnswerShape {
        flags: dns::AD,
        answers: 1,
        ..EMPTY
    };
    set_body(&mut words, shape, &BODY, &[]);
    let mut name = [0; NAME_WORDS];
    name.copy_from_slice(&words[word::NAME..word::OVER]);
    let Address(high, low) = Address::mapped(u32::from_ne_bytes([192, 0, 2, 1]));
    FakeKernel {
        frame: RefCell::new(frame.to_vec()),
        hash: hot::hash(KEY, words[word::KIND], &name),
        words,
        valid: VALID,
        client: Cell::new(hot::client(KEY, VALID, [high, low])),
        has_room: true,
        hits: Cell::new(0),
    }
}

/// A scratch as the previous query has left it.
fn scratch() -> HotScratch {
    let range = QUERY.as_ptr_range();
    // SAFETY: the range of a constant.
    let frame = unsafe { Cursor::new(range.start, range.end) };
    let Ok(Frame::Udp(flow)) = Frame::parse(frame) else {
        panic!("a query");
    };
    let envelope = Envelope::of(frame, &flow).expect("it is long enough");
    HotScratch {
        name: [0xa5a5_a5a5_a5a5_a5a5; NAME_WORDS],
        padding: 0,
        message: [0xa5; size_of::<AnswerBuffer>()],
        cookie: [0xa5; opt::COOKIE_OPTION_LEN],
        name_len: 1_000,
        is_newcomer: 1_000,
        opt_len: 1_000,
        query_len: 1_000,
        sum: u64::MAX,
        opt_sum: u64::MAX,
        envelope,
    }
}

#[test]
fn the_answer_stands_behind_the_clients_own_question() {
    let kernel = told(&QUERY);
    assert_eq!(answer(&kernel, &mut scratch()), Ok(()));
    let frame = kernel.frame.borrow();
    assert_eq!(frame.len(), QUERY.len() + BODY.len());
    assert_eq!(frame[..6], QUERY[6..12]);
    assert_eq!(frame[6..12], QUERY[..6]);
    assert_eq!(frame[14..24], [0x45, 0, 0, 68, 0, 0, 0x40, 0, 64, 17]);
    assert_eq!(frame[26..30], QUERY[30..34]);
    assert_eq!(frame[30..34], QUERY[26..30]);
    assert_eq!(frame[34..40], [0, 0x35, 0x9c, 0x40, 0, 48]);
    assert_eq!(datagram_sum(&frame), 0xffff);
    // ID, response with RD and RA, one question, one answer.
    assert_eq!(
        frame[42..54],
        [0xbe, 0xef, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]
    );
    assert_eq!(frame[54..66], QUERY[54..66], "letter case");
    let mut body = BODY;
    body[9] = 70;
    assert_eq!(frame[66..], body, "30 seconds later");
    assert_eq!(kernel.hits.get(), 1);
}

/// The frame is written only when all is decided.
#[test]
fn without_room_the_frame_is_as_it_was() {
    let kernel = FakeKernel {
        has_room: false,
        ..told(&QUERY)
    };
    assert_eq!(answer(&kernel, &mut scratch()), Err(HotOutcome::NoRoom));
    assert_eq!(*kernel.frame.borrow(), QUERY);
    assert_eq!(kernel.hits.get(), 0);
}

/// The scratch has bytes of earlier, longer messages, which are no part of this one.
#[test]
fn what_the_last_query_left_is_not_read() {
    let len = QUERY.len() - 42;
    for missing in 1..=len {
        let mut frame = QUERY[..QUERY.len() - missing].to_vec();
        frame[38..40].copy_from_slice(&((8 + len - missing) as u16).to_be_bytes());
        let mut scratch = scratch();
        scratch.message[..len].copy_from_slice(&QUERY[42..]);
        let kernel = told(&frame);
        assert_eq!(
            answer(&kernel, &mut scratch),
            Err(HotOutcome::NotPlain),
            "{missing}"
        );
        assert_eq!(*kernel.frame.borrow(), frame);
    }
}

#[test]
fn every_word_of_the_question_counts() {
    // The name with its end is one word.
    for at in [word::KIND, word::NAME] {
        let mut kernel = told(&QUERY);
        kernel.words[at] ^= if at == word::KIND {
            kind::EDNS
        } else {
            1 << 63
        };
        assert_eq!(
            answer(&kernel, &mut scratch()),
            Err(HotOutcome::Unknown),
            "word {at}"
        );
    }
}

/// The query with this name in place of its own.
fn query_for(name: &[u8]) -> Vec<u8> {
    let mut frame = [&QUERY[..54], name, &QUERY[62..]].concat();
    set_lengths(&mut frame);
    frame
}

/// Of the whole frame, and the checksum.
fn set_lengths(frame: &mut [u8]) {
    for (at, from) in [(16, 14), (38, 34)] {
        let len = (frame.len() - from) as u16;
        frame[at..at + 2].copy_from_slice(&len.to_be_bytes());
    }
    frame[40..42].fill(0);
    let checksum = !datagram_sum(frame);
    frame[40..42].copy_from_slice(&checksum.to_be_bytes());
}

/// Of the datagram with its pseudo-header.
fn datagram_sum(frame: &[u8]) -> u16 {
    let (source, destination) = (&frame[26..30], &frame[30..34]);
    let len = (frame.len() - 34) as u16;
    pseudo_header(source, destination, len)
        .add_bytes(&frame[34..])
        .fold()
}

/// A name of so many bytes, one of two that there is none of.
fn name_of(len: usize) -> Vec<u8> {
    let label = |letter: u8, len: usize| [vec![len as u8], vec![letter; len]].concat();
    match len {
        1 => vec![0],
        ..34 => [label(b'x', len - 2), vec![0]].concat(),
        _ => [label(b'x', 30), label(b'Y', len - 33), vec![0]].concat(),
    }
}

/// Names, records and ages of all lengths, with and without OPT, that of the client another one than ours: every part of the answer
/// begins at an odd place once, and at an even one.
#[test]
fn the_checksum_adds_up_wherever_the_parts_begin() {
    let opts: [&[u8]; 3] = [
        &[],
        &[0, 0, 41, 0x10, 0x01, 0, 0, 0, 0, 0, 0],
        &[0, 0, 41, 0xff, 0xff, 0, 0, 0x80, 0, 0, 0],
    ];
    for name_len in [1].into_iter().chain(3..=NAME_MAX) {
        for opt in opts {
            for extra in 0..4 {
                check_sum_of(&name_of(name_len), opt, extra);
            }
        }
    }
}

/// At whatever place, and however much its cookie adds: it can be taken away from the whole.
#[test]
fn an_options_sum_is_that_of_its_bytes() {
    let record = [0, 0, 41, 0xff, 0xff, 0, 0, 0x80, 0, 0, 28];
    for byte in [0, 1, 0x5a, 0xff] {
        for (place, len) in [(0, OPT_MAX), (1, OPT_MAX), (2, opt::LEN), (3, opt::LEN)] {
            let mut scratch = scratch();
            scratch.cookie = [byte; opt::COOKIE_OPTION_LEN];
            scratch.opt_len = len as u64;
            let bytes = [&vec![0; place][..], &record, &scratch.cookie].concat();
            let wanted = Sum::new().add_bytes(&bytes[..place + len]).fold().to_be();
            let sum = sum::of_opt(&scratch, place, &record);
            assert_eq!(sum % 0xffff, u64::from(wanted) % 0xffff, "{place} {byte}");
            assert_eq!((sum::less(sum) + sum) % 0xffff, 0, "{place} {byte}");
        }
    }
}

/// A body with `extra` bytes on both sides of the record, and of an answer that says all that there is.
fn check_sum_of(name: &[u8], opt: &[u8], extra: usize) {
    let mut frame = [&query_for(name)[..], opt].concat();
    frame[45] |= 0x10;
    frame[53] = u8::from(!opt.is_empty());
    set_lengths(&mut frame);
    let mut kernel = told(&frame);
    let kind = match opt {
        [] => 1,
        [_, _, _, _, _, _, _, 0, ..] => 1 | kind::EDNS,
        _ => 1 | kind::EDNS | kind::DNSSEC_OK,
    };
    let kind = kind | kind::CHECKING_DISABLED;
    let lower = name.to_ascii_lowercase();
    kernel.words[word::KIND] = kind;
    kernel.words[word::NAME..word::OVER].copy_from_slice(&name_words(&lower));
    kernel.hash = hot::hash(KEY, kind, &name_words(&lower));
    kernel.words[word::TTLS] = u64::from_ne_bytes([extra as u8 + 6, 0, 0, 0, 0, 0, 0, 0]);
    let shape = AnswerShape {
        flags: dns::AD | 3,
        answers: 7,
        authorities: 9,
        ..EMPTY
    };
    let body = [&vec![0xd7; extra][..], &BODY, &vec![0xe1; extra]].concat();
    set_body(&mut kernel.words, shape, &body, b"");
    assert_eq!(answer(&kernel, &mut scratch()), Ok(()), "{name:?} {opt:?}");
    let frame = kernel.frame.borrow();
    assert_eq!(datagram_sum(&frame), 0xffff, "{name:?} {opt:?} {extra}");
    assert_ne!(frame[40..42], [0, 0]);
}

/// Its sender has computed none, or a part of one, so nothing says what its message adds up to. Who is new is told from who is known
/// all the same.
#[test]
fn a_query_without_a_whole_checksum_is_user_spaces() {
    let mut none = QUERY;
    none[40..42].fill(0);
    let mut partial = QUERY;
    let sum = pseudo_header(&QUERY[26..30], &QUERY[30..34], (QUERY.len() - 34) as u16);
    partial[40..42].copy_from_slice(&sum.fold().to_be_bytes());
    for (frame, is_known) in [
        (none, true),
        (none, false),
        (partial, true),
        (partial, false),
    ] {
        let (kernel, mut scratch) = (told(&frame), scratch());
        let known = kernel.client.get();
        kernel.client.set(if is_known { known } else { known ^ 1 });
        assert_eq!(answer(&kernel, &mut scratch), Err(HotOutcome::NotPlain));
        assert_eq!(is_newcomer(&kernel, &scratch), !is_known);
        assert_eq!(*kernel.frame.borrow(), frame);
    }
}

/// Each client gets all addresses, the next one first, and what stands in front of them.
#[test]
fn addresses_rotate_from_answer_to_answer() {
    const ALIAS: [u8; 14] = [0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 40, 0, 2, 0xc0, 16];
    for record_len in [16, 28] {
        let address = |number: u8| {
            let mut record = BODY[..12].to_vec();
            record.resize(record_len, number);
            record
        };
        let body = [&ALIAS[..], &address(1), &address(2), &address(3)].concat();
        let behind = [address(1), address(2)].concat();
        let mut kernel = told(&query_for(b"\x03www\x02ab\0"));
        let rotation = Rotation {
            count: 3,
            record_len: record_len as u8,
            start: ALIAS.len() as u8,
        };
        let shape = AnswerShape {
            answers: 4,
            rotation,
            ..EMPTY
        };
        set_body(&mut kernel.words, shape, &body, &behind);
        let places = [0, 1, 2].map(|number| (ALIAS.len() + number * record_len + 6) as u8);
        let [first, second, third] = places;
        kernel.words[word::TTLS] = u64::from_ne_bytes([6, first, second, third, 0, 0, 0, 0]);
        for turn in 0..7_u32 {
            kernel.hits.set(turn);
            *kernel.frame.borrow_mut() = query_for(b"\x03www\x02ab\0");
            assert_eq!(answer(&kernel, &mut scratch()), Ok(()));
            let frame = kernel.frame.borrow();
            assert_eq!(datagram_sum(&frame), 0xffff, "turn {turn}");
            let (alias, addresses) = frame[66..].split_at(ALIAS.len());
            assert_eq!(alias, [&ALIAS[..6], &[0, 0, 0, 10], &ALIAS[10..]].concat());
            let next = |step: u32| {
                let mut record = address(1 + ((turn + step) % 3) as u8);
                record[9] = 70;
                record
            };
            assert_eq!(
                addresses,
                [next(0), next(1), next(2)].concat(),
                "turn {turn}"
            );
        }
        // What cannot be is not written.
        let long = AnswerShape {
            rotation: Rotation {
                count: 15,
                ..rotation
            },
            ..AnswerShape::from_word(kernel.words[word::SHAPE])
        };
        kernel.words[word::SHAPE] = long.to_word();
        *kernel.frame.borrow_mut() = query_for(b"\x03www\x02ab\0");
        assert_eq!(answer(&kernel, &mut scratch()), Err(HotOutcome::Unknown));
    }
}

/// A name in the form of an answer.
fn name_words(name: &[u8]) -> [u64; NAME_WORDS] {
    let mut whole = [0; NAME_MAX];
    whole[..name.len()].copy_from_slice(name);
    let (words, _) = whole.as_chunks();
    core::array::from_fn(|at| u64::from_ne_bytes(words[at]))
}

/// A kernel whose index leads from the question for `asked` to the answer for `has`, as if both had one hash.
fn leads(asked: &[u8], has: &[u8]) -> FakeKernel {
    let mut kernel = told(&query_for(asked));
    kernel.hash = hot::hash(KEY, 1, &name_words(asked));
    kernel.words[word::NAME..word::OVER].copy_from_slice(&name_words(has));
    kernel
}

/// The name is compared to its end, with its labels, whatever the hash.
#[test]
fn a_name_is_answered_with_its_own_answer_alone() {
    let long = |last: &[u8]| [&b"\x1eabcdefghijklmnopqrstuvwxyz0123\x1f"[..], last].concat();
    let names: [&[u8]; 12] = [
        b"\0",
        b"\x07example\0",
        b"\x07example\x03com\0",
        b"\x07example\x03con\0",
        b"\x0bexample\x03com\0",
        b"\x0bexample.com\0",
        b"\x06exampl\0",
        b"\x06exampl\x01e\0",
        b"\x03www\x02ab\0",
        b"\x03www\x03ab\0\0",
        &long(b"abcdefghijklmnopqrstuvwxyz01234\0"),
        &long(b"abcdefghijklmnopqrstuvwxyz01235\0"),
    ];
    assert_eq!(names[10].len(), NAME_MAX, "the longest");
    for asked in names {
        for has in names {
            let kernel = leads(asked, has);
            let given = answer(&kernel, &mut scratch());
            let wanted = if asked == has {
                Ok(())
            } else {
                Err(HotOutcome::Unknown)
            };
            assert_eq!(given, wanted, "{asked:?} {has:?}");
        }
    }
    for at in 0..NAME_WORDS {
        let mut kernel = leads(names[10], names[10]);
        kernel.words[word::NAME + at] ^= 1 << 63;
        let given = answer(&kernel, &mut scratch());
        assert_eq!(given, Err(HotOutcome::Unknown), "word {at}");
    }
}

/// While user space declares nothing valid, even an answer made for that value is not given.
#[test]
fn while_nothing_holds_nobody_is_answered() {
    let mut kernel = told(&QUERY);
    kernel.valid = 0;
    kernel.words[word::VALID] = 0;
    let Address(high, low) = Address::mapped(u32::from_ne_bytes([192, 0, 2, 1]));
    kernel.client = hot::client(KEY, 0, [high, low]).into();
    assert_eq!(answer(&kernel, &mut scratch()), Err(HotOutcome::Withdrawn));
}

#[test]
fn an_answer_holds_until_it_is_over_and_for_what_it_was_made() {
    let with = |at: usize, value: u64| {
        let mut kernel = told(&QUERY);
        kernel.words[at] = value;
        answer(&kernel, &mut scratch())
    };
    assert_eq!(with(word::OVER, NOW), Err(HotOutcome::Over));
    assert_eq!(with(word::VALID, VALID + 1), Err(HotOutcome::Withdrawn));
    // An impossible shape is not written.
    let long = AnswerShape {
        body_len: BODY_MAX as u8 + 1,
        ..EMPTY
    };
    assert_eq!(with(word::SHAPE, long.to_word()), Err(HotOutcome::Unknown));
}

#[test]
fn a_client_is_answered_by_its_address_and_port() {
    let kernel = told(&QUERY);
    kernel.client.set(kernel.client.get() ^ 1);
    assert_eq!(answer(&kernel, &mut scratch()), Err(HotOutcome::NewClient));
    let mut frame = QUERY;
    frame[34..36].copy_from_slice(&7_u16.to_be_bytes());
    assert_eq!(
        answer(&told(&frame), &mut scratch()),
        Err(HotOutcome::NewClient)
    );
    let mut frame = QUERY;
    frame[6] |= 1;
    assert_eq!(
        answer(&told(&frame), &mut scratch()),
        Err(HotOutcome::NewClient)
    );
}

/// Whatever prevented an answer: new clients are told from known ones.
#[test]
fn who_is_new_is_told_from_who_is_known() {
    let unknown = {
        let mut frame = QUERY;
        frame[55] = b'x';
        frame
    };
    let no_message = &QUERY[..42 + 12];
    for (frame, outcome) in [(&QUERY[..], Ok(())), (&unknown, Err(HotOutcome::Unknown))] {
        for is_known in [true, false] {
            let (kernel, mut scratch) = (told(frame), scratch());
            let known = kernel.client.get();
            kernel.client.set(if is_known { known } else { known ^ 1 });
            let expected = if is_known || outcome.is_err() {
                outcome
            } else {
                Err(HotOutcome::NewClient)
            };
            assert_eq!(answer(&kernel, &mut scratch), expected);
            assert_eq!(is_newcomer(&kernel, &scratch), !is_known, "{outcome:?}");
        }
    }
    let mut without_policy = told(&QUERY);
    without_policy.valid = 0;
    for kernel in [without_policy, told(no_message)] {
        let mut scratch = scratch();
        assert!(answer(&kernel, &mut scratch).is_err());
        assert!(
            !is_newcomer(&kernel, &scratch),
            "nobody is known, or nothing"
        );
    }
}

#[test]
fn who_asks_is_marked_as_such_and_keeps_his_other_marks() {
    for marks in [
        0,
        hot::entry_of_client::LATELY_ONE,
        hot::entry_of_client::IS_NEAR,
        LATELY,
    ] {
        let kernel = told(&QUERY);
        let known = kernel.client.get();
        kernel.client.set(known | marks);
        assert_eq!(answer(&kernel, &mut scratch()), Ok(()), "{marks:x}");
        assert_eq!(kernel.client.get(), known | marks | LATELY, "{marks:x}");
    }
}
