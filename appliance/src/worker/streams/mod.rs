//! TCP connections to upstreams, for answers that exceed a datagram (RFC 7766).
//!
//! Questions to one server share a connection, which is kept open for a while (section 6.2.1), and none waits for the answer to
//! another (section 6.2.1.1). A server may still answer in order: while it keeps one question waiting, the next one takes another
//! connection, and a client whose questions stall two connections gets no third. An answer is read once all of it has arrived, so
//! that one buffer serves all connections.

mod connection;

use std::io;
use std::net::SocketAddr;

use nix::errno::Errno;
use nix::sys::epoll::Epoll;
use xdnsd_core::dns::header::HEADER_LEN;
use xdnsd_core::forward::via::{Destination, NoPort, StreamLoss};
use xdnsd_core::limits::{STREAM_QUESTIONS, STREAMS, TCP_MESSAGE_MAX};
use xdnsd_core::time::Instant;

use self::connection::{Connection, PREFIX, Read};
use super::ports::no_port;

/// A question without an answer after this time is lost, in milliseconds.
const PATIENCE_MS: u64 = 5_000;
/// How long a connection without questions is kept, in milliseconds (RFC 7766 section 6.2.3: some seconds).
const KEEP_MS: u64 = 10_000;
/// A question pending for this long may block those behind it, which then take another connection, in milliseconds.
const STALL_MS: u64 = 250;
/// Most connections to one server.
const PER_SERVER: usize = 3;
/// Most connections to one server that may be stalled by questions of one client before its next question reuses one of them.
const PER_CLIENT: usize = 2;
/// Longest question with its prefix, in bytes.
const QUESTION_MAX: usize = 320;

/// Result of reading a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// No whole message.
    Waiting,
    /// The answer to the question in `slot`, for [`Streams::take_answer`].
    Answered {
        /// Slot of the question.
        slot: u16,
        /// Bytes of the answer.
        len: usize,
    },
    /// An answer that nobody waits for any more.
    Late,
    /// A message that answers no question. The connection is closed.
    Malformed,
}

/// A question that ended without an answer; its slot is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    /// The slot that it had.
    pub slot: u16,
    /// How it ended.
    pub loss: StreamLoss,
}

/// A question on a connection.
struct Question {
    /// Index of the connection.
    connection: usize,
    /// Fair-share bucket of the client that asked.
    bucket: u8,
    /// ID of the question in the engine.
    engine_id: u16,
    /// ID of the question on its connection.
    id: u16,
    /// The question with its length prefix.
    message: heapless::Vec<u8, QUESTION_MAX>,
    is_sent: bool,
    /// True if it was asked once before, on a connection that the server closed.
    is_repeated: bool,
    asked: Instant,
    /// When it is lost. In the past once its connection has ended.
    deadline: Instant,
    /// How it is lost.
    loss: StreamLoss,
}

/// TCP connections of a worker, and the questions on them. Full: `open` fails, and the question keeps its truncated answer or
/// waits.
pub struct Streams {
    connections: [Option<Connection>; STREAMS],
    /// [`STREAM_QUESTIONS`] slots, allocated before the worker is sealed.
    questions: Box<[Option<Question>]>,
    /// Slots in use. Usually none, and then a turn of the worker skips the slots.
    taken: usize,
    /// Read buffer, allocated before the worker is sealed. `None` while an answer is being processed.
    buffer: Option<Buffer>,
}

/// Buffer for one message.
type Buffer = Box<[u8]>;
/// Bytes of the buffer and of the questions of one worker, for the memory budget.
pub const BUFFER_BYTES: usize =
    TCP_MESSAGE_MAX + size_of::<Streams>() + STREAM_QUESTIONS * size_of::<Option<Question>>();

impl Default for Streams {
    fn default() -> Self {
        Self::new()
    }
}

impl Streams {
    /// Without connections.
    pub fn new() -> Self {
        Self {
            connections: [const { None }; STREAMS],
            questions: (0..STREAM_QUESTIONS).map(|_| None).collect(),
            taken: 0,
            buffer: Some(vec![0; TCP_MESSAGE_MAX].into_boxed_slice()),
        }
    }

    /// Takes a slot for a question to `to`, on an existing connection or on a new one. Returns the slot.
    ///
    /// # Errors
    /// [`NoPort::Full`] if all are in use; otherwise why no connection to `to` can be had.
    pub fn open(
        &mut self,
        to: Destination,
        bucket: u8,
        now: Instant,
        epoll: &Epoll,
    ) -> Result<u16, NoPort> {
        let free = self.questions.iter().position(Option::is_none);
        let slot = free.ok_or(NoPort::Full)?;
        let connection = self.connection_to(to, bucket, now, epoll)?;
        self.questions[slot] = Some(Question {
            connection,
            bucket,
            engine_id: 0,
            id: 0,
            message: heapless::Vec::new(),
            is_sent: false,
            is_repeated: false,
            asked: now,
            deadline: now + PATIENCE_MS,
            loss: StreamLoss::Unanswered,
        });
        self.taken += 1;
        Ok(slot as u16)
    }

    /// Stores the question of `slot`, and sends it once its connection is established. False if it is refused; the slot is then
    /// free.
    pub fn ask(&mut self, slot: u16, message: &[u8]) -> bool {
        let place = usize::from(slot);
        let asked = self.write_question(place, message);
        if asked.is_none() {
            self.leave(slot);
        }
        asked.is_some()
    }

    fn write_question(&mut self, place: usize, message: &[u8]) -> Option<()> {
        let question = self.questions.get_mut(place)?.as_mut()?;
        let connection = self.connections[question.connection].as_mut()?;
        let id = message.first_chunk()?;
        let len = u16::try_from(message.len()).ok()?;
        question.engine_id = u16::from_be_bytes(*id);
        question.id = connection.next_id();
        question.message.clear();
        let parts = [
            &len.to_be_bytes(),
            &question.id.to_be_bytes(),
            &message[2..],
        ];
        for part in parts {
            question.message.extend_from_slice(part).ok()?;
        }
        // An error arrives as an event, too, and ends all questions of the connection.
        question.is_sent = connection.is_connected() && connection.send(&question.message).is_ok();
        Some(())
    }

    /// Frees the slot. An answer that still arrives is [`Progress::Late`].
    pub fn leave(&mut self, slot: u16) {
        if let Some(question) = self.take(usize::from(slot)) {
            self.note_left(&question);
        }
    }

    /// All slots, or none while none is in use.
    fn places(&self) -> &[Option<Question>] {
        match self.taken {
            0 => &[],
            _ => &self.questions,
        }
    }

    /// Frees a slot.
    fn take(&mut self, place: usize) -> Option<Question> {
        let question = self.questions.get_mut(place)?.take()?;
        self.taken -= 1;
        Some(question)
    }

    /// Notes that the answer to `question` may still arrive.
    fn note_left(&mut self, question: &Question) {
        if let Some(connection) = &mut self.connections[question.connection] {
            connection.left += u16::from(question.is_sent);
        }
    }

    /// Reads from the connection at `index` after an event, up to the next message; call again until it returns
    /// [`Progress::Waiting`], since events are edge-triggered (EPOLLET).
    pub fn progress(&mut self, index: u16, now: Instant, epoll: &Epoll) -> Progress {
        let index = usize::from(index);
        let progress = self.read(index, now);
        match &progress {
            Ok(Progress::Malformed) => self.end(index, StreamLoss::Unanswered, now, epoll),
            Ok(_) => {}
            Err(error) => self.end(index, loss_of(error), now, epoll),
        }
        progress.unwrap_or(Progress::Waiting)
    }

    fn read(&mut self, index: usize, now: Instant) -> io::Result<Progress> {
        let (Some(Some(connection)), Some(buffer)) =
            (self.connections.get_mut(index), &mut self.buffer)
        else {
            return Ok(Progress::Waiting);
        };
        if !connection.is_connected() && !connection.has_connected()? {
            return Ok(Progress::Waiting);
        }
        let waiting = self.questions.iter_mut().flatten();
        for question in waiting.filter(|one| one.connection == index && !one.is_sent) {
            connection.send(&question.message)?;
            question.is_sent = true;
        }
        let len = match connection.read(buffer)? {
            Read::Nothing => return Ok(Progress::Waiting),
            Read::Message(len) if len < HEADER_LEN => return Ok(Progress::Malformed),
            Read::Message(len) => len,
        };
        connection.last_heard = now;
        let id = u16::from_be_bytes([buffer[0], buffer[1]]);
        let is_asked = |question: &Option<Question>| {
            let question = question.as_ref();
            question.is_some_and(|one| one.connection == index && one.is_sent && one.id == id)
        };
        let Some(slot) = self.questions.iter().position(is_asked) else {
            let is_late = connection.left > 0;
            connection.left = connection.left.saturating_sub(1);
            return Ok(if is_late {
                Progress::Late
            } else {
                Progress::Malformed
            });
        };
        connection.has_answered = true;
        let slot = slot as u16;
        Ok(Progress::Answered { slot, len })
    }

    /// Frees the slot of an answered question and lends the buffer with the answer, under the engine's ID, and the server's
    /// address. Nothing is read until the buffer is given back.
    pub fn take_answer(&mut self, slot: u16) -> Option<(Buffer, SocketAddr)> {
        let question = self.take(usize::from(slot))?;
        let to = self.connections[question.connection].as_ref()?.to.address;
        let mut buffer = self.buffer.take()?;
        buffer[..2].copy_from_slice(&question.engine_id.to_be_bytes());
        Some((buffer, to))
    }

    /// Gives the buffer back.
    pub fn give_back(&mut self, buffer: Buffer) {
        self.buffer = Some(buffer);
    }

    /// Takes a lost question; its slot is free. Call until it returns `None`.
    pub fn lost(&mut self, now: Instant, epoll: &Epoll) -> Option<Lost> {
        let is_lost = |place: &Option<Question>| {
            let question = place.as_ref();
            question.is_some_and(|question| question.deadline <= now)
        };
        let slot = self.places().iter().position(is_lost)?;
        let question = self.take(slot)?;
        // Silent since the question was asked: the connection may be dead, and others must not wait on it.
        match &self.connections[question.connection] {
            Some(connection) if connection.last_heard <= question.asked => {
                self.end(question.connection, StreamLoss::Unanswered, now, epoll);
            }
            Some(_) | None => self.note_left(&question),
        }
        Some(Lost {
            slot: slot as u16,
            loss: question.loss,
        })
    }

    /// Closes connections that have been without questions for long enough.
    pub fn close_idle(&mut self, now: Instant) {
        for index in 0..STREAMS {
            let is_over = self.idle_until(index).is_some_and(|until| until <= now);
            if is_over {
                self.connections[index] = None;
            }
        }
    }

    /// When the next question is lost, or the next connection idle for too long.
    pub fn next_deadline(&self) -> Option<Instant> {
        let questions = self.places().iter().flatten();
        let lost = questions.map(|question| question.deadline);
        let idle = (0..STREAMS).filter_map(|index| self.idle_until(index));
        lost.chain(idle).min()
    }

    /// How long the connection at `index` is kept, if it has no questions.
    fn idle_until(&self, index: usize) -> Option<Instant> {
        let connection = self.connections[index].as_ref()?;
        (self.load(index) == 0).then(|| connection.last_heard + KEEP_MS)
    }

    /// Number of questions on the connection at `index`.
    fn load(&self, index: usize) -> usize {
        self.on(index).count()
    }

    fn on(&self, index: usize) -> impl Iterator<Item = &Question> {
        let questions = self.questions.iter().flatten();
        questions.filter(move |question| question.connection == index)
    }

    /// The connection for the next question to `to`.
    fn connection_to(
        &mut self,
        to: Destination,
        bucket: u8,
        now: Instant,
        epoll: &Epoll,
    ) -> Result<usize, NoPort> {
        let is_to = |place: &Option<Connection>| place.as_ref().is_some_and(|one| one.to == to);
        let present = || (0..STREAMS).filter(|index| is_to(&self.connections[*index]));
        let stalls = |index| self.on(index).any(|one| one.is_stalled(now));
        let is_own = |one: &Question| one.bucket == bucket && one.is_stalled(now);
        let own = || present().filter(|index| self.on(*index).any(is_own));
        if own().count() >= PER_CLIENT {
            let least = own().min_by_key(|index| self.load(*index));
            return least.ok_or(NoPort::Full);
        }
        let best = present().min_by_key(|index| (stalls(*index), self.load(*index)));
        match best {
            Some(best) if !stalls(best) || present().count() >= PER_SERVER => Ok(best),
            Some(best) => Ok(self.connect(to, now, epoll).unwrap_or(best)),
            None => self.connect(to, now, epoll),
        }
    }

    /// Begins to connect to `to`; without a free place it replaces an idle connection.
    fn connect(&mut self, to: Destination, now: Instant, epoll: &Epoll) -> Result<usize, NoPort> {
        let free = self.connections.iter().position(Option::is_none);
        let index = free.or_else(|| {
            let idle = (0..STREAMS).filter_map(|index| Some((self.idle_until(index)?, index)));
            idle.min().map(|(_, index)| index)
        });
        let index = index.ok_or(NoPort::Full)?;
        self.connections[index] = None;
        let connection = Connection::open(to, index as u16, now, epoll).map_err(|e| why(&e))?;
        self.connections[index] = Some(connection);
        Ok(index)
    }

    /// Closes the connection at `index`. A server may close an idle connection just as a question is sent: such a question is
    /// asked once more, on a new connection. The others are lost by `loss`.
    fn end(&mut self, index: usize, loss: StreamLoss, now: Instant, epoll: &Epoll) {
        let Some(ended) = self.connections[index].take() else {
            return;
        };
        let repeats = |question: &Question| ended.has_answered && !question.is_repeated;
        let is_any = self.on(index).any(repeats);
        let (again, loss) = match is_any.then(|| self.connect(ended.to, now, epoll)) {
            Some(Ok(again)) => (Some(again), loss),
            Some(Err(NoPort::Unreachable)) => (None, StreamLoss::Unreachable),
            Some(Err(NoPort::Full | NoPort::Failed)) | None => (None, loss),
        };
        let questions = self.questions.iter_mut().flatten();
        for question in questions.filter(|one| one.connection == index) {
            match again.filter(|_| ended.has_answered && !question.is_repeated) {
                // Another question may have the same ID there.
                Some(again) => {
                    question.connection = again;
                    question.is_repeated = true;
                    question.is_sent = false;
                    if let Some(connection) = &mut self.connections[again] {
                        question.renumber(connection.next_id());
                    }
                }
                None => {
                    question.deadline = Instant::default();
                    question.loss = loss;
                }
            }
        }
    }
}

impl Question {
    /// True if it may block those behind it.
    fn is_stalled(&self, now: Instant) -> bool {
        self.asked + STALL_MS <= now
    }

    fn renumber(&mut self, id: u16) {
        self.id = id;
        if let Some(bytes) = self.message.get_mut(PREFIX..PREFIX + 2) {
            bytes.copy_from_slice(&id.to_be_bytes());
        }
    }
}

/// Maps an error to why there is no connection. ECONNREFUSED counts as unreachable, like a refusal that arrives later.
fn why(error: &io::Error) -> NoPort {
    let errno = Errno::from_raw(error.raw_os_error().unwrap_or_default());
    if errno == Errno::ECONNREFUSED {
        NoPort::Unreachable
    } else {
        no_port(errno)
    }
}

/// How questions are lost whose connection ended with `error`.
fn loss_of(error: &io::Error) -> StreamLoss {
    match why(error) {
        NoPort::Unreachable => StreamLoss::Unreachable,
        NoPort::Full | NoPort::Failed => StreamLoss::Unanswered,
    }
}

#[cfg(test)]
mod tests;
