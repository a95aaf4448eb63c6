//! Queries as bytes, valid or not, as a test wants them: nothing here corrects anything.

use std::sync::atomic::{AtomicU16, Ordering};

/// Header flags (RFC 1035 section 4.1.1, RFC 4035 section 3).
pub mod flag {
    pub const QR: u16 = 0x8000;
    pub const AA: u16 = 0x0400;
    pub const TC: u16 = 0x0200;
    pub const RD: u16 = 0x0100;
    pub const RA: u16 = 0x0080;
    pub const Z: u16 = 0x0040;
    pub const AD: u16 = 0x0020;
    pub const CD: u16 = 0x0010;
}

/// Record types by their number (IANA DNS parameters).
pub mod rtype {
    pub const A: u16 = 1;
    pub const CNAME: u16 = 5;
    pub const SOA: u16 = 6;
    pub const HINFO: u16 = 13;
    pub const TXT: u16 = 16;
    pub const AAAA: u16 = 28;
    pub const OPT: u16 = 41;
    pub const ANY: u16 = 255;
}

/// Classes.
pub mod class {
    pub const IN: u16 = 1;
    pub const CH: u16 = 3;
}

/// EDNS options (IANA DNS EDNS0 option codes).
pub mod option {
    pub const NSID: u16 = 3;
    pub const CLIENT_SUBNET: u16 = 8;
    pub const COOKIE: u16 = 10;
    pub const KEEPALIVE: u16 = 11;
    pub const PADDING: u16 = 12;
    pub const EDE: u16 = 15;
}

/// A query. [`Ask::bytes`] writes it unchanged.
#[derive(Clone, Debug)]
pub struct Ask {
    id: u16,
    flags: u16,
    /// Section counts; `None`: the actual number.
    counts: [Option<u16>; 4],
    /// Questions: name in wire format, type and class.
    questions: Vec<Vec<u8>>,
    additionals: Vec<Vec<u8>>,
    tail: Vec<u8>,
}

impl Ask {
    /// A query with one question in class IN and RD, no EDNS, and an ID that no other query of this process has had lately.
    pub fn of(name: &str, rtype: u16) -> Self {
        Self::of_class(name, rtype, class::IN)
    }

    /// A query in another class.
    pub fn of_class(name: &str, rtype: u16, class: u16) -> Self {
        Self::raw(&question(&wire_name(name), rtype, class))
    }

    /// A query with these bytes as its question.
    pub fn raw(question: &[u8]) -> Self {
        Self {
            questions: vec![question.to_vec()],
            ..Self::without_question()
        }
    }

    /// A query with QDCOUNT 0.
    pub fn without_question() -> Self {
        static NEXT_ID: AtomicU16 = AtomicU16::new(0x6001);
        Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            flags: flag::RD,
            counts: [None; 4],
            questions: Vec::new(),
            additionals: Vec::new(),
            tail: Vec::new(),
        }
    }

    /// With one more question.
    pub fn and_question(mut self, name: &str, rtype: u16) -> Self {
        let more = question(&wire_name(name), rtype, class::IN);
        self.questions.push(more);
        self
    }

    /// With these flags and no others.
    pub fn flags(self, flags: u16) -> Self {
        Self { flags, ..self }
    }

    /// With these flags, too.
    pub fn with(self, flags: u16) -> Self {
        let flags = self.flags | flags;
        Self { flags, ..self }
    }

    /// With this opcode.
    pub fn opcode(self, opcode: u16) -> Self {
        self.with(opcode << 11)
    }

    /// Sets the count of section 0 to 3, whatever the section has.
    pub fn count(mut self, section: usize, count: u16) -> Self {
        self.counts[section] = Some(count);
        self
    }

    /// With a record in the additional section.
    pub fn and(mut self, record: &[u8]) -> Self {
        self.additionals.push(record.to_vec());
        self
    }

    /// With an OPT record.
    pub fn edns(self, opt: &OptRecord) -> Self {
        self.and(&opt.bytes())
    }

    /// With bytes after the message.
    pub fn tail(self, bytes: &[u8]) -> Self {
        Self {
            tail: bytes.to_vec(),
            ..self
        }
    }

    /// The message.
    pub fn bytes(&self) -> Vec<u8> {
        let there = [self.questions.len(), 0, 0, self.additionals.len()];
        let mut bytes = [self.id, self.flags].map(u16::to_be_bytes).concat();
        for (said, there) in self.counts.into_iter().zip(there) {
            let there = u16::try_from(there).expect("a few records");
            bytes.extend(said.unwrap_or(there).to_be_bytes());
        }
        bytes.extend(self.questions.concat());
        bytes.extend(self.additionals.concat());
        bytes.extend(&self.tail);
        bytes
    }
}

/// An OPT record.
#[derive(Clone, Debug)]
pub struct OptRecord {
    pub owner: Vec<u8>,
    pub size: u16,
    pub extended_rcode: u8,
    pub version: u8,
    pub flags: u16,
    pub rdata: Vec<u8>,
}

impl OptRecord {
    /// Version 0, no flags, no options.
    pub fn size(size: u16) -> Self {
        Self {
            owner: vec![0],
            size,
            extended_rcode: 0,
            version: 0,
            flags: 0,
            rdata: Vec::new(),
        }
    }

    /// Version 0 with DO.
    pub fn dnssec_ok(size: u16) -> Self {
        Self {
            flags: 0x8000,
            ..Self::size(size)
        }
    }

    /// With this version.
    pub fn version(self, version: u8) -> Self {
        Self { version, ..self }
    }

    /// With one more option.
    pub fn option(mut self, code: u16, data: &[u8]) -> Self {
        let len = u16::try_from(data.len()).expect("a short option");
        self.rdata.extend(code.to_be_bytes());
        self.rdata.extend(len.to_be_bytes());
        self.rdata.extend(data);
        self
    }

    /// With more RDATA, valid or not.
    pub fn garbage(mut self, bytes: &[u8]) -> Self {
        self.rdata.extend(bytes);
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let ttl = [self.extended_rcode, self.version];
        let len = u16::try_from(self.rdata.len()).expect("short options");
        [
            &self.owner[..],
            &rtype::OPT.to_be_bytes(),
            &self.size.to_be_bytes(),
            &ttl,
            &self.flags.to_be_bytes(),
            &len.to_be_bytes(),
            &self.rdata,
        ]
        .concat()
    }
}

/// A record as bytes.
pub fn record(owner: &str, rtype: u16, class: u16, ttl: u32, rdata: &[u8]) -> Vec<u8> {
    let len = u16::try_from(rdata.len()).expect("short data");
    let mut bytes = question(&wire_name(owner), rtype, class);
    bytes.extend(ttl.to_be_bytes());
    bytes.extend(len.to_be_bytes());
    bytes.extend(rdata);
    bytes
}

/// A question as bytes: a name in wire format, type, class.
pub fn question(name: &[u8], rtype: u16, class: u16) -> Vec<u8> {
    [name, &rtype.to_be_bytes(), &class.to_be_bytes()].concat()
}

/// A name in wire format. Labels are split at the dots and not checked.
pub fn wire_name(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in text.split('.').filter(|label| !label.is_empty()) {
        bytes.push(u8::try_from(label.len()).expect("a label"));
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes
}
