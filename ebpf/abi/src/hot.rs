//! Contract between the program for hot names and user space: maps, keys, answers.
//!
//! All maps are arrays of u64 in mapped memory: user space stores words, the program loads them, and neither makes a system
//! call. An answer that can be found is never changed. User space writes a new one to a place that the index does not name,
//! then stores its number in the index. The old place is free when no run of the program can still read it. The program
//! reads the number before the answer, and the answer's address depends on it, so the processor keeps that order.
//!
//! ```text
//!  index, by hash                answers, by number, 40 words
//!  63            16 15      0     0      1      9      10      11      12      13     14         40
//!  | hash           | number |    | kind | name | over | since | valid | shape | TTLs | body ... |
//! ```

/// ARRAY of [`AnswerWords`], mappable, with [`ANSWERS_MAX`] entries.
pub const ANSWERS: &str = "hot_answers";
/// ARRAY of u64, mappable, with [`PLACES`] entries: the index of answers, see [`entry`].
pub const INDEX: &str = "hot_index";
/// ARRAY of u64, mappable, with [`ANSWERS_MAX`] entries: how often each answer was given.
pub const HITS: &str = "hot_hits";
/// ARRAY of u64, mappable, with [`CLIENTS_MAX`] entries: known clients, which may be answered, see [`client`].
pub const CLIENTS: &str = "hot_clients";
/// ARRAY of u64, mappable: a bit for each UDP source port that gets no answer.
pub const SILENT: &str = "hot_silent";
/// ARRAY of u64, mappable, see [`control`].
pub const CONTROL: &str = "hot_control";
/// PERCPU_ARRAY of u64, indexed by [`HotOutcome`].
pub const OUTCOMES: &str = "hot_outcomes";
/// Name of the program.
pub const PROGRAM: &str = "xdnsd_hot";

/// Most answers. When full, no answer is added until the place of a replaced one is free.
pub const ANSWERS_MAX: u32 = 448;
/// Places of the index. If two answers share one, the later one waits until nobody asks for the first.
pub const PLACES: u32 = 1024;
/// Places of known clients. If two share one, the first keeps it while it asks, but a neighbour displaces a client from
/// elsewhere. User space answers the other.
pub const CLIENTS_MAX: u32 = 2048;
/// Entries of the map of silent ports.
pub const SILENT_WORDS: u32 = 65_536 / u64::BITS;
/// Words of a QNAME: lower case, uncompressed, padded with zeros. Queries for longer names go to user space.
pub const NAME_WORDS: usize = 8;
/// Longest QNAME in bytes.
pub const NAME_MAX: usize = NAME_WORDS * size_of::<u64>();
/// Words of an answer's records.
pub const BODY_WORDS: usize = 26;
/// Most bytes of an answer's records. A frame grows by as many, and drivers have at least 216 before it.
pub const BODY_MAX: usize = BODY_WORDS * size_of::<u64>();
/// Most records of an answer: each has a TTL, whose offset takes a byte of a word.
pub const RECORDS_MAX: usize = size_of::<u64>();
/// An answer as words, see [`word`].
pub type AnswerWords = [u64; word::COUNT];

/// Indices of an answer's words.
pub mod word {
    /// Kind of the question, see [`super::kind`].
    pub const KIND: usize = 0;
    /// QNAME, the first of [`super::NAME_WORDS`] words.
    pub const NAME: usize = 1;
    /// Time from which on it must not be given, in nanoseconds of CLOCK_MONOTONIC.
    pub const OVER: usize = NAME + super::NAME_WORDS;
    /// Time to which its TTLs belong. One second later they are one less.
    pub const SINCE: usize = OVER + 1;
    /// Value of [`super::control::VALID`] when it was made.
    pub const VALID: usize = SINCE + 1;
    /// Shape of the answer, see [`super::AnswerShape`].
    pub const SHAPE: usize = VALID + 1;
    /// Offsets of the TTLs in the body, a byte each; 0 behind the last.
    pub const TTLS: usize = SHAPE + 1;
    /// What the body adds to a checksum where it begins at an even place: 16 bits in native order.
    pub const SUM: usize = TTLS + 1;
    /// The first of [`super::BODY_WORDS`], filled up with zeros: the message behind the question, without OPT, and behind it
    /// what [`super::Rotation`] says.
    pub const BODY: usize = SUM + 1;
    /// How many there are.
    pub const COUNT: usize = BODY + super::BODY_WORDS;
}

/// Indices of the control array.
pub mod control {
    /// Value under which answers and clients are valid: the generation of the policy in the upper half, the number of
    /// removals from the cache in the lower. Those of another value are ignored. 0: nothing is answered.
    pub const VALID: u32 = 0;
    /// Key of the hashes, drawn at random.
    pub const KEY: u32 = 1;
    /// Wall clock minus CLOCK_MONOTONIC in seconds, modulo 2^64.
    pub const WALL: u32 = 2;
    /// Nonzero if DNS cookies are on.
    pub const HAS_COOKIES: u32 = 3;
    /// Secret of new cookies, two words.
    pub const SECRET: u32 = 4;
    /// Number of entries.
    pub const COUNT: u32 = 6;
}

/// Bits of a question's kind, above its QTYPE.
pub mod kind {
    /// DO: the client wants DNSSEC records.
    pub const DNSSEC_OK: u64 = 1 << 16;
    /// CD: the client validates by itself.
    pub const CHECKING_DISABLED: u64 = 1 << 17;
    /// The query has an OPT record.
    pub const EDNS: u64 = 1 << 18;
}

/// Properties of an answer's message, in one word.
///
/// ```text
///  63     48 47     40 39     32 31                  8 7             0
///  | flags  | ANCOUNT | NSCOUNT | rotation            | body in bytes |
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswerShape {
    /// AA, RCODE, and AD for clients that understand it.
    pub flags: u16,
    /// Records of the answer section.
    pub answers: u8,
    /// Records of the authority section.
    pub authorities: u8,
    /// Addresses that are rotated from answer to answer.
    pub rotation: Rotation,
    /// Bytes of the body.
    pub body_len: u8,
}

/// Addresses of one RRset at the end of a body that are rotated from answer to answer. All of them but the last are stored again behind
/// the body, so that each rotation is one piece of memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rotation {
    /// Number of addresses. 0: none is rotated.
    pub count: u8,
    /// Bytes of each record, a multiple of 4.
    pub record_len: u8,
    /// Offset of the first one in the body.
    pub start: u8,
}

impl Rotation {
    /// Offset from `start` of the address that comes first in answer number `number`.
    #[inline(always)]
    #[must_use]
    pub const fn offset(self, number: u64) -> u32 {
        match self.count {
            0 => 0,
            count => number as u32 % count as u32 * self.record_len as u32,
        }
    }
}

impl AnswerShape {
    /// The shape as one word.
    #[inline(always)]
    #[must_use]
    pub const fn to_word(self) -> u64 {
        let [high, low] = self.flags.to_be_bytes();
        let Rotation {
            count,
            record_len,
            start,
        } = self.rotation;
        u64::from_be_bytes([
            high,
            low,
            self.answers,
            self.authorities,
            count,
            record_len,
            start,
            self.body_len,
        ])
    }

    /// From the value of [`Self::to_word`].
    #[inline(always)]
    #[must_use]
    pub const fn from_word(word: u64) -> Self {
        let [
            high,
            low,
            answers,
            authorities,
            count,
            record_len,
            start,
            body_len,
        ] = word.to_be_bytes();
        Self {
            flags: u16::from_be_bytes([high, low]),
            answers,
            authorities,
            rotation: Rotation {
                count,
                record_len,
                start,
            },
            body_len,
        }
    }
}

/// Mixes the next word into the sum.
#[inline(always)]
const fn mix(sum: u64, word: u64) -> u64 {
    let sum = (sum ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    sum ^ sum >> 29
}

/// Keyed hash of a question, over the words of its name. Without the key nobody can choose names that share a place.
#[derive(Clone, Copy, Debug)]
pub struct QuestionHash {
    key: u64,
    sum: u64,
}

impl QuestionHash {
    /// The hash without any word.
    #[inline(always)]
    #[must_use]
    pub const fn new(key: u64) -> Self {
        Self { key, sum: key }
    }

    /// The hash with the name's next word.
    #[inline(always)]
    #[must_use]
    pub const fn add(self, word: u64) -> Self {
        Self {
            sum: mix(self.sum, word),
            ..self
        }
    }

    /// The hash of the whole name and this kind.
    #[inline(always)]
    #[must_use]
    pub const fn finish(self, kind: u64) -> u64 {
        mix(self.sum, self.key ^ kind)
    }
}

/// Hash of a question with a whole name.
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

/// Number of words of a name, its end included.
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

/// Number of words of a name of `len` bytes.
#[inline(always)]
#[must_use]
pub const fn words_of(len: usize) -> usize {
    len.div_ceil(size_of::<u64>())
}

/// The first `len` bytes, 1 to 8, of the eight in memory that make up this word; the others are zeros.
#[inline(always)]
#[must_use]
pub const fn first_bytes(word: u64, len: usize) -> u64 {
    let others = u64::BITS - len as u32 * 8;
    u64::from_le((word.to_le() << others) >> others)
}

/// Eight bytes with ASCII letters in lower case (RFC 4343). A label's length byte, at most 63, is no letter.
#[inline(always)]
#[must_use]
pub const fn lower_case(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const TOP: u64 = 0x80 * ONES;
    // Top bit of each byte: set in `from_a` from 'A' on, in `behind_z` behind 'Z', the byte's own top bit apart.
    let low = word & !TOP;
    let from_a = low + (0x80 - b'A' as u64) * ONES;
    let behind_z = low + (0x7f - b'Z' as u64) * ONES;
    let upper = from_a & !behind_z & !word & TOP;
    // 0x80 >> 2 is the difference between upper and lower case.
    word | upper >> 2
}

/// Place of a hash in the index.
#[inline(always)]
#[must_use]
pub const fn place(hash: u64) -> u32 {
    hash as u32 & (PLACES - 1)
}

/// Bits of an index entry for the answer's number; the others are of the hash.
const NUMBER: u64 = 0xffff;

/// Index entry for the answer with this number.
#[inline(always)]
#[must_use]
pub const fn entry(hash: u64, number: u16) -> u64 {
    hash & !NUMBER | number as u64
}

/// Number of the answer, if the hash bits of the entry match this hash.
#[inline(always)]
#[must_use]
pub const fn number(entry: u64, hash: u64) -> Option<u32> {
    if (entry ^ hash) & !NUMBER != 0 {
        return None;
    }
    Some((entry & NUMBER) as u32)
}

/// Value of a client that may be answered while `valid` is in force: a keyed sum of its address, which is given as in an
/// IPv6 header, read in native order. A sender without the key hits the same sum by chance alone, one in 2^64.
#[inline(always)]
#[must_use]
pub const fn client(key: u64, valid: u64, address: [u64; 2]) -> u64 {
    let sum = mix(mix(key ^ valid, address[0]), address[1]);
    // 0 is an empty place.
    mix(sum, key) & !entry_of_client::MARKS | 1 << 63
}

/// Marks beside a client's value in its entry.
///
/// ```text
///  63   62  61 60       59                    0
///   | 1 | lately | near | value of [`client`]  |
/// ```
pub mod entry_of_client {
    /// How lately it has asked: the program writes [`LATELY`], user space counts it down. At 0 another client may take the
    /// place.
    pub const LATELY: u64 = 3 << 61;
    /// One step of that count.
    pub const LATELY_ONE: u64 = 1 << 61;
    /// True for a neighbour: no client from elsewhere takes its place while it asks.
    pub const IS_NEAR: u64 = 1 << 60;
    /// All marks; the other bits identify the client.
    pub const MARKS: u64 = LATELY | IS_NEAR;
}

/// Place of a client's value.
#[inline(always)]
#[must_use]
pub const fn client_place(client: u64) -> u32 {
    client as u32 & (CLIENTS_MAX - 1)
}

/// Entry of a port in the map of silent ports, and its bit.
#[inline(always)]
#[must_use]
pub const fn silent_bit(port: u16) -> (u32, u64) {
    (port as u32 / u64::BITS, 1 << (port as u32 % u64::BITS))
}

crate::counters! {
    /// Outcome of a query in the program for hot names.
    pub enum HotOutcome: u32 {
        /// Answered.
        Answered = "answered",
        /// Not a plain question: another class or opcode, an EDNS option other than a valid DNS cookie, more than one
        /// record, or a long name.
        NotPlain = "not_plain",
        /// No hot answer for the question.
        Unknown = "unknown",
        /// The hot answer is too old: user space answers, and asks for a new one.
        Over = "over",
        /// The hot answer is of an earlier policy, or from before a removal from the cache.
        Withdrawn = "withdrawn",
        /// From a client or a port that user space has not answered under the present policy.
        NewClient = "new_client",
        /// The driver has no room for the answer.
        NoRoom = "no_room",
    }
}

/// Bytes that the program has on each processor to put an answer together in.
pub const SCRATCH_BYTES: usize = 768;

const _: () = assert!(ANSWERS_MAX <= NUMBER as u32 + 1 && PLACES.is_power_of_two());
const _: () = assert!(CLIENTS_MAX.is_power_of_two() && size_of::<AnswerWords>() == 328);

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
        // The end is in a word of its own.
        assert_eq!(words(b"\x07abcdefg\0"), 2);
        assert_eq!(
            words(b"\x03\0\0\0\x07\0\0\0\0\0\0\0\0"),
            2,
            "labels of zeros"
        );
        // Bytes without an end use all words.
        assert_eq!(words(&[1; NAME_MAX]), 8);
        // Bytes behind the end are ignored.
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
            answers: 0x12,
            authorities: 0x34,
            rotation: Rotation {
                count: 0x56,
                record_len: 0x78,
                start: 0x9a,
            },
            body_len: 208,
        };
        assert_eq!(shape.to_word(), 0x0423_1234_5678_9ad0);
        assert_eq!(AnswerShape::from_word(shape.to_word()), shape);
    }

    #[test]
    fn addresses_rotate_by_one_from_client_to_client() {
        let rotation = |count| Rotation {
            count,
            record_len: 16,
            start: 30,
        };
        let three = [0, 1, 2, 3, u64::MAX].map(|number| rotation(3).offset(number));
        assert_eq!(three, [0, 16, 32, 0, 0]);
        assert_eq!(rotation(0).offset(7), 0);
    }

    #[test]
    fn each_port_has_a_bit() {
        assert_eq!(silent_bit(0), (0, 1));
        assert_eq!(silent_bit(63), (0, 1 << 63));
        assert_eq!(silent_bit(u16::MAX), (SILENT_WORDS - 1, 1 << 63));
    }
}
