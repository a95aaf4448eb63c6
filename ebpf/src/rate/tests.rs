use super::*;
use std::cell::{Cell, RefCell};
use xdnsd_abi::rate::{ELEMENTS, Element};

const WALL: u64 = 1_559_000_000;
const KEY: HashKey = *b"sixteen byte key";
const QUERIES: Rate = Rate::new(10, 1);
const SLIPS: Rate = Rate::new(2, 1);

/// From 198.51.100.100 port 40000 to 192.0.2.53: www.ab, type A, RD, with the cookie of RFC 9018 appendix A.1 behind an NSID.
fn query(options: &[u8]) -> Vec<u8> {
    let message = [
        &[0xbe, 0xef, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1][..],
        b"\x03wWw\x02aB\0\0\x01\0\x01",
        &[0, 0, 41, 0x10, 0, 0, 0, 0x80, 0],
        &(options.len() as u16).to_be_bytes(),
        options,
    ]
    .concat();
    frame(&message)
}

fn frame(message: &[u8]) -> Vec<u8> {
    let len = message.len() as u16;
    [
        &[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0][..],
        &(28 + len).to_be_bytes(),
        &[0, 0, 0, 0, 64, 17, 0, 0, 198, 51, 100, 100, 192, 0, 2, 53],
        &[0x9c, 0x40, 0, 53],
        &(8 + len).to_be_bytes(),
        &[0, 0],
        message,
    ]
    .concat()
}

const COOKIE: [u8; 24] = [
    0x24, 0x64, 0xc4, 0xab, 0xcf, 0x10, 0xc9, 0x57, 1, 0, 0, 0, 0x5c, 0xf7, 0x9f, 0x11, 0x1f, 0x81,
    0x30, 0xc3, 0xee, 0xe2, 0x94, 0x80,
];
const SECRET: HashKey = [
    0xe5, 0xe9, 0x73, 0xe5, 0xa6, 0xb2, 0xa4, 0x3f, 0x48, 0xe7, 0xdc, 0x84, 0x9e, 0x37, 0xbf, 0xcf,
];

fn option(code: u16, data: &[u8]) -> Vec<u8> {
    [
        &code.to_be_bytes()[..],
        &(data.len() as u16).to_be_bytes(),
        data,
    ]
    .concat()
}

/// A table and a frame.
struct FakeKernel {
    table: RefCell<Vec<Element>>,
    frame: RefCell<Vec<u8>>,
    now: Cell<u64>,
    answers: bool,
    has_proved: bool,
    few: RefCell<[u64; few::COUNT as usize]>,
    /// Messages that were read.
    loads: Cell<u32>,
}

impl RateKernel for FakeKernel {
    type Element = u32;

    fn frame(&self) -> Cursor<'_> {
        let range = self.frame.borrow().as_ptr_range();
        // SAFETY: the range of a live vector, which nobody changes meanwhile.
        unsafe { Cursor::new(range.start, range.end) }
    }
    fn element(&self, index: u32) -> Option<u32> {
        ((index as usize) < self.table.borrow().len()).then_some(index)
    }
    fn word(&self, element: u32, at: usize) -> u64 {
        self.table.borrow()[element as usize][at]
    }
    fn set_word(&self, element: u32, at: usize, word: u64) {
        self.table.borrow_mut()[element as usize][at] = word;
    }
    fn now(&self) -> u64 {
        self.now.get()
    }
    fn has_proved(&self, client: Address, secs: u32) -> bool {
        assert!(client == address([198, 51, 100, 100]) && secs == NEWCOMER_PROVED_SECS);
        self.has_proved
    }
    fn take(&self, place: u32, rate: Rate) -> bool {
        let clear_at = &mut self.few.borrow_mut()[place as usize];
        let has_room = rate.has_room(*clear_at, self.now());
        if has_room {
            *clear_at = rate.charge(*clear_at, self.now());
        }
        has_room
    }
    fn answers(&self) -> bool {
        self.answers
    }
    fn opaque(&self, place: &u64) -> u64 {
        *place
    }
    fn load(&self, at: usize, len: usize, message: &mut QueryBuffer) -> Option<()> {
        assert!((1..=READ_MAX).contains(&len));
        self.loads.set(self.loads.get() + 1);
        message[..len].copy_from_slice(self.frame.borrow().get(at..at + len)?);
        Some(())
    }
    fn sum(&self, message: &QueryBuffer, len: usize) -> u64 {
        let words = message[..len.next_multiple_of(2)].chunks(2);
        words
            .map(|word| u64::from(u16::from_ne_bytes([word[0], word[1]])))
            .sum()
    }
    fn resize(&self, len: usize) -> Option<()> {
        self.frame.borrow_mut().resize(len, 0xa5);
        Some(())
    }
    fn frame_mut(&self) -> CursorMut<'_> {
        let range = self.frame.borrow_mut().as_mut_ptr_range();
        // SAFETY: the range of a live vector, which nobody else accesses meanwhile.
        unsafe { CursorMut::new(range.start, range.end) }
    }
    fn store(&self, at: usize, message: &QueryBuffer, len: usize) -> Option<()> {
        self.frame
            .borrow_mut()
            .get_mut(at..at + len)?
            .copy_from_slice(&message[..len]);
        Some(())
    }
}

fn scratch() -> RateScratch {
    RateScratch {
        message: [0xa5; size_of::<QueryBuffer>()],
        at: 0xa5,
    }
}

fn address(octets: [u8; 4]) -> Address {
    Address::mapped(u32::from_ne_bytes(octets))
}

fn halves(key: &HashKey) -> [u64; 2] {
    let (halves, _) = key.as_chunks();
    [0, 1].map(|at| u64::from_ne_bytes(halves[at]))
}

impl FakeKernel {
    fn new(frame: &[u8]) -> Self {
        let mut table = vec![[0; 16]; ELEMENTS as usize];
        let head = &mut table[0];
        head[control::QUERY_INTERVAL] = QUERIES.interval_ns;
        head[control::QUERY_DEPTH] = QUERIES.depth_ns;
        head[control::SLIP_INTERVAL] = SLIPS.interval_ns;
        head[control::SLIP_DEPTH] = SLIPS.depth_ns;
        head[control::KEY..][..2].copy_from_slice(&halves(&KEY));
        head[control::WALL] = WALL;
        head[control::HAS_COOKIES] = 1;
        head[control::SECRETS..][..2].copy_from_slice(&[1, 2]);
        head[control::SECRETS + 2..][..2].copy_from_slice(&halves(&SECRET));
        Self {
            table: RefCell::new(table),
            frame: RefCell::new(frame.to_vec()),
            // Time at which the cookie was made.
            now: Cell::new((0x5cf7_9f11 - WALL) * 1_000_000_000),
            answers: true,
            has_proved: false,
            few: RefCell::default(),
            loads: Cell::new(0),
        }
    }

    /// Adds an account of this unit with this debt, as user space would.
    fn owing(self, unit: ClientPrefix, owed_ns: u64) -> Self {
        let tag = unit.tag(&KEY);
        let clear_at = self.now.get() + owed_ns;
        // Not the first of its set.
        let mut table = self.table.borrow_mut();
        table[element(tag) as usize][2 * account::COUNT..][..2].copy_from_slice(&[tag, clear_at]);
        drop(table);
        self
    }

    fn on_link(self, first: Address, mask: [u64; 2]) -> Self {
        let Address(high, low) = first;
        let mut table = self.table.borrow_mut();
        table[0][control::NETWORKS] = 6;
        // The sixth network, in the second element.
        for place in 0..5 {
            let words = &mut table[NETWORKS_AT as usize + place / 4][place % 4 * 4..][..4];
            words.copy_from_slice(&[1, 1, u64::MAX, u64::MAX]);
        }
        table[NETWORKS_AT as usize + 1][4..8].copy_from_slice(&[high, low, mask[0], mask[1]]);
        drop(table);
        self
    }

    fn judge(&self) -> Result<bool, Reason> {
        judge(self, &mut scratch()).map(|account| account.is_some())
    }
}

fn client() -> [u64; 2] {
    let Address(high, low) = address([198, 51, 100, 100]);
    [high, low]
}

const FULL: u64 = QUERIES.depth_ns;

#[test]
fn who_has_no_account_or_room_left_goes_on() {
    let frame = query(&[]);
    assert_eq!(FakeKernel::new(&frame).judge(), Ok(false), "no account");
    let last = FULL - QUERIES.interval_ns;
    let told = FakeKernel::new(&frame).owing(ClientPrefix::prefix(client()), last);
    assert_eq!(told.judge(), Ok(true));
    assert_eq!(*told.frame.borrow(), frame);
    let told = FakeKernel::new(&frame).owing(ClientPrefix::prefix(client()), last + 1);
    assert_eq!(told.judge(), Err(Reason::RateSlipped));
    let off = FakeKernel::new(&frame).owing(ClientPrefix::prefix(client()), FULL);
    off.table.borrow_mut()[0][control::QUERY_DEPTH] = 0;
    assert_eq!(off.judge(), Ok(false), "no limit");
    let none = FakeKernel::new(&frame);
    none.table.borrow_mut().clear();
    assert_eq!(none.judge(), Ok(false), "no table");
}

#[test]
fn slips_end_and_the_rest_is_dropped() {
    let frame = query(&[]);
    let told = FakeKernel::new(&frame).owing(ClientPrefix::prefix(client()), FULL);
    let again = |told: &FakeKernel| {
        *told.frame.borrow_mut() = query(&[]);
        told.judge()
    };
    assert_eq!(again(&told), Err(Reason::RateSlipped));
    assert_eq!(again(&told), Err(Reason::RateSlipped));
    assert_eq!(again(&told), Err(Reason::DropRate));
    assert_eq!(*told.frame.borrow(), frame, "as it was");
    let next = FakeKernel::new(&query(&[])).owing(ClientPrefix::prefix(client()), FULL);
    next.table.borrow_mut()[0][control::SLIP_DEPTH] = 0;
    assert_eq!(again(&next), Err(Reason::DropRate), "none at all");
}

/// What a flood costs: nothing is read where nothing is said, and no cookie can be there.
#[test]
fn a_query_too_many_is_read_only_where_it_may_have_a_cookie() {
    let mut plain = query(&[])[42..66].to_vec();
    plain[11] = 0;
    for (frame, loads) in [(frame(&plain), 0), (query(&[]), 1)] {
        let told = FakeKernel::new(&frame).owing(ClientPrefix::prefix(client()), FULL);
        told.table.borrow_mut()[0][control::SLIP_DEPTH] = 0;
        assert_eq!(told.judge(), Err(Reason::DropRate));
        assert_eq!(told.loads.get(), loads);
        let told = FakeKernel::new(&frame).with_newcomers();
        told.table.borrow_mut()[0][control::SLIP_DEPTH] = 0;
        assert_eq!(told.newcomers(&frame, AT_ONCE + 1), [AT_ONCE, 0, 1]);
        assert_eq!(told.loads.get(), loads, "of a new client");
    }
}

#[test]
fn where_answers_do_not_leave_user_space_gives_them() {
    let told = FakeKernel {
        answers: false,
        ..FakeKernel::new(&query(&[])).owing(ClientPrefix::prefix(client()), FULL)
    };
    for _ in 0..9 {
        assert_eq!(told.judge(), Ok(false), "it counts them itself");
    }
    let Some(account) = find(&told, &mut scratch(), address([198, 51, 100, 100])) else {
        panic!("there is one")
    };
    let slipped = told.now.get() + SLIPS.depth_ns;
    told.set_word(account.element, account.at + account::SLIPS, slipped);
    assert_eq!(told.judge(), Err(Reason::DropRate));
}

#[test]
fn the_answer_is_the_question_with_tc() {
    let told = FakeKernel::new(&query(&option(3, b""))).owing(ClientPrefix::prefix(client()), FULL);
    assert_eq!(told.judge(), Err(Reason::RateSlipped));
    let frame = told.frame.borrow();
    let (asked, len) = (query(&[]), query(&[]).len());
    assert_eq!(frame.len(), len);
    assert_eq!([&frame[..6], &frame[6..12]], [&asked[6..12], &asked[..6]]);
    assert_eq!(
        [&frame[26..30], &frame[30..34]],
        [&asked[30..34], &asked[26..30]]
    );
    assert_eq!(frame[34..40], [0, 53, 0x9c, 0x40, 0, (len - 34) as u8]);
    // ID; response, TC, RD, RA; one question, one OPT.
    assert_eq!(
        frame[42..54],
        [0xbe, 0xef, 0x83, 0x80, 0, 1, 0, 0, 0, 0, 0, 1]
    );
    assert_eq!(frame[54..66], asked[54..66], "letter case");
    assert_eq!(
        frame[66..],
        [0, 0, 41, 4, 208, 0, 0, 0x80, 0, 0, 0],
        "DO, and no option"
    );
    // Without EDNS there is none, whatever follows.
    for tail in [&[][..], &[7, 7, 7]] {
        let mut message = query(&[])[42..66].to_vec();
        message[11] = 0;
        message.extend(tail);
        let told =
            FakeKernel::new(&self::frame(&message)).owing(ClientPrefix::prefix(client()), FULL);
        assert_eq!(told.judge(), Err(Reason::RateSlipped));
        let frame = told.frame.borrow();
        assert_eq!((frame.len(), frame[53]), (66, 0));
    }
}

#[test]
fn a_good_cookie_is_exempt_and_no_other() {
    let full = |options: &[u8]| {
        FakeKernel::new(&query(options)).owing(ClientPrefix::prefix(client()), FULL)
    };
    let with = |cookie: &[u8]| option(10, cookie);
    let behind = [option(3, b""), option(8, &[0, 1, 24, 0]), with(&COOKIE)].concat();
    assert_eq!(
        full(&with(&COOKIE)).judge(),
        Ok(false),
        "by the secret before"
    );
    assert_eq!(full(&behind).judge(), Ok(false));
    for at in 0..COOKIE.len() {
        let mut other = COOKIE;
        other[at] ^= 1;
        assert_eq!(
            full(&with(&other)).judge(),
            Err(Reason::RateSlipped),
            "byte {at}"
        );
    }
    let first = [with(b"clients!"), with(&COOKIE)].concat();
    for options in [with(&COOKIE[..23]), with(b"clients!"), first] {
        assert_eq!(
            full(&options).judge(),
            Err(Reason::RateSlipped),
            "{options:?}"
        );
    }
    let without_slips = full(&with(&COOKIE));
    without_slips.table.borrow_mut()[0][control::SLIP_DEPTH] = 0;
    assert_eq!(without_slips.judge(), Ok(false), "nor does it take a slip");
    // Outside its time, and at another address.
    let at = |secs: i64| {
        let told = FakeKernel::new(&query(&with(&COOKIE)));
        told.now
            .set((told.now.get() as i64 + secs * 1_000_000_000) as u64);
        told.owing(ClientPrefix::prefix(client()), FULL).judge()
    };
    assert_eq!([at(3_600), at(-300)], [Ok(false); 2]);
    assert_eq!([at(3_601), at(-301)], [Err(Reason::RateSlipped); 2]);
    let mut elsewhere = query(&with(&COOKIE));
    elsewhere[29] ^= 1;
    let told = FakeKernel::new(&elsewhere).owing(ClientPrefix::prefix(client()), FULL);
    assert_eq!(told.judge(), Err(Reason::RateSlipped));
    let without = full(&with(&COOKIE));
    without.table.borrow_mut()[0][control::HAS_COOKIES] = 0;
    assert_eq!(without.judge(), Err(Reason::RateSlipped));
}

/// RFC 9018 appendix A.4: a cookie of an IPv6 client, by the present secret.
#[test]
fn an_ipv6_clients_cookie_is_good() {
    let cookie: [u8; 24] = [
        0x22, 0x68, 0x1a, 0xb9, 0x7d, 0x52, 0xc2, 0x98, 1, 0, 0, 0, 0x5c, 0xf7, 0xc5, 0x79, 0x26,
        0x55, 0x6b, 0xd0, 0x93, 0x4c, 0x72, 0xf8,
    ];
    let secret: HashKey = [
        0xdd, 0x3b, 0xdf, 0x93, 0x44, 0xb6, 0x78, 0xb1, 0x85, 0xa6, 0xf5, 0xcb, 0x60, 0xfc, 0xa7,
        0x15,
    ];
    let source: [u8; 16] = [
        0x20, 1, 0xd, 0xb8, 2, 0x20, 0, 1, 0x59, 0xde, 0xd0, 0xf4, 0x87, 0x69, 0x82, 0xb8,
    ];
    let message = &query(&option(10, &cookie))[42..];
    let udp_len = (8 + message.len() as u16).to_be_bytes();
    let frame = [
        &[
            2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x86, 0xdd, 0x60, 0, 0, 0,
        ][..],
        &udp_len,
        &[17, 64],
        &source,
        &[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x53],
        &[0x9c, 0x40, 0, 53],
        &udp_len,
        &[0, 0],
        message,
    ]
    .concat();
    let (words, _) = source.as_chunks();
    let words = [0, 1].map(|at| u64::from_ne_bytes(words[at]));
    let told = FakeKernel::new(&frame);
    told.now.set((0x5cf7_c579 - WALL) * 1_000_000_000);
    let told = told.owing(ClientPrefix::prefix(words), FULL);
    assert_eq!(told.judge(), Err(Reason::RateSlipped), "another secret");
    *told.frame.borrow_mut() = frame;
    told.table.borrow_mut()[0][control::SECRETS..][..2].copy_from_slice(&halves(&secret));
    assert_eq!(told.judge(), Ok(false));
}

#[test]
fn a_neighbour_counts_for_itself() {
    let network = address([198, 51, 100, 64]);
    let mask = [
        u64::MAX,
        u64::from_ne_bytes([255, 255, 255, 255, 255, 255, 255, 192]),
    ];
    for (unit, is_on_link, verdict) in [
        (
            ClientPrefix::whole(client()),
            true,
            Err(Reason::RateSlipped),
        ),
        (ClientPrefix::prefix(client()), true, Ok(false)),
        (ClientPrefix::whole(client()), false, Ok(false)),
        (
            ClientPrefix::prefix(client()),
            false,
            Err(Reason::RateSlipped),
        ),
    ] {
        let mut told = FakeKernel::new(&query(&[])).owing(unit, FULL);
        if is_on_link {
            told = told.on_link(network, mask);
        }
        assert_eq!(told.judge(), verdict, "{unit:?} {is_on_link}");
    }
    let told = FakeKernel::new(&query(&[])).owing(ClientPrefix::prefix(client()), FULL);
    told.table.borrow_mut()[0][control::NETWORKS] = NETWORKS_MAX as u64 + 1;
    assert_eq!(told.judge(), Ok(false), "not all networks are known");
}

/// As many as are counted, and no stale one behind them.
#[test]
fn a_neighbour_may_be_on_the_last_network_that_counts() {
    let Address(high, low) = address([198, 51, 100, 100]);
    for (place, count, expected) in [
        (0, 1, Err(Reason::RateSlipped)),
        (NETWORKS_MAX - 1, NETWORKS_MAX, Err(Reason::RateSlipped)),
        (NETWORKS_MAX - 1, NETWORKS_MAX - 1, Ok(false)),
        (0, 0, Ok(false)),
    ] {
        let told = FakeKernel::new(&query(&[])).owing(ClientPrefix::whole(client()), FULL);
        let mut table = told.table.borrow_mut();
        table[0][control::NETWORKS] = count as u64;
        for network in 0..NETWORKS_MAX {
            let element = &mut table[NETWORKS_AT as usize + network / NETWORKS_OF_ELEMENT];
            let words = match network == place {
                true => [high, low, u64::MAX, u64::MAX],
                false => [1, 1, u64::MAX, u64::MAX],
            };
            let at = network % NETWORKS_OF_ELEMENT * network::COUNT;
            element[at..at + network::COUNT].copy_from_slice(&words);
        }
        drop(table);
        assert_eq!(told.judge(), expected, "{place} of {count}");
    }
}

/// Whatever the content, nothing is read behind the message, and a message that is no query is dropped.
#[test]
fn messages_that_are_cut_off_are_dropped_or_slip() {
    let whole = query(&[option(3, b""), option(10, &COOKIE)].concat());
    let question_end = 42 + 24;
    for len in 42 + 12..whole.len() {
        let mut cut = whole[..len].to_vec();
        cut[38..40].copy_from_slice(&((len - 34) as u16).to_be_bytes());
        let told = FakeKernel::new(&cut).owing(ClientPrefix::prefix(client()), FULL);
        let expected = match len < question_end {
            true => Reason::DropRate,
            false => Reason::RateSlipped,
        };
        assert_eq!(told.judge(), Err(expected), "{len}");
    }
    for (at, value) in [
        (44, 0x81),
        (44, 0x29),
        (47, 2),
        (47, 0),
        (54, 64),
        (54, 0xc0),
    ] {
        let mut odd = query(&[]);
        odd[at] = value;
        let told = FakeKernel::new(&odd).owing(ClientPrefix::prefix(client()), FULL);
        assert_eq!(told.judge(), Err(Reason::DropRate), "{at} {value}");
    }
    let long = frame(&[&query(&[])[42..], &[0; 256]].concat());
    let told = FakeKernel::new(&long).owing(ClientPrefix::prefix(client()), FULL);
    assert_eq!(told.judge(), Err(Reason::DropRate));
}

/// Queries that another program answers are counted here, and no others.
#[test]
fn what_user_space_does_not_see_is_counted() {
    let told = FakeKernel::new(&query(&[])).owing(ClientPrefix::prefix(client()), 0);
    let account = judge(&told, &mut scratch()).expect("it goes on");
    let account = account.expect("there is one");
    for given in 1..=10 {
        charge(&told, account.place);
        let is_full = told.judge() == Err(Reason::RateSlipped);
        assert_eq!(is_full, given == 10, "{given}");
        *told.frame.borrow_mut() = query(&[]);
    }
}

/// New clients a second, of which this many may come at once.
const NEWCOMERS: u64 = 1_000;
const AT_ONCE: usize = 20;

impl FakeKernel {
    fn with_newcomers(self) -> Self {
        self.table.borrow_mut()[0][control::NEWCOMERS] = 1_000_000_000 / NEWCOMERS;
        self
    }

    /// Results of `count` such queries: how many go on, are answered with TC, and are dropped.
    fn newcomers(&self, frame: &[u8], count: usize) -> [usize; 3] {
        let mut became = [0; 3];
        for _ in 0..count {
            *self.frame.borrow_mut() = frame.to_vec();
            let at = match judge_newcomer(self, &mut scratch()) {
                Ok(()) => 0,
                Err(Reason::RateSlipped) => 1,
                Err(Reason::DropNewcomer) => 2,
                Err(other) => panic!("{other:?}"),
            };
            became[at] += 1;
        }
        became
    }
}

#[test]
fn new_clients_share_what_user_space_is_given_of_them() {
    let frame = query(&[]);
    let told = FakeKernel::new(&frame).with_newcomers();
    assert_eq!(told.newcomers(&frame, 50), [AT_ONCE, AT_ONCE, 10]);
    told.now.set(told.now.get() + 5_000_000);
    assert_eq!(told.newcomers(&frame, 50), [5, 5, 40]);
    // Neighbours have a rate of their own.
    let told = told.on_link(address([198, 51, 100, 100]), [u64::MAX; 2]);
    assert_eq!(told.newcomers(&frame, 50), [AT_ONCE, AT_ONCE, 10]);
    assert_eq!(told.newcomers(&frame, 1), [0, 0, 1]);
    // The answer with TC is the same as for a client over its limit.
    let told = FakeKernel::new(&frame).with_newcomers();
    assert_eq!(told.newcomers(&frame, AT_ONCE + 1), [AT_ONCE, 1, 0]);
    let answer = told.frame.borrow().clone();
    let limited = FakeKernel::new(&frame).owing(ClientPrefix::prefix(client()), FULL);
    assert_eq!(limited.judge(), Err(Reason::RateSlipped));
    assert_eq!(answer, *limited.frame.borrow());
}

#[test]
fn new_clients_have_all_where_there_is_no_limit_or_they_have_proved_themselves() {
    let frame = query(&[]);
    let told = FakeKernel::new(&frame);
    assert_eq!(told.newcomers(&frame, 50), [50, 0, 0], "no limit");
    let none = FakeKernel::new(&frame).with_newcomers();
    none.table.borrow_mut().clear();
    assert_eq!(none.newcomers(&frame, 50), [50, 0, 0], "no table");
    let proved = FakeKernel {
        has_proved: true,
        ..FakeKernel::new(&frame).with_newcomers()
    };
    assert_eq!(proved.newcomers(&frame, 50), [50, 0, 0]);
    let cookie = query(&option(10, &COOKIE));
    let told = FakeKernel::new(&cookie).with_newcomers();
    assert_eq!(told.newcomers(&cookie, 50), [50, 0, 0]);
    let forged = query(&option(10, &[&COOKIE[..23], &[0]].concat()));
    assert_eq!(told.newcomers(&forged, 50), [0, AT_ONCE, 30]);
}

/// Less than one in the time of a burst.
#[test]
fn one_new_client_a_second_is_one() {
    let frame = query(&[]);
    let told = FakeKernel::new(&frame);
    told.table.borrow_mut()[0][control::NEWCOMERS] = 1_000_000_000;
    assert_eq!(told.newcomers(&frame, 5), [1, 1, 3]);
}

#[test]
fn new_clients_get_no_tc_where_none_is_given_or_leaves() {
    let frame = query(&[]);
    let told = FakeKernel::new(&frame).with_newcomers();
    told.table.borrow_mut()[0][control::SLIP_DEPTH] = 0;
    assert_eq!(told.newcomers(&frame, 50), [AT_ONCE, 0, 30]);
    let told = FakeKernel {
        answers: false,
        ..FakeKernel::new(&frame).with_newcomers()
    };
    assert_eq!(told.newcomers(&frame, 50), [AT_ONCE, 0, 30]);
    assert_eq!(*told.frame.borrow(), frame, "as it was");
    let odd = &frame[..42 + 12];
    let mut cut = odd.to_vec();
    cut[38..40].copy_from_slice(&20_u16.to_be_bytes());
    let told = FakeKernel::new(&cut).with_newcomers();
    assert_eq!(told.newcomers(&cut, 50), [AT_ONCE, 0, 30], "no question");
}
