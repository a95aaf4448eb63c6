//! TCP connections to upstreams, for answers that do not fit a datagram (RFC 7766).
//!
//! Questions to one server share a connection, which is kept open for a while (section 6.2.1), and none waits for the answer
//! to another (section 6.2.1.1). A server may answer in order all the same: while it keeps one question waiting, the next one
//! goes by another connection, and a client that has made two of them wait gets no third. An answer is read when all of it is there, so that one buffer serves them all.

mod connection;

use std::io;
use std::net::SocketAddr;

use nix::errno::Errno;
use nix::sys::epoll::Epoll;
use xdnsd_core::dns::header::HEADER_LEN;
use xdnsd_core::forward::via::{NoPort, StreamLoss};
use xdnsd_core::limits::{STREAM_QUESTIONS, STREAMS, TCP_MESSAGE_MAX};
use xdnsd_core::time::Instant;

use self::connection::{Connection, PREFIX, Read};
use super::ports::no_port;

/// A question that has no answer after this time is lost, in milliseconds.
const PATIENCE_MS: u64 = 5_000;
/// For how long a connection is kept that no question waits on, in milliseconds (RFC 7766 section 6.2.3: some seconds).
const KEEP_MS: u64 = 10_000;
/// A question that waits for so long may hold up those behind it, in milliseconds: they go by another connection.
const STALL_MS: u64 = 250;
/// Connections to one server.
const PER_SERVER: usize = 3;
/// Connections to one server that questions of one client may keep others away from.
const PER_CLIENT: usize = 2;
/// Longest question with its prefix.
const QUESTION_MAX: usize = 320;

/// What came by a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Nothing that is whole.
    Waiting,
    /// The answer to the question in `slot`: [`Streams::take_answer`] has it.
    Answered {
        /// The place of the question.
        slot: u16,
        /// Bytes of the answer.
        len: usize,
    },
    /// An answer that nobody waits for any more.
    Late,
    /// Something that is the answer to no question. The connection is closed.
    Malformed,
}

/// A question that has no answer, whose place is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    /// The place that it had.
    pub slot: u16,
    /// How it ended.
    pub loss: StreamLoss,
}

/// A question in a connection.
struct Question {
    /// The connection's index.
    connection: usize,
    /// The fair share bucket of the client that asked.
    bucket: u8,
    /// The ID by which the engine knows it.
    engine_id: u16,
    /// The ID that it has on its connection.
    id: u16,
    /// It, with its prefix.
    message: heapless::Vec<u8, QUESTION_MAX>,
    is_sent: bool,
    /// Whether it was asked once before, on a connection that the server closed.
    is_repeated: bool,
    asked: Instant,
    /// When it is lost. In the past: its connection has ended.
    deadline: Instant,
    /// How it is lost.
    loss: StreamLoss,
}

/// The connections of a worker, and the questions in them. No place to be had: `open` says so, and the question stays with
/// its truncated answer or waits.
pub struct Streams {
    connections: [Option<Connection>; STREAMS],
    /// As many as [`STREAM_QUESTIONS`], made before the worker is sealed.
    questions: Box<[Option<Question>]>,
    /// Places in use. Mostly none, and then nobody looks at them in a worker's turn.
    taken: usize,
    /// Where answers are read, made before the worker is sealed. `None`: one is in hand.
    buffer: Option<Buffer>,
}

/// One message.
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
    /// None open.
    pub fn new() -> Self {
        Self {
            connections: [const { None }; STREAMS],
            questions: (0..STREAM_QUESTIONS).map(|_| None).collect(),
            taken: 0,
            buffer: Some(vec![0; TCP_MESSAGE_MAX].into_boxed_slice()),
        }
    }

    /// Takes a place for a question to `to`, on a connection that is there or on a new one. Returns the place.
    ///
    /// # Errors
    /// All are in use, or there is no way to `to`.
    pub fn open(
        &mut self,
        to: SocketAddr,
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

    /// Gives the place its question, to be sent as soon as its connection stands. Whether it takes it; if not, the place is
    /// free again.
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
        // An error will come as an event, too: then all questions of the connection are seen to.
        question.is_sent = connection.is_connected() && connection.send(&question.message).is_ok();
        Some(())
    }

    /// Gives the place back. What is still answered is [`Progress::Late`].
    pub fn leave(&mut self, slot: u16) {
        if let Some(question) = self.take(usize::from(slot)) {
            self.note_left(&question);
        }
    }

    /// All places, if any is in use.
    fn places(&self) -> &[Option<Question>] {
        match self.taken {
            0 => &[],
            _ => &self.questions,
        }
    }

    /// Frees a place.
    fn take(&mut self, place: usize) -> Option<Question> {
        let question = self.questions.get_mut(place)?.take()?;
        self.taken -= 1;
        Some(question)
    }

    /// The answer to this question may still come.
    fn note_left(&mut self, question: &Question) {
        if let Some(connection) = &mut self.connections[question.connection] {
            connection.left += u16::from(question.is_sent);
        }
    }

    /// Goes on with the connection at `index` after an event, to the next message; to be called until it waits. The event
    /// comes once (EPOLLET).
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

    /// Frees the place of an answered question and hands the buffer out, which has the answer under the engine's ID, with who
    /// gave it. Nothing is read until the buffer is given back.
    pub fn take_answer(&mut self, slot: u16) -> Option<(Buffer, SocketAddr)> {
        let question = self.take(usize::from(slot))?;
        let to = self.connections[question.connection].as_ref()?.to;
        let mut buffer = self.buffer.take()?;
        buffer[..2].copy_from_slice(&question.engine_id.to_be_bytes());
        Some((buffer, to))
    }

    /// Gives the buffer back.
    pub fn give_back(&mut self, buffer: Buffer) {
        self.buffer = Some(buffer);
    }

    /// A question that is lost, whose place is free now. To be called until there is none.
    pub fn lost(&mut self, now: Instant, epoll: &Epoll) -> Option<Lost> {
        let is_lost = |place: &Option<Question>| {
            let question = place.as_ref();
            question.is_some_and(|question| question.deadline <= now)
        };
        let slot = self.places().iter().position(is_lost)?;
        let question = self.take(slot)?;
        // Silence since then: the connection may be dead, and others should not wait on it.
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

    /// Closes connections that no question has waited on for a while.
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

    /// Until when the connection at `index` is kept where no question waits on it.
    fn idle_until(&self, index: usize) -> Option<Instant> {
        let connection = self.connections[index].as_ref()?;
        (self.load(index) == 0).then(|| connection.last_heard + KEEP_MS)
    }

    /// Questions that wait on the connection at `index`.
    fn load(&self, index: usize) -> usize {
        self.on(index).count()
    }

    fn on(&self, index: usize) -> impl Iterator<Item = &Question> {
        let questions = self.questions.iter().flatten();
        questions.filter(move |question| question.connection == index)
    }

    /// The connection by which the next question to `to` goes.
    fn connection_to(
        &mut self,
        to: SocketAddr,
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

    /// Begins to connect to `to`, in the place of a connection that is idle if there is no other.
    fn connect(&mut self, to: SocketAddr, now: Instant, epoll: &Epoll) -> Result<usize, NoPort> {
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

    /// Closes the connection at `index`. A server may close one that was kept just when a question is under way: that one is
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
                // Its ID may be another's there, so it gets a new one.
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
    /// Whether it may hold up those behind it.
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

/// Why there is no connection. One that is refused at once is one whose refusal has been heard already.
fn why(error: &io::Error) -> NoPort {
    let errno = Errno::from_raw(error.raw_os_error().unwrap_or_default());
    if errno == Errno::ECONNREFUSED {
        NoPort::Unreachable
    } else {
        no_port(errno)
    }
}

/// How the questions of a connection that ended with `error` are lost.
fn loss_of(error: &io::Error) -> StreamLoss {
    match why(error) {
        NoPort::Unreachable => StreamLoss::Unreachable,
        NoPort::Full | NoPort::Failed => StreamLoss::Unanswered,
    }
}

#[cfg(test)]
mod tests;
