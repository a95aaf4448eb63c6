//! The contract between the program that answers hot names and user space: maps, keys, answers.
//!
//! All of it is arrays of u64 in mapped memory: user space stores words, the program loads them, and nobody makes a system call.
//! An answer that can be found is never changed. User space writes a new one where nobody finds it, then stores its number in
//! the index; the place of the old one is free when no run of the program can still read it. The number is read before the
//! answer, and the answer's address follows from it, so the processor keeps that order.
//!
//! ```text
//!  index, by hash                answers, by number, 40 words
//!  63            16 15      0     0      1      9      10      11      12      13     14         40
//!  | hash           | number |    | kind | name | over | since | valid | shape | TTLs | body ... |
//! ```

/// ARRAY of [`AnswerWords`], mappable, with [`ANSWERS_MAX`] entries.
pub const ANSWERS: &str = "hot_answers";
/// ARRAY of u64, mappable, with [`PLACES`] entries: where answers are, see [`entry`].
pub const INDEX: &str = "hot_index";
/// ARRAY of u64, mappable, with [`ANSWERS_MAX`] entries: how often each was given.
pub const HITS: &str = "hot_hits";
/// ARRAY of u64, mappable, with [`CLIENTS_MAX`] entries: who may be answered, see [`client`].
pub const CLIENTS: &str = "hot_clients";
/// ARRAY of u64, mappable: a bit for each UDP port, set where a client gets no answer at it.
pub const SILENT: &str = "hot_silent";
/// ARRAY of u64, mappable: see [`control`].
pub const CONTROL: &str = "hot_control";
/// PERCPU_ARRAY of u64, indexed by [`HotOutcome`].
pub const OUTCOMES: &str = "hot_outcomes";
/// Name of the program.
pub const PROGRAM: &str = "xdnsd_hot";

/// Answers that there is room for. Full: nothing is added until the place of one that was replaced is free.
pub const ANSWERS_MAX: u32 = 448;
/// Places of the index. Two answers that meet in one: the later one waits until nobody asks for the first.
pub const PLACES: u32 = 1024;
/// Places for known clients. If two share one, the first keeps it while it asks, and a neighbour displaces a client from elsewhere.
/// User space answers the other.
pub const CLIENTS_MAX: u32 = 2048;
/// Entries of the map of silent ports.
pub const SILENT_WORDS: u32 = 65_536 / u64::BITS;
/// Words of a QNAME: in lower case, uncompressed, filled up with zeros. Longer names are answered by user space.
pub const NAME_WORDS: usize = 8;
/// Bytes of the longest QNAME.
pub const NAME_MAX: usize = NAME_WORDS * size_of::<u64>();
/// Words of an answer's records.
pub const BODY_WORDS: usize = 26;
/// Bytes of the most records. A frame grows by as many, and drivers have at least 216 in front of it.
pub const BODY_MAX: usize = BODY_WORDS * size_of::<u64>();
/// The most records: each has a TTL.
pub const RECORDS_MAX: usize = size_of::<u64>();
/// An answer, by the words of [`word`].
pub type AnswerWords = [u64; word::COUNT];

/// Which word of an answer is what.
pub mod word {
    /// See [`super::kind`].
    pub const KIND: usize = 0;
    /// The first of [`super::NAME_WORDS`].
    pub const NAME: usize = 1;
    /// When it must not be given any more, in nanoseconds of CLOCK_MONOTONIC.
    pub const OVER: usize = NAME + super::NAME_WORDS;
    /// When its TTLs were right. A second later they are one less.
    pub const SINCE: usize = OVER + 1;
    /// What [`super::control::VALID`] was when it was made.
    pub const VALID: usize = SINCE + 1;
    /// See [`super::AnswerShape`].
    pub const SHAPE: usize = VALID + 1;
    /// Where the TTLs are in the body, a byte each; 0: there are no more.
    pub const TTLS: usize = SHAPE + 1;
    /// The first of [`super::BODY_WORDS`], filled up with zeros: the message behind the question, without OPT.
    pub const BODY: usize = TTLS + 1;
    /// How many there are.
    pub const COUNT: usize = BODY + super::BODY_WORDS;
}

/// Entries of the control array.
pub mod control {
    /// What holds: the generation of the policy in the upper half, the number of removals from the cache in the lower. Answers
    /// and clients of another value are as good as not there. 0: nothing is answered.
    pub const VALID: u32 = 0;
    /// Key of the hashes, drawn at random.
    pub const KEY: u32 = 1;
    /// Seconds of the wall clock less those of CLOCK_MONOTONIC, modulo 2^64.
    pub const WALL: u32 = 2;
    /// Whether there are DNS cookies.
    pub const HAS_COOKIES: u32 = 3;
    /// The secret that they are made with, two words.
    pub const SECRET: u32 = 4;
    /// How many there are.
    pub const COUNT: u32 = 6;
}

/// Kinds of questions for one name.
pub mod kind {
    /// DO: the client wants DNSSEC records.
    pub const DNSSEC_OK: u64 = 1 << 16;
    /// CD.
    pub const CHECKING_DISABLED: u64 = 1 << 17;
    /// The query has an OPT record.
    pub const EDNS: u64 = 1 << 18;
}

/// How an answer's message looks, in one word.
///
/// ```text
///  63     48 47      32 31          16 15            0
///  | flags  | ANCOUNT  | NSCOUNT      | body in bytes |
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswerShape {
    /// AA, RCODE, and AD for clients that understand it.
    pub flags: u16,
    /// Records of the answer section.
    pub answers: u16,
    /// Records of the authority section.
    pub authorities: u16,
    /// Bytes of the body.
    pub body_len: u16,
}

impl AnswerShape {
    /// As the answer has it.
    #[inline(always)]
    #[must_use]
    pub const fn to_word(self) -> u64 {
        (self.flags as u64) << 48
            | (self.answers as u64) << 32
            | (self.authorities as u64) << 16
            | self.body_len as u64
    }

    /// What [`Self::to_word`] made.
    #[inline(always)]
    #[must_use]
    pub const fn from_word(word: u64) -> Self {
        Self {
            flags: (word >> 48) as u16,
            answers: (word >> 32) as u16,
            authorities: (word >> 16) as u16,
            body_len: word as u16,
        }
    }
}

/// The sum so far and the next word.
#[inline(always)]
const fn mix(sum: u64, word: u64) -> u64 {
    let sum = (sum ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    sum ^ sum >> 29
}

/// The keyed hash of a question, over the words in which its name is. Who asks cannot choose names that meet in one place.
#[derive(Clone, Copy, Debug)]
pub struct QuestionHash {
    key: u64,
    sum: u64,
}

impl QuestionHash {
    /// Of no word yet.
    #[inline(always)]
    #[must_use]
    pub const fn new(key: u64) -> Self {
        Self { key, sum: key }
    }

    /// With the name's next word.
    #[inline(always)]
    #[must_use]
    pub const fn add(self, word: u64) -> Self {
        Self {
            sum: mix(self.sum, word),
            ..self
        }
    }

    /// Of the whole name, asked for in this way.
    #[inline(always)]
    #[must_use]
    pub const fn finish(self, kind: u64) -> u64 {
        mix(self.sum, self.key ^ kind)
    }
}

/// The hash of a question whose name is there as a whole.
#[must_use]
pub const fn hash(key: u64, kind: u64, name: &[u64; NAME_WORDS]) -> u64 {
    let mut hash = QuestionHash::new(key);
    let mut at = 0;
    while at < words_in_use(name) {
        hash = hash.add(name[at]);
        at += 1;
    }
    hash.finish(kind)
}

/// In how many words a name is, its end among them.
const fn words_in_use(name: &[u64; NAME_WORDS]) -> usize {
    let mut at = 0;
    while at < NAME_MAX {
        let label_len = name[at / size_of::<u64>()].to_ne_bytes()[at % size_of::<u64>()];
        at += 1;
        if label_len == 0 {
            return words_of(at);
        }
        at += label_len as usize;
    }
    NAME_WORDS
}

/// In how many words a name of `len` bytes is.
#[inline(always)]
#[must_use]
pub const fn words_of(len: usize) -> usize {
    len.div_ceil(size_of::<u64>())
}

/// The first `len` bytes of eight that lie in memory as this word, 1 to 8 of them; zeros in place of the others.
#[inline(always)]
#[must_use]
pub const fn first_bytes(word: u64, len: usize) -> u64 {
    let others = u64::BITS - len as u32 * 8;
    u64::from_le((word.to_le() << others) >> others)
}

/// Eight bytes with ASCII letters in lower case (RFC 4343). A label's length, at most 63, is no letter.
#[inline(always)]
#[must_use]
pub const fn lower_case(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const TOP: u64 = 0x80 * ONES;
    // Of each byte the top bit: whether it is at least 'A', and whether it is more than 'Z', but for its own top bit.
    let low = word & !TOP;
    let from_a = low + (0x80 - b'A' as u64) * ONES;
    let behind_z = low + (0x7f - b'Z' as u64) * ONES;
    let upper = from_a & !behind_z & !word & TOP;
    // 0x80 >> 2 is what a small letter has more.
    word | upper >> 2
}

/// The place in the index.
#[inline(always)]
#[must_use]
pub const fn place(hash: u64) -> u32 {
    hash as u32 & (PLACES - 1)
}

/// The bits of an index entry that say which answer it is; the others are of the hash.
const NUMBER: u64 = 0xffff;

/// The entry of the index for the answer with this number.
#[inline(always)]
#[must_use]
pub const fn entry(hash: u64, number: u16) -> u64 {
    hash & !NUMBER | number as u64
}

/// The number of the answer, if the entry is that of this hash as far as it says.
#[inline(always)]
#[must_use]
pub const fn number(entry: u64, hash: u64) -> Option<u32> {
    if (entry ^ hash) & !NUMBER != 0 {
        return None;
    }
    Some((entry & NUMBER) as u32)
}

/// What says of a client that it may be answered while `valid` holds: a keyed sum of its address, which is as in an IPv6 header,
/// read in native order. A sender that does not know the key has no address with the same sum but by chance, one in 2^64.
#[inline(always)]
#[must_use]
pub const fn client(key: u64, valid: u64, address: [u64; 2]) -> u64 {
    let sum = mix(mix(key ^ valid, address[0]), address[1]);
    // 0 is the place of nobody.
    mix(sum, key) & !entry_of_client::MARKS | 1 << 63
}

/// What stands beside a client in its entry.
///
/// ```text
///  63   62  61 60       59                    0
///  | 1 | lately | near | what [`client`] gives |
/// ```
pub mod entry_of_client {
    /// How long ago it has asked: the program writes [`LATELY`], user space counts it down. At 0 another one may have the place.
    pub const LATELY: u64 = 3 << 61;
    /// One of those.
    pub const LATELY_ONE: u64 = 1 << 61;
    /// It is a neighbour: no client from elsewhere takes its place while it asks.
    pub const IS_NEAR: u64 = 1 << 60;
    /// All of that: the rest says who it is.
    pub const MARKS: u64 = LATELY | IS_NEAR;
}

/// The place of that.
#[inline(always)]
#[must_use]
pub const fn client_place(client: u64) -> u32 {
    client as u32 & (CLIENTS_MAX - 1)
}

/// The entry of the map of silent ports, and the bit in it.
#[inline(always)]
#[must_use]
pub const fn silent_bit(port: u16) -> (u32, u64) {
    (port as u32 / u64::BITS, 1 << (port as u32 % u64::BITS))
}

crate::counters! {
    /// What became of a query that the program for hot answers was asked about.
    pub enum HotOutcome: u32 {
        /// Answered.
        Answered = "answered",
        /// Not a plain question: another class or operation, an option in EDNS but a good DNS cookie, more than one record, or a long
        /// name.
        NotPlain = "not_plain",
        /// No hot answer.
        Unknown = "unknown",
        /// The hot answer's time is over: user space gives one, and asks for a new one.
        Over = "over",
        /// The hot answer is of an earlier policy, or from before something was removed from the cache.
        Withdrawn = "withdrawn",
        /// From a client, or a port, that user space has not answered under the present policy.
        NewClient = "new_client",
        /// The driver has no room for the answer.
        NoRoom = "no_room",
    }
}

/// Bytes that the program has on each processor to put an answer together in.
pub const SCRATCH_BYTES: usize = 576;

const _: () = assert!(ANSWERS_MAX <= NUMBER as u32 + 1 && PLACES.is_power_of_two());
const _: () = assert!(CLIENTS_MAX.is_power_of_two() && size_of::<AnswerWords>() == 320);

/// Bytes of the maps but for those of each processor.
pub const BYTES: usize = ANSWERS_MAX as usize * size_of::<AnswerWords>()
    + (PLACES + ANSWERS_MAX + CLIENTS_MAX + SILENT_WORDS + control::COUNT) as usize
        * size_of::<u64>();

#[cfg(test)]
mod tests {
    use super::*;

    /// A name that fills all its words: labels of 30 and 31 bytes.
    const NAME: [u64; NAME_WORDS] = {
        let mut name = [0x6162_6364_6566_6768; NAME_WORDS];
        name[0] = u64::from_ne_bytes(*b"\x1eabcdefg");
        name[3] = u64::from_ne_bytes(*b"abcdefg\x1f");
        name[7] = u64::from_ne_bytes(*b"abcdefg\0");
        name
    };

    #[test]
    fn an_entry_names_its_answer_to_whoever_has_the_hash() {
        let hash = hash(1, kind::EDNS | 1, &NAME);
        for wanted in [0, 1, ANSWERS_MAX as u16 - 1] {
            assert_eq!(number(entry(hash, wanted), hash), Some(u32::from(wanted)));
        }
        for bit in 16..64 {
            assert_eq!(number(entry(hash, 7), hash ^ 1 << bit), None, "bit {bit}");
        }
    }

    #[test]
    fn every_part_of_a_question_and_the_key_change_the_hash() {
        let known = hash(1, 1, &NAME);
        assert_ne!(hash(2, 1, &NAME), known);
        assert_ne!(hash(1, kind::EDNS | 1, &NAME), known);
        for at in 0..NAME_WORDS {
            let mut other = NAME;
            other[at] ^= 1 << 63;
            assert_ne!(hash(1, 1, &other), known, "word {at}");
        }
    }

    #[test]
    fn a_name_is_in_the_words_up_to_its_end() {
        let words = |name: &[u8]| {
            let mut whole = [0; NAME_MAX];
            whole[..name.len()].copy_from_slice(name);
            let (words, _) = whole.as_chunks();
            words_in_use(&core::array::from_fn(|at| u64::from_ne_bytes(words[at])))
        };
        assert_eq!(words_in_use(&NAME), 8);
        assert_eq!(words(b"\0"), 1, "the root");
        assert_eq!(words(b"\x06abcdef\0"), 1);
        // The end is a word of its own.
        assert_eq!(words(b"\x07abcdefg\0"), 2);
        assert_eq!(
            words(b"\x03\0\0\0\x07\0\0\0\0\0\0\0\0"),
            2,
            "labels of zeros"
        );
        // Bytes without an end count as all of them.
        assert_eq!(words(&[1; NAME_MAX]), 8);
        // Bytes behind the end do not matter.
        let mut long = [7; NAME_WORDS];
        long[0] = u64::from_ne_bytes(*b"\x06abcdef\0");
        let mut short = [0; NAME_WORDS];
        short[0] = long[0];
        assert_eq!(hash(1, 1, &long), hash(1, 1, &short));
    }

    #[test]
    fn letters_are_small_ones_in_every_place() {
        for byte in 0..=u8::MAX {
            for place in 0..8 {
                for others in [0, b'A', b'z', u8::MAX] {
                    let mut bytes = [others; 8];
                    bytes[place] = byte;
                    let lower = lower_case(u64::from_ne_bytes(bytes)).to_ne_bytes();
                    assert_eq!(lower, bytes.map(|byte| byte.to_ascii_lowercase()));
                }
            }
        }
    }

    #[test]
    fn first_bytes_are_those_that_come_first_in_memory() {
        let word = u64::from_ne_bytes([1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(first_bytes(word, 8), word);
        assert_eq!(first_bytes(word, 3).to_ne_bytes(), [1, 2, 3, 0, 0, 0, 0, 0]);
        assert_eq!(first_bytes(word, 1).to_ne_bytes(), [1, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn a_client_is_another_one_under_another_policy() {
        let known = client(1, 2, [3, 4]);
        for other in [
            client(9, 2, [3, 4]),
            client(1, 9, [3, 4]),
            client(1, 2, [9, 4]),
            client(1, 2, [3, 9]),
        ] {
            assert_ne!(other, known);
        }
        assert_ne!(known, 0);
    }

    #[test]
    fn a_shape_is_one_word() {
        let shape = AnswerShape {
            flags: 0x0423,
            answers: 0x1234,
            authorities: 0x5678,
            body_len: 208,
        };
        assert_eq!(shape.to_word(), 0x0423_1234_5678_00d0);
        assert_eq!(AnswerShape::from_word(shape.to_word()), shape);
    }

    #[test]
    fn each_port_has_a_bit() {
        assert_eq!(silent_bit(0), (0, 1));
        assert_eq!(silent_bit(63), (0, 1 << 63));
        assert_eq!(silent_bit(u16::MAX), (SILENT_WORDS - 1, 1 << 63));
    }
}
