//! The snapshot's codec under damage: a broken record costs itself, and nothing false comes out.

use std::vec;
use std::vec::Vec;

use super::super::snapshot::*;
use super::{at, head};
use crate::answer::{Answer, Head, Key};
use crate::limits::CACHE_LARGE_BYTES;
use crate::testing::Random;
use crate::time::Instant;

const MARKER: Marker = Marker(*b"\x8f\x01\x77\xe2\x5c\xb9\x33\xda");
const HEADER: SnapshotHeader = SnapshotHeader {
    marker: MARKER,
    records: Some(5),
    saved_secs: 1_790_000_000,
    clock_synchronised: true,
    servers: ServersTag::from_bits(0x0123_4567),
};

/// An entry as the cache has it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    name: Vec<u8>,
    qtype: u16,
    dnssec_ok: bool,
    checking_disabled: bool,
    head: Head,
    body: Vec<u8>,
}

impl Entry {
    fn key(&self) -> Key<'_> {
        Key {
            name: &self.name,
            qtype: self.qtype,
            dnssec_ok: self.dnssec_ok,
            checking_disabled: self.checking_disabled,
            view: 0,
        }
    }

    /// The entry's record, written at the moment at which it was stored.
    fn encode(&self, buffer: &mut [u8]) -> Result<usize, EncodeError> {
        self.encode_at(self.head.stored, buffer)
    }

    fn encode_at(&self, now: Instant, buffer: &mut [u8]) -> Result<usize, EncodeError> {
        let encoder = Encoder {
            marker: MARKER,
            now,
        };
        let answer = Answer {
            head: &self.head,
            body: &self.body,
        };
        encoder.encode(buffer, &self.key(), &answer)
    }

    fn record(&self) -> Vec<u8> {
        let mut buffer = vec![0xa5; RECORD_MAX];
        let len = self.encode(&mut buffer).expect("it is well-formed");
        buffer.truncate(len);
        buffer
    }

    /// Entry of a record that is read with unknown age: all fields except those that `head` changes then.
    fn read(record: &SnapshotRecord) -> Self {
        Self {
            name: record.key.name.to_vec(),
            qtype: record.key.qtype,
            dnssec_ok: record.key.dnssec_ok,
            checking_disabled: record.key.checking_disabled,
            head: record.head(at(0), None),
            body: record.body.to_vec(),
        }
    }

    /// The entry as it comes back with unknown age.
    fn restored(&self) -> Self {
        Self {
            head: Head {
                restored: true,
                stored: at(0),
                ..self.head
            },
            ..self.clone()
        }
    }
}

/// A TXT record of the question's name.
fn text(len: usize, random: &mut Random) -> Vec<u8> {
    let mut record = b"\xc0\x0c\0\x10\0\x01\0\0\x01\x2c".to_vec();
    record.extend((len as u16).to_be_bytes());
    record.extend(random.bytes(len));
    record
}

fn random_entry(random: &mut Random) -> Entry {
    let mut name = Vec::new();
    for _ in 0..random.below(4) {
        let len = 1 + random.below(63);
        name.push(len as u8);
        name.extend(random.bytes(len).iter().map(u8::to_ascii_lowercase));
    }
    name.push(0);
    let counts: [usize; 2] = core::array::from_fn(|_| random.below(3));
    let body: Vec<u8> = (0..counts.iter().sum())
        .flat_map(|_| {
            let len = random.below(100);
            text(len, random)
        })
        .collect();
    let flags = random.next();
    Entry {
        name,
        qtype: random.next() as u16,
        dnssec_ok: flags & 1 != 0,
        checking_disabled: flags & 2 != 0,
        head: Head {
            rcode: random.below(16) as u8,
            authentic_data: flags & 4 != 0,
            authoritative: flags & 8 != 0,
            answers: counts[0] as u16,
            authorities: counts[1] as u16,
            ttl_secs: random.next() as u32,
            stored: at(0),
            restored: flags & 16 != 0,
            translated: flags & 32 != 0,
            ede: random.next() as u16,
            ..Head::EMPTY
        },
        body,
    }
}

/// Five entries and the file with them.
fn small_file() -> (Vec<Entry>, Vec<u8>) {
    let mut random = Random::new(7);
    let entries: Vec<_> = (0..5).map(|_| random_entry(&mut random)).collect();
    let mut file = HEADER.encode().to_vec();
    file.extend(entries.iter().flat_map(Entry::record));
    (entries, file)
}

/// Entries of a file, and its broken parts.
fn read(file: &[u8]) -> (Vec<Entry>, Vec<LostRecord>) {
    let (_, records) = open(file).expect("a file of ours");
    read_records(records)
}

fn read_records(records: SnapshotRecords) -> (Vec<Entry>, Vec<LostRecord>) {
    let (mut entries, mut broken) = (Vec::new(), Vec::new());
    for record in records {
        match record {
            Ok(record) => entries.push(Entry::read(&record)),
            Err(error) => broken.push(error),
        }
    }
    (entries, broken)
}

fn restored(entries: &[Entry]) -> Vec<Entry> {
    entries.iter().map(Entry::restored).collect()
}

/// Where the records of [`small_file`] begin, and where the file ends.
fn boundaries(entries: &[Entry]) -> Vec<usize> {
    let mut boundaries = vec![SnapshotHeader::LEN];
    for entry in entries {
        boundaries.push(boundaries[boundaries.len() - 1] + entry.record().len());
    }
    boundaries
}

#[test]
fn whole_files_come_back_whole() {
    let mut random = Random::new(1);
    for count in [0, 1, 2, 500] {
        let entries: Vec<_> = (0..count).map(|_| random_entry(&mut random)).collect();
        let header = SnapshotHeader {
            records: Some(count),
            ..HEADER
        };
        let mut file = header.encode().to_vec();
        file.extend(entries.iter().flat_map(Entry::record));
        assert_eq!(open(&file).expect("a file of ours").0, Some(header));
        assert_eq!(read(&file), (restored(&entries), vec![]));
    }
}

#[test]
fn headers_come_back() {
    for records in [None, Some(0), Some(8192), Some(u32::MAX - 1)] {
        for clock_synchronised in [false, true] {
            for saved_secs in [0, u64::MAX] {
                let header = SnapshotHeader {
                    marker: MARKER,
                    records,
                    saved_secs,
                    clock_synchronised,
                    servers: ServersTag::of("192.0.2.1"),
                };
                assert_eq!(SnapshotHeader::decode(&header.encode()), Ok(header));
            }
        }
    }
}

#[test]
fn the_layout_is_that_of_the_drawing() {
    let header = SnapshotHeader {
        records: None,
        saved_secs: 0x0102_0304_0506_0708,
        ..HEADER
    }
    .encode();
    let mut expected = b"XDNSDSNP\x01\0\x28\0".to_vec();
    expected.extend(MARKER.0);
    expected.extend(b"\xff\xff\xff\xff\x08\x07\x06\x05\x04\x03\x02\x01\x01\x67\x45\x23");
    assert_eq!(header[..36], expected);
    let entry = Entry {
        name: b"\x01a\0".to_vec(),
        qtype: 28,
        dnssec_ok: true,
        checking_disabled: false,
        head: Head {
            answers: 0,
            rcode: 3,
            authentic_data: true,
            ..head(at(9), 300)
        },
        body: vec![],
    };
    let mut expected = MARKER.0.to_vec();
    expected.extend(b"\x15\0\x03\x01a\0\x1c\x05\x03\0\0\0\xff\xff\x03\xac\x02\x09\0");
    let mut record = [0; RECORD_MAX];
    let len = entry.encode_at(at(18), &mut record).expect("it fits");
    assert_eq!(record[..len - 4], expected);
}

#[test]
fn cut_at_every_length() {
    let (entries, file) = small_file();
    let boundaries = boundaries(&entries);
    for len in 0..file.len() {
        let cut = &file[..len];
        if len < SnapshotHeader::LEN {
            assert_eq!(open(cut).err(), Some(HeaderError::Truncated));
            continue;
        }
        let whole = boundaries.iter().filter(|end| **end <= len).count() - 1;
        let torn = if boundaries.contains(&len) {
            vec![]
        } else {
            vec![LostRecord::Torn]
        };
        assert_eq!(
            read(cut),
            (restored(&entries[..whole]), torn),
            "{len} bytes"
        );
    }
}

#[test]
fn every_byte_flipped_in_every_bit() {
    let (entries, file) = small_file();
    let boundaries = boundaries(&entries);
    for at in 0..file.len() {
        for flip in (0..8).map(|bit| 1 << bit).chain([0xff]) {
            let mut flipped = file.clone();
            flipped[at] ^= flip;
            let mut expected = restored(&entries);
            let mut broken = vec![];
            // The record of this byte is lost; a byte of the header costs no record.
            if let Some(index) = boundaries.iter().rposition(|start| *start <= at) {
                expected.remove(index);
                broken.push(if index == 4 {
                    LostRecord::Torn
                } else {
                    LostRecord::Damaged
                });
            }
            assert_eq!(
                read(&flipped),
                (expected, broken),
                "byte {at}, flipped by {flip:#x}"
            );
        }
    }
}

#[test]
fn a_flipped_header_is_repaired_or_known_as_damaged() {
    let file = HEADER.encode();
    for at in 0..SnapshotHeader::LEN {
        let mut flipped = file;
        flipped[at] ^= 0x10;
        let expected = if at < 12 {
            Ok(HEADER)
        } else {
            Err(HeaderError::Damaged)
        };
        assert_eq!(SnapshotHeader::decode(&flipped), expected, "byte {at}");
    }
}

#[test]
fn a_burst_costs_the_records_that_it_touches() {
    let mut random = Random::new(9);
    let entries: Vec<_> = (0..100).map(|_| random_entry(&mut random)).collect();
    let mut file = HEADER.encode().to_vec();
    file.extend(entries.iter().flat_map(Entry::record));
    let boundaries = boundaries(&entries);
    for _ in 0..200 {
        let start = SnapshotHeader::LEN + random.below(file.len() - SnapshotHeader::LEN);
        let end = (start + 1 + random.below(4096)).min(file.len());
        let mut damaged = file.clone();
        // Zeros, like an erased or unwritten block of flash; every byte of a record differs somewhere.
        damaged[start..end].fill(0);
        let touched = |index: usize| {
            file[start..end] != damaged[start..end] && {
                let (first, last) = (boundaries[index].max(start), boundaries[index + 1].min(end));
                first < last && file[first..last] != damaged[first..last]
            }
        };
        let expected: Vec<_> = (0..100)
            .filter(|index| !touched(*index))
            .map(|index| entries[index].restored())
            .collect();
        assert_eq!(read(&damaged).0, expected, "zeros from {start} to {end}");
    }
}

#[test]
fn foreign_and_future_files_are_told_apart() {
    assert_eq!(open(b"").err(), Some(HeaderError::Truncated));
    assert_eq!(open(b"XDNS").err(), Some(HeaderError::Truncated));
    assert_eq!(open(b"GIF89a").err(), Some(HeaderError::Foreign));
    assert_eq!(open(&[0; 100]).err(), Some(HeaderError::Foreign));
    assert_eq!(open(&[0xff; 100]).err(), Some(HeaderError::Foreign));
    // A future version has another CRC, here any, and maybe another layout.
    let (_, mut file) = small_file();
    file[8] = 2;
    file[36] ^= 0xff;
    assert_eq!(open(&file).err(), Some(HeaderError::Version(2)));
}

#[test]
fn garbage_gives_nothing() {
    let mut random = Random::new(3);
    for _ in 0..300 {
        let mut file = HEADER.encode().to_vec();
        let len = random.below(3000);
        file.extend(random.bytes(len));
        // Some markers, so that what follows them is tried.
        for _ in 0..random.below(20) {
            file.extend(MARKER.0);
            let len = random.below(60);
            file.extend(random.bytes(len));
        }
        let (entries, broken) = read(&file);
        assert!(entries.is_empty());
        assert!(
            broken.len() <= 21,
            "one per marker and one for what is before"
        );
    }
}

#[test]
fn a_record_forged_inside_an_answer_is_never_read() {
    let mut random = Random::new(4);
    // An attacker's zone answers with a TXT record that holds a whole record of another name. The marker of the file is
    // drawn after the answer came in.
    let forged = Entry {
        name: b"\x04bank\0".to_vec(),
        ..random_entry(&mut random)
    };
    let mut body = text(0, &mut random);
    let mut inside = forged.record();
    inside[..8].copy_from_slice(b"guessed!");
    body[10..12].copy_from_slice(&(inside.len() as u16).to_be_bytes());
    body.extend(&inside);
    let carrier = Entry {
        name: b"\x01a\0".to_vec(),
        qtype: 16,
        dnssec_ok: false,
        checking_disabled: false,
        head: head(at(0), 60),
        body,
    };
    let honest = random_entry(&mut random);
    let (carrier_record, honest_record) = (carrier.record(), honest.record());
    for at in 0..carrier_record.len() {
        let mut file = HEADER.encode().to_vec();
        file.extend(&carrier_record);
        file.extend(&honest_record);
        file[SnapshotHeader::LEN + at] ^= 0xff;
        assert_eq!(
            read(&file),
            (vec![honest.restored()], vec![LostRecord::Damaged])
        );
    }
}

#[test]
fn what_a_reader_would_refuse_is_not_written() {
    let good = Entry {
        name: b"\x01a\0".to_vec(),
        qtype: 16,
        dnssec_ok: false,
        checking_disabled: false,
        head: head(at(0), 60),
        body: text(4, &mut Random::new(1)),
    };
    let mut buffer = [0; RECORD_MAX];
    assert!(good.encode(&mut buffer).is_ok());
    for bad in [
        Entry {
            name: b"\x01A\0".to_vec(),
            ..good.clone()
        },
        Entry {
            name: b"\x01a".to_vec(),
            ..good.clone()
        },
        Entry {
            body: vec![],
            ..good.clone()
        },
        Entry {
            body: [&good.body[..], &[0]].concat(),
            ..good.clone()
        },
        Entry {
            head: Head {
                answers: 2,
                ..good.head
            },
            ..good.clone()
        },
        Entry {
            head: Head {
                rcode: 16,
                ..good.head
            },
            ..good.clone()
        },
        Entry {
            body: text(CACHE_LARGE_BYTES, &mut Random::new(1)),
            ..good.clone()
        },
    ] {
        assert_eq!(
            bad.encode(&mut buffer),
            Err(EncodeError::Malformed),
            "{bad:?}"
        );
    }
}

/// Fields of a record as postcard writes them, with any values: name, QTYPE, flags, RCODE, counts, EDE, TTL, age, body.
type Fields<'a> = (&'a [u8], u16, u8, u8, [u16; 3], u16, u32, u32, &'a [u8]);

/// A record whose marker, length and CRC are right.
fn forge(fields: &Fields) -> Vec<u8> {
    let crc = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);
    let mut payload = vec![0; 70_000];
    let payload = postcard::to_slice_crc32(fields, &mut payload, crc.digest()).expect("it fits");
    let mut record = MARKER.0.to_vec();
    record.extend((payload.len() as u16).to_le_bytes());
    record.extend(payload.iter());
    record
}

/// Reads the record; an intact one behind it must be read all the same.
fn read_one(fields: &Fields) -> Option<LostRecord> {
    let honest = random_entry(&mut Random::new(2));
    let file = [forge(fields), honest.record()].concat();
    let (mut entries, broken) = read_records(SnapshotRecords::new(&file, MARKER));
    assert_eq!(
        entries.pop(),
        Some(honest.restored()),
        "the next one is not touched"
    );
    assert!(entries.len() + broken.len() == 1);
    broken.first().copied()
}

#[test]
fn a_key_or_code_that_cannot_be_is_refused() {
    let body = text(4, &mut Random::new(1));
    let good: Fields = (b"\x01a\0", 16, 0, 0, [1, 0, 0], 0, 60, 7, &body);
    let (name, qtype, flags, rcode, counts, ede, ttl, age, body) = good;
    assert_eq!(read_one(&good), None);
    for (bad, what) in [
        (
            (
                &b"\x01A\0"[..],
                qtype,
                flags,
                rcode,
                counts,
                ede,
                ttl,
                age,
                body,
            ),
            "upper case",
        ),
        (
            (
                b"\xc0\x0c",
                qtype,
                flags,
                rcode,
                counts,
                ede,
                ttl,
                age,
                body,
            ),
            "a pointer for a name",
        ),
        (
            (name, qtype, 0x40, rcode, counts, ede, ttl, age, body),
            "an unknown flag",
        ),
        (
            (name, qtype, 0x80, rcode, counts, ede, ttl, age, body),
            "an unknown flag",
        ),
        (
            (name, qtype, flags, 16, counts, ede, ttl, age, body),
            "a long RCODE",
        ),
    ] {
        assert_eq!(read_one(&bad), Some(LostRecord::Malformed), "{what}");
    }
}

#[test]
fn counts_and_bodies_that_cannot_be_an_answer_are_refused() {
    let (body, long) = (
        text(4, &mut Random::new(1)),
        text(CACHE_LARGE_BYTES, &mut Random::new(1)),
    );
    let (body, long) = (&body[..], &long[..]);
    let (name, qtype, flags, rcode) = (&b"\x01a\0"[..], 16, 0, 0);
    let (counts, ede, ttl, age) = ([1, 0, 0], 0, 60, 7);
    for (bad, what) in [
        (
            (name, qtype, flags, rcode, [0, 0, 0], ede, ttl, age, body),
            "a record more than counted",
        ),
        (
            (name, qtype, flags, rcode, [1, 0, 1], ede, ttl, age, body),
            "a record less than counted",
        ),
        (
            (
                name,
                qtype,
                flags,
                rcode,
                [u16::MAX; 3],
                ede,
                ttl,
                age,
                body,
            ),
            "many less",
        ),
        (
            (name, qtype, flags, rcode, counts, ede, ttl, age, &body[1..]),
            "a body that does not walk",
        ),
        (
            (name, qtype, flags, rcode, counts, ede, ttl, age, long),
            "longer than a slot",
        ),
    ] {
        assert_eq!(read_one(&bad), Some(LostRecord::Malformed), "{what}");
    }
}

#[test]
fn the_longest_record_fits_its_buffer_and_no_shorter_one() {
    let mut random = Random::new(1);
    let label = [&[63][..], &[b'x'; 63]].concat();
    let name = [&label[..], &label, &label, &[61], &[b'x'; 61], &[0]].concat();
    let body = text(CACHE_LARGE_BYTES - name.len() - 12, &mut random);
    let entry = Entry {
        name,
        qtype: u16::MAX,
        dnssec_ok: true,
        checking_disabled: true,
        head: Head {
            ede: u16::MAX,
            ..head(at(0), u32::MAX)
        },
        body,
    };
    let encode = |buffer: &mut [u8]| entry.encode_at(Instant::FAR_FUTURE, buffer);
    let mut buffer = vec![0xa5; RECORD_MAX];
    let len = encode(&mut buffer).expect("it fits");
    assert_eq!(
        read_records(SnapshotRecords::new(&buffer[..len], MARKER)).0,
        [entry.restored()]
    );
    for short in 0..len {
        assert_eq!(
            encode(&mut buffer[..short]),
            Err(EncodeError::BufferTooShort)
        );
    }
    assert!(encode(&mut buffer[..len]).is_ok());
}

#[test]
fn age_is_known_only_between_two_good_clocks() {
    let saved = HEADER.saved_secs;
    let unsynchronised = SnapshotHeader {
        clock_synchronised: false,
        servers: ServersTag::from_bits(0x0123_4567),
        ..HEADER
    };
    assert_eq!(HEADER.age_secs(saved, true), Some(0));
    assert_eq!(HEADER.age_secs(saved + 77, true), Some(77));
    assert_eq!(HEADER.age_secs(saved + 77, false), None);
    assert_eq!(unsynchronised.age_secs(saved + 77, true), None);
    assert_eq!(
        HEADER.age_secs(saved - 1, true),
        None,
        "a clock went backwards"
    );
    assert_eq!(HEADER.age_secs(u64::MAX, true), Some(u32::MAX));
}

#[test]
fn an_entry_goes_on_ageing_or_is_stale() {
    let mut random = Random::new(2);
    let entry = random_entry(&mut random);
    let entry = Entry {
        head: Head {
            restored: false,
            ..entry.head
        },
        ..entry
    };
    let head_of = |entry: &Entry, file_age_secs| {
        let mut buffer = [0; RECORD_MAX];
        // Ten seconds after it came in.
        let saved = entry.head.stored.add_secs(10);
        let len = entry.encode_at(saved, &mut buffer).expect("it fits");
        let mut records = SnapshotRecords::new(&buffer[..len], MARKER);
        let record = records.next().expect("one").expect("a whole one");
        let head = record.head(at(1_000), file_age_secs);
        assert_eq!(head.ttl_secs, entry.head.ttl_secs, "as the records' own");
        (head.stored, head.restored)
    };
    assert_eq!(head_of(&entry, Some(0)), (at(990), false));
    assert_eq!(head_of(&entry, Some(40)), (at(950), false));
    assert_eq!(
        head_of(&entry, Some(u32::MAX)),
        (at(0), false),
        "no further back than the clock"
    );
    assert_eq!(head_of(&entry, None), (at(1_000), true));
    // An entry of unknown age when the file was written stays one.
    assert_eq!(head_of(&entry.restored(), Some(40)), (at(1_000), true));
}

/// The config assigns the numbers of views, and may have changed.
#[test]
fn an_answer_of_a_view_is_not_written() {
    let entry = random_entry(&mut Random::new(7));
    let encoder = Encoder {
        marker: MARKER,
        now: at(0),
    };
    let answer = Answer {
        head: &entry.head,
        body: &entry.body,
    };
    let mut buffer = [0; RECORD_MAX];
    let mut encode = |view| {
        let key = Key {
            view,
            ..entry.key()
        };
        encoder.encode(&mut buffer, &key, &answer)
    };
    assert!(encode(0).is_ok());
    assert_eq!(encode(1), Err(EncodeError::OfView));
}

/// The config may route a name elsewhere by the time the file is read, and an index says nothing of a group then.
#[test]
fn what_a_route_has_given_is_not_kept() {
    let entry = random_entry(&mut Random::new(1));
    let mut buffer = [0; RECORD_MAX];
    for (group, code) in [
        (0, None),
        (1, Some(EncodeError::OfRoute)),
        (Head::MANY_GROUPS, Some(EncodeError::OfRoute)),
    ] {
        let head = Head {
            group,
            ..entry.head
        };
        let answer = Answer {
            head: &head,
            body: &entry.body,
        };
        let encoder = Encoder {
            marker: MARKER,
            now: at(0),
        };
        let encoded = encoder.encode(&mut buffer, &entry.key(), &answer);
        assert_eq!(encoded.err(), code, "{group}");
    }
    // What is read is of the default group: a route that is new since then does not take it for its own.
    let record = entry.record();
    let (entries, lost) = read_records(SnapshotRecords::new(&record, MARKER));
    assert_eq!((entries[0].head.group, lost), (0, Vec::new()));
}
