//! Files that are read without anybody having looked at them: the snapshot, compiled lists, images of local data.

use crc::{CRC_32_ISO_HDLC, Crc};
use xdnsd_core::answer::{Answer, Head, Key, body_is_well_formed, is_key_name};
use xdnsd_core::cache::snapshot::{
    Encoder, Marker, RECORD_MAX, ServersTag, SnapshotHeader, SnapshotRecord, open,
};
use xdnsd_core::dns;
use xdnsd_core::limits::{CACHE_LARGE_BYTES, NAME_MAX};
use xdnsd_core::policy::list::{CRC, field};
use xdnsd_core::policy::{Labels, List, LocalData};
use xdnsd_core::time::Instant;

use super::flags;
use crate::image;

/// The present moment where a snapshot is written and read.
pub const NOW: Instant = Instant::from_millis(1_000_000);
/// What stands before each record of the snapshot.
pub const MARKER: Marker = Marker(*b"\x91marker\xee");
/// Marker and length stand before a record's payload, its CRC ends it.
pub const FRAME_LEN: usize = 10;
/// Bytes of that CRC.
pub const CRC_LEN: usize = 4;

/// A record of the snapshot. `None`: it is not one that is kept.
pub fn record(key: &Key<'_>, answer: &Answer<'_>) -> Option<Vec<u8>> {
    let encoder = Encoder {
        marker: MARKER,
        now: NOW,
    };
    let mut buffer = vec![0xa5; RECORD_MAX];
    let len = encoder.encode(&mut buffer, key, answer).ok()?;
    buffer.truncate(len);
    Some(buffer)
}

/// A header, one whole record before a payload and one behind it, whose CRC holds.
fn file_with(payload: &[u8]) -> Vec<u8> {
    const CRC_OF_RECORDS: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);
    let key = Key {
        name: b"\x01a\x07example\0",
        qtype: 1,
        dnssec_ok: false,
        checking_disabled: false,
        view: 0,
    };
    let head = Head {
        ttl_secs: 60,
        ..Head::EMPTY
    };
    let whole = record(&key, &Answer::bare(&head)).expect("a record");
    let header = SnapshotHeader {
        marker: MARKER,
        records: Some(3),
        saved_secs: 1,
        clock_synchronised: true,
        servers: ServersTag::default(),
    };
    let len = (payload.len() + CRC_LEN) as u16;
    let crc = CRC_OF_RECORDS.checksum(payload);
    [
        &header.encode()[..],
        &whole,
        &MARKER.0,
        &len.to_le_bytes(),
        payload,
        &crc.to_le_bytes(),
        &whole,
    ]
    .concat()
}

/// Of any file only answers of ours are read, and what is read is read again as it was when it is written. The first byte: 0, the rest
/// is the payload of one record among whole ones; else it is the file.
pub fn snapshot(input: &[u8]) -> bool {
    let (is_file, bytes) = flags(input);
    let file = if is_file == 0 && bytes.len() < usize::from(u16::MAX) - CRC_LEN {
        file_with(bytes)
    } else {
        bytes.to_vec()
    };
    let Ok((_, records)) = open(&file) else {
        return false;
    };
    // Bound: a record takes more than a byte.
    let found: Vec<_> = records.take(file.len()).flatten().collect();
    found.iter().for_each(assert_is_ours);
    found.len() > 2
}

fn assert_is_ours(record: &SnapshotRecord<'_>) {
    let head = record.head(NOW, Some(0));
    let count = usize::from(head.answers) + usize::from(head.authorities);
    assert!(head.rcode <= 15 && is_key_name(record.key.name));
    let len = record.key.name.len() + record.body.len();
    assert!(len <= CACHE_LARGE_BYTES, "{len} bytes");
    assert!(body_is_well_formed(record.key.name, count, record.body));
    let answer = Answer {
        head: &head,
        body: record.body,
    };
    let written = self::record(&record.key, &answer).expect("it was read");
    let payload = &written[FRAME_LEN..written.len() - CRC_LEN];
    let file = file_with(payload);
    let (_, mut records) = open(&file).expect("our own header");
    let again = records.nth(1).and_then(Result::ok).expect("our own record");
    assert_eq!((again.key, again.body), (record.key, record.body));
}

/// Names that are asked for, as labels.
const ASKED: [&str; 5] = [
    "listed.example",
    "a.listed.example",
    "other.test",
    "x",
    "a.b.tracker.test",
];

/// Any bytes are refused as a compiled list or give verdicts, whether they were checked as a whole or not. The first byte: 0, its
/// lengths and CRCs are made to fit, since a CRC says nothing about who wrote it; 1, the CRCs alone.
pub fn compiled_list(input: &[u8]) -> bool {
    let (how, bytes) = flags(input);
    let mut bytes = bytes.to_vec();
    if how < 2 {
        mend(&mut bytes, how == 0);
    }
    let viewed = List::view(&bytes);
    let checked = List::check(&bytes);
    for name in ASKED.map(image::wire) {
        let labels = Labels::new(&name).expect("a name");
        for qtype in [dns::rtype::A, dns::rtype::AAAA] {
            let listing = |list: &List<'_>| list.listing(&labels, qtype);
            let verdicts = [&viewed, &checked].map(|list| list.as_ref().ok().map(listing));
            assert!(
                checked.is_err() || verdicts[0] == verdicts[1],
                "{verdicts:?}"
            );
        }
    }
    checked.is_ok()
}

/// Makes lengths and CRCs of a compiled list fit its bytes, the length where that is wanted.
fn mend(bytes: &mut [u8], is_length_mended: bool) {
    if bytes.len() < field::HEADER_LEN {
        return;
    }
    if is_length_mended {
        let len = bytes.len() as u64;
        bytes[field::FILE_LEN..][..8].copy_from_slice(&len.to_le_bytes());
    }
    let body = CRC.checksum(&bytes[field::HEADER_LEN..]);
    bytes[field::BODY_CRC..][..4].copy_from_slice(&body.to_le_bytes());
    let header = CRC.checksum(&bytes[..field::HEADER_CRC]);
    bytes[field::HEADER_CRC..][..4].copy_from_slice(&header.to_le_bytes());
}

/// Any bytes are refused as local data or give records of theirs.
pub fn local_data(bytes: &[u8]) -> bool {
    let Ok(data) = LocalData::view(bytes) else {
        return false;
    };
    let inside = bytes.as_ptr_range();
    for name in ASKED.map(image::wire) {
        let labels = Labels::new(&name).expect("a name");
        data.resolve(
            &labels,
            dns::rtype::A,
            |_, _| false,
            |owner, record| {
                assert!(owner.len() <= NAME_MAX);
                let rdata = record.rdata.as_ptr_range();
                assert!(inside.start <= rdata.start && rdata.end <= inside.end);
            },
        );
    }
    true
}
