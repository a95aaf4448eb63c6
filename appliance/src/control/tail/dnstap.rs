//! dnstap: queries and answers for other programs, as CLIENT_QUERY and CLIENT_RESPONSE.
//!
//! ```text
//!  file:    START ─ frame ─ frame ─ ... ─ STOP
//!  socket:  READY ─► ◄─ ACCEPT   START ─ frame ─ ... ─ STOP ─► ◄─ FINISH
//! ```
//! Frame Streams (fstrm) around Protocol Buffers as in dnstap.proto. The few types of fields that it needs are encoded here.

use std::fs::File;
use std::io::{self, BufWriter, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::output;
use super::reader::SeenEntry;
use crate::store::tap::entry::{QueryPath, TapKind};

/// Prefix of a socket's path.
const UNIX: &str = "unix:";
/// Time that the other side has to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Maximum length of a control frame (fstrm), in bytes.
const CONTROL_BYTES_MAX: usize = 512;
const CONTENT_TYPE: &[u8] = b"protobuf:dnstap.Dnstap";
const CONTENT_TYPE_FIELD: u32 = 1;

/// Types of control frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
enum Control {
    Accept = 1,
    Start = 2,
    Stop = 3,
    Ready = 4,
    Finish = 5,
}

/// Fields of `Dnstap` in dnstap.proto.
mod outer {
    pub const VERSION: u32 = 2;
    pub const MESSAGE: u32 = 14;
    pub const TYPE: u32 = 15;
    /// Value of `TYPE`.
    pub const IS_MESSAGE: u64 = 1;
}

/// Fields of its `Message`.
mod field {
    pub const TYPE: u32 = 1;
    pub const SOCKET_FAMILY: u32 = 2;
    pub const SOCKET_PROTOCOL: u32 = 3;
    pub const QUERY_ADDRESS: u32 = 4;
    pub const QUERY_PORT: u32 = 6;
    pub const QUERY_SECS: u32 = 8;
    pub const QUERY_NANOS: u32 = 9;
    pub const QUERY_MESSAGE: u32 = 10;
    pub const RESPONSE_SECS: u32 = 12;
    pub const RESPONSE_NANOS: u32 = 13;
    pub const RESPONSE_MESSAGE: u32 = 14;
}

const CLIENT_QUERY: u64 = 5;
const CLIENT_RESPONSE: u64 = 6;

/// An output of dnstap messages.
#[derive(Debug)]
pub struct Dnstap {
    out: BufWriter<Stream>,
}

#[derive(Debug)]
enum Stream {
    File(File),
    Socket(UnixStream),
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.write(bytes),
            Self::Socket(socket) => socket.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Dnstap {
    /// Begins a stream: to the socket after `unix:`, or to a file.
    ///
    /// # Errors
    /// It cannot be opened, or the listener expects another protocol.
    pub fn open(path: &Path) -> io::Result<Self> {
        let socket = path.to_str().and_then(|path| path.strip_prefix(UNIX));
        let mut stream = match socket {
            None => Stream::File(output::new_file(path)?),
            Some(socket) => {
                let socket = UnixStream::connect(socket)?;
                socket.set_read_timeout(Some(PATIENCE))?;
                socket.set_write_timeout(Some(PATIENCE))?;
                Stream::Socket(socket)
            }
        };
        if let Stream::Socket(socket) = &stream {
            let mut socket = socket;
            socket.write_all(&control(Control::Ready))?;
            expect(socket, Control::Accept)?;
        }
        stream.write_all(&control(Control::Start))?;
        Ok(Self {
            out: BufWriter::new(stream),
        })
    }

    /// Writes an entry if it is a query or an answer, whether its bytes are complete or not.
    ///
    /// # Errors
    /// The disk is full, or the socket has no reader.
    pub fn write(&mut self, seen: &SeenEntry) -> io::Result<()> {
        if let Some(payload) = payload(seen) {
            self.out.write_all(&(payload.len() as u32).to_be_bytes())?;
            self.out.write_all(&payload)?;
        }
        Ok(())
    }

    /// Flushes to the kernel.
    ///
    /// # Errors
    /// The disk is full, or the socket has no reader.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// Ends the stream.
    ///
    /// # Errors
    /// As [`Self::write`], or the other side does not confirm that it has everything.
    pub fn finish(mut self) -> io::Result<()> {
        self.out.write_all(&control(Control::Stop))?;
        self.out.flush()?;
        match self.out.get_ref() {
            Stream::File(_) => Ok(()),
            Stream::Socket(socket) => expect(socket, Control::Finish),
        }
    }
}

/// A control frame, with the content type if its kind has one.
fn control(kind: Control) -> Vec<u8> {
    let mut body = (kind as u32).to_be_bytes().to_vec();
    if matches!(kind, Control::Ready | Control::Start) {
        body.extend(CONTENT_TYPE_FIELD.to_be_bytes());
        body.extend((CONTENT_TYPE.len() as u32).to_be_bytes());
        body.extend(CONTENT_TYPE);
    }
    let mut frame = 0u32.to_be_bytes().to_vec();
    frame.extend((body.len() as u32).to_be_bytes());
    frame.extend(body);
    frame
}

/// Reads a control frame of this kind.
fn expect(mut socket: &UnixStream, kind: Control) -> io::Result<()> {
    let wrong = |what: &str| io::Error::new(ErrorKind::InvalidData, what.to_owned());
    let mut word = || {
        let mut bytes = [0; 4];
        socket.read_exact(&mut bytes)?;
        Ok::<_, io::Error>(u32::from_be_bytes(bytes))
    };
    let (escape, len, found) = (word()?, word()? as usize, word()?);
    if escape != 0 || !(4..=CONTROL_BYTES_MAX).contains(&len) || found != kind as u32 {
        return Err(wrong("who listens there does not speak Frame Streams"));
    }
    let mut rest = vec![0; len - 4];
    socket.read_exact(&mut rest)?;
    // An ACCEPT without a content type accepts all.
    let names = |kind: &[u8]| kind.len() >= 8 && &kind[8..] == CONTENT_TYPE;
    if kind == Control::Accept && !rest.is_empty() && !names(&rest) {
        return Err(wrong("who listens there does not take dnstap"));
    }
    Ok(())
}

/// Frame of an entry. `None` if dnstap has no message for it.
fn payload(seen: &SeenEntry) -> Option<Vec<u8>> {
    let is_answer = match seen.entry.kind {
        TapKind::Query => false,
        TapKind::Answer | TapKind::Late => true,
        TapKind::Waiting | TapKind::Silence | TapKind::FrameIn | TapKind::FrameOut => return None,
    };
    let mut outer = ProtoFields::default();
    let version = concat!("xdnsd ", env!("CARGO_PKG_VERSION"));
    outer.bytes(outer::VERSION, version.as_bytes());
    outer.bytes(outer::MESSAGE, &message(seen, is_answer));
    outer.number(outer::TYPE, outer::IS_MESSAGE);
    Some(outer.0)
}

fn message(seen: &SeenEntry, is_answer: bool) -> Vec<u8> {
    let SocketAddrParts { address, is_v6 } = SocketAddrParts::of(seen.entry.client);
    // A truncated message would look malformed.
    let bytes = (seen.bytes.len() == seen.entry.len as usize).then_some(seen.bytes.as_slice());
    let mut fields = ProtoFields::default();
    let kind = if is_answer {
        CLIENT_RESPONSE
    } else {
        CLIENT_QUERY
    };
    fields.number(field::TYPE, kind);
    fields.number(field::SOCKET_FAMILY, if is_v6 { 2 } else { 1 });
    let is_tcp = seen.entry.via == QueryPath::Tcp;
    fields.number(field::SOCKET_PROTOCOL, if is_tcp { 2 } else { 1 });
    fields.bytes(field::QUERY_ADDRESS, &address);
    fields.number(field::QUERY_PORT, seen.entry.client.port().into());
    let asked = if is_answer {
        seen.waited.map(|waited| seen.wall.saturating_sub(waited))
    } else {
        Some(seen.wall)
    };
    if let Some(asked) = asked {
        fields.number(field::QUERY_SECS, asked.as_secs());
        fields.fixed(field::QUERY_NANOS, asked.subsec_nanos());
    }
    if is_answer {
        fields.number(field::RESPONSE_SECS, seen.wall.as_secs());
        fields.fixed(field::RESPONSE_NANOS, seen.wall.subsec_nanos());
        bytes
            .into_iter()
            .for_each(|bytes| fields.bytes(field::RESPONSE_MESSAGE, bytes));
    } else {
        bytes
            .into_iter()
            .for_each(|bytes| fields.bytes(field::QUERY_MESSAGE, bytes));
    }
    fields.0
}

/// An address in dnstap's form.
struct SocketAddrParts {
    address: Vec<u8>,
    is_v6: bool,
}

impl SocketAddrParts {
    fn of(address: SocketAddr) -> Self {
        match address.ip() {
            IpAddr::V4(ip) => Self {
                address: ip.octets().to_vec(),
                is_v6: false,
            },
            IpAddr::V6(ip) => Self {
                address: ip.octets().to_vec(),
                is_v6: true,
            },
        }
    }
}

/// Encoded fields of a Protocol Buffers message.
#[derive(Debug, Default)]
struct ProtoFields(Vec<u8>);

impl ProtoFields {
    /// Wire types.
    const VARINT: u32 = 0;
    const LENGTH: u32 = 2;
    const FIXED32: u32 = 5;

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn tag(&mut self, field: u32, kind: u32) {
        self.varint(u64::from(field << 3 | kind));
    }

    fn number(&mut self, field: u32, value: u64) {
        self.tag(field, Self::VARINT);
        self.varint(value);
    }

    fn fixed(&mut self, field: u32, value: u32) {
        self.tag(field, Self::FIXED32);
        self.0.extend(value.to_le_bytes());
    }

    fn bytes(&mut self, field: u32, bytes: &[u8]) {
        self.tag(field, Self::LENGTH);
        self.varint(bytes.len() as u64);
        self.0.extend(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::super::show::tests::{MESSAGE, seen};
    use super::*;
    use crate::store::tap::entry::AnswerReason;

    #[test]
    fn fields_are_written_as_protocol_buffers_are() {
        let mut fields = ProtoFields::default();
        fields.number(1, 300);
        fields.fixed(13, 1);
        fields.bytes(14, b"ab");
        assert_eq!(
            fields.0,
            [0x08, 0xac, 0x02, 0x6d, 1, 0, 0, 0, 0x72, 2, b'a', b'b']
        );
    }

    #[test]
    fn a_message_that_was_cut_is_left_out() {
        let holds = |payload: &[u8]| payload.windows(MESSAGE.len()).any(|part| part == MESSAGE);
        let whole = seen(TapKind::Late, AnswerReason::Upstream);
        assert!(payload(&whole).is_some_and(|payload| holds(&payload)));
        let mut cut = whole;
        cut.entry.len += 1;
        assert!(payload(&cut).is_some_and(|payload| !holds(&payload)));
        assert!(payload(&seen(TapKind::FrameIn, AnswerReason::Own)).is_none());
    }

    #[test]
    fn who_does_not_speak_it_is_told_from_who_does() {
        let said = |frame: Vec<u8>, kind| {
            let (ours, mut theirs) = UnixStream::pair().expect("a pair");
            theirs.write_all(&frame).expect("room");
            drop(theirs);
            expect(&ours, kind).map_err(|error| error.kind())
        };
        let bare = |kind: u32| [[0, 0, 0, 0], [0, 0, 0, 4], kind.to_be_bytes()].concat();
        assert_eq!(said(bare(1), Control::Accept), Ok(()));
        assert_eq!(said(bare(5), Control::Accept), Err(ErrorKind::InvalidData));
        assert_eq!(said(bare(5), Control::Finish), Ok(()));
        assert_eq!(
            said(b"SMTP".to_vec(), Control::Accept),
            Err(ErrorKind::UnexpectedEof)
        );
        let mut other = control(Control::Start);
        other[11] = Control::Accept as u8;
        assert_eq!(said(other.clone(), Control::Accept), Ok(()));
        *other.last_mut().expect("bytes") ^= 1;
        assert_eq!(said(other, Control::Accept), Err(ErrorKind::InvalidData));
    }
}
