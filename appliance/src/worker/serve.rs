//! What a worker does when one of its sources has an event.

use std::ops::Range;

use xdnsd_core::counters::Counter;
use xdnsd_core::counters::answers::AnswerWay;
use xdnsd_core::counters::latency::Tier;
use xdnsd_core::dns::header::{HEADER_LEN, Header, flag};
use xdnsd_core::dns::query;
use xdnsd_core::engine::{Client, Context, Outcome, Transport};
use xdnsd_core::forward::via::{ResponseOrigin, SourcePort, Via};
use xdnsd_core::limits::{BATCH, TCP_QUERY_MAX};
use xdnsd_core::wire;

use super::Worker;
use super::hot::GivenAnswer;
use super::io::{Io, ReplyPath};
use super::ports::lookup::PART;
use super::ports::{PortEvent, Unsent};
use super::sources::may_answer_frame;
use super::streams::{Lost, Progress};
use super::tapped::Asker;
use super::tcp::{self, Accepted, QUERY_MS};
use crate::os::clock;
use crate::os::datagrams::{DATAGRAMS_MAX, Datagram};
use crate::os::xsk::{Frame, prefetch};
use crate::store::HOT;
use crate::store::tap::entry::QueryPath;

/// Batches of frames in one turn: under load a wait after every batch costs as much as ten answers, and with this bound
/// upstreams, kernel sockets and the heartbeat wait for no more than some hundred microseconds.
const BATCHES: usize = 8;

impl Worker<'_> {
    /// Serves frames from the RX rings, one batch of each in rotation, until they are empty, or [`BATCHES`] batches. True if
    /// there may be more.
    pub(super) fn serve_xsks(&mut self, context: &Context<'_>) -> bool {
        let (mut batches, mut empty) = (0, 0);
        while empty < self.io.xsks.len() {
            if batches == BATCHES {
                return true;
            }
            if self.next_xsk >= self.io.xsks.len() {
                self.next_xsk = 0;
            }
            if self.serve_xsk(context, self.next_xsk) {
                (batches, empty) = (batches + 1, 0);
            } else {
                empty += 1;
            }
            self.next_xsk += 1;
        }
        false
    }

    /// Serves a batch of one socket. True if there was any frame.
    fn serve_xsk(&mut self, context: &Context<'_>, xsk: usize) -> bool {
        let count = self.io.xsks.receive(xsk, &mut self.batch);
        if count == 0 {
            return false;
        }
        let since_ns = clock::monotonic_ns();
        let answers_before = self.io.counters.get(Counter::AnswersXdp);
        self.io.counters.add(Counter::QueriesXdp, count as u64);
        while let Some(frame) = self.batch.pop() {
            // The next frame is prefetched while this one is answered.
            self.batch.last().into_iter().for_each(prefetch);
            self.answer_frame(context, xsk, frame);
        }
        let answers = self.io.counters.get(Counter::AnswersXdp);
        let answers = answers.wrapping_sub(answers_before);
        self.flush_questions(context);
        self.io.xsks.flush(xsk);
        self.observe(Tier::AfXdp, since_ns, answers);
        true
    }

    /// Counts answers that were given at once, the first query of which came at `since_ns` on the monotonic clock.
    fn observe(&self, tier: Tier, since_ns: u64, answers: u64) {
        if answers > 0 {
            let micros = clock::monotonic_ns().saturating_sub(since_ns) / 1000;
            self.io.counters.latency(tier).observe(micros, answers);
        }
    }

    /// Answers one query in its own frame, or gives the frame back.
    fn answer_frame(&mut self, context: &Context<'_>, xsk: usize, mut frame: Frame) {
        let Ok((path, message)) = wire::parse(frame.data()) else {
            self.io.counters.count(Counter::FramesRejected);
            if let Some(stats) = self.io.xsks.stats(xsk) {
                stats.count(Counter::FramesRejected);
            }
            return self.release(xsk, frame);
        };
        let is_fit = may_answer_frame(context.policy, path.client());
        if !is_fit || path.is_client_group() {
            self.io.counters.count(Counter::IgnoredSources);
            return self.release(xsk, frame);
        }
        let client = Client {
            reply_path: ReplyPath::Xsk {
                path,
                socket_generation: self.io.xsks.generation(xsk),
            },
            address: path.client().ip(),
            transport: Transport::Udp,
            device: self.device_of_frame(context, xsk, &path),
        };
        let seen = self.io.tap.asked_in_frame(&path, frame.data(), &message);
        // The stamp must be older than the cache lookup.
        let is_noted = self.hot.is_some() && HOT.is_asked();
        let valid = is_noted.then(|| HOT.valid(context.policy.generation));
        self.engine.note_hits(is_noted);
        let room = &mut frame.bytes_mut()[message.start..];
        let len = message.len();
        let call = &mut context.call(&mut self.io);
        let outcome = self.engine.query(call, &client, room, len);
        if let Some(seen) = &seen {
            self.io.tap.became(seen, outcome, room);
        }
        let Outcome::Reply(len) = outcome else {
            return self.release(xsk, frame);
        };
        if let Some((hot, valid)) = self.hot.as_mut().zip(valid)
            && let Some(fresh) = self.engine.take_noted()
        {
            let given = GivenAnswer {
                reply: &room[..len],
                fresh,
                client: client.address,
                on_link: context.policy.on_link,
                valid,
            };
            hot.note(&given, context.now);
        }
        match path.emit(frame.bytes_mut(), len) {
            Ok(frame_len) => {
                if seen.is_some() {
                    self.io.tap.frame_out(&frame.bytes_mut()[..frame_len]);
                }
                self.transmit(xsk, frame, path.header_len()..frame_len);
            }
            Err(_) => self.release(xsk, frame),
        }
    }

    /// Index of the device by which the views judge this query; 0 where no view depends on a device.
    fn device_of_frame(&self, context: &Context<'_>, xsk: usize, path: &wire::Path) -> u32 {
        let views = context.views;
        if views.devices.is_empty() {
            return 0;
        }
        let carrier = self.io.xsks.device(xsk);
        let tags = path.tags();
        let untagged = tags.is_empty().then(|| self.io.xsks.vlan(xsk));
        views.device_of(carrier, tags.iter().map(|tag| tag.id()).chain(untagged))
    }

    /// Sends a frame that ends with this message.
    fn transmit(&mut self, xsk: usize, mut frame: Frame, message: Range<usize>) {
        let header = frame.bytes_mut()[message.start..].first_chunk();
        let header: [u8; HEADER_LEN] = header.copied().unwrap_or_default();
        match self.io.xsks.transmit(xsk, frame, message.end) {
            Ok(()) => self.io.count_answer(AnswerWay::AfXdp, &header),
            Err(frame) => {
                self.io.count_tx_full(xsk);
                self.release(xsk, frame);
            }
        }
    }

    fn release(&mut self, xsk: usize, frame: Frame) {
        self.io.xsks.release(xsk, frame);
    }

    /// Serves a batch of queries of one kernel UDP socket.
    pub(super) fn serve_listener(&mut self, context: &Context<'_>, index: u16) {
        let since_ns = clock::monotonic_ns();
        let answers = self.answer_datagrams(context, index);
        self.observe(Tier::Kernel, since_ns, answers);
    }

    /// Answers what the socket has, at most [`BATCH`] queries. Returns how many got their answer at once.
    fn answer_datagrams(&mut self, context: &Context<'_>, index: u16) -> u64 {
        let mut answers = 0;
        for _ in 0..BATCH {
            let received = self.io.receive_udp(index, &mut self.buffer);
            let Some(datagram) = received else {
                break;
            };
            let Datagram { len, device, .. } = datagram;
            let address = datagram.from;
            let is_own = context.policy.is_own(address.ip().to_canonical());
            let ingress = self.io.arrivals.ingress(device, is_own);
            self.io.counters.count(Counter::QueriesUdp);
            self.io.arrivals.count(ingress, Counter::QueriesUdp);
            if !self.io.sources.may_answer(context.policy, address) {
                self.io.counters.count(Counter::IgnoredSources);
                continue;
            }
            if !context.policy.may_come_by(address.ip(), device) {
                self.io.counters.count(Counter::AclDropped);
                continue;
            }
            let client = Client {
                reply_path: ReplyPath::Udp {
                    listener: index,
                    client: address,
                    ingress,
                },
                address: address.ip().to_canonical(),
                transport: Transport::Udp,
                device: if is_own { 0 } else { device },
            };
            let asker = Asker {
                client: address,
                via: QueryPath::Udp,
            };
            let outcome = self.answer_in_buffer(context, &client, asker, len);
            if let Outcome::Reply(len) = outcome {
                self.io
                    .reply_udp(index, address, ingress, &self.buffer[..len]);
                answers += 1;
            }
        }
        answers
    }

    /// Serves the connected socket of one question: there is one answer.
    pub(super) fn serve_connected(&mut self, context: &Context<'_>, place: u16) {
        let arrived = self.io.ports.connected.receive(place, &mut self.buffer);
        self.serve_upstream(context, arrived, 0);
    }

    /// Serves the socket that receives all answers of a family: a batch, while questions are in flight. A receive that finds
    /// nothing costs as much as a wait.
    pub(super) fn serve_answers(&mut self, context: &Context<'_>, v6: bool) {
        for _ in 0..BATCH / DATAGRAMS_MAX {
            let Some(lookup) = &self.io.ports.lookup else {
                return;
            };
            let (batch, has_more) = lookup.receive(v6, &mut self.buffer);
            for (part, received) in &batch {
                let start = part * PART;
                if received.is_truncated {
                    // As a server would have set it that keeps to the advertised size (RFC 6891 section 4.3).
                    set_truncated(&mut self.buffer[start..start + received.len]);
                }
                if let Some(lookup) = &self.io.ports.lookup {
                    let arrived = lookup.arrived(received);
                    self.serve_upstream(context, arrived, start);
                }
            }
            if !has_more || self.engine.in_flight() == 0 {
                return;
            }
        }
    }

    /// Serves one ICMP error.
    pub(super) fn serve_errors(&mut self, context: &Context<'_>, v6: bool) {
        let Some(lookup) = &self.io.ports.lookup else {
            return;
        };
        let arrived = lookup.receive_error(v6, &mut self.buffer);
        self.serve_upstream(context, arrived, 0);
    }

    /// Handles `arrived`; its message is in the buffer from `start` on.
    fn serve_upstream(&mut self, context: &Context<'_>, arrived: PortEvent, start: usize) {
        let Self {
            engine, io, buffer, ..
        } = self;
        match arrived {
            PortEvent::Message {
                port,
                question,
                len,
                from,
            } => {
                io.note_answered(port);
                io.tap.turns_to(Some(from));
                let via = Via::Datagram { port };
                let origin = ResponseOrigin {
                    via,
                    question,
                    from,
                };
                let call = &mut context.call(io);
                engine.response(call, &origin, &mut buffer[start..start + len]);
            }
            PortEvent::Unreachable { port, question, id } => {
                io.tap.turns_to(None);
                engine.unreachable(&mut context.call(io), SourcePort { port, question }, id);
            }
            PortEvent::Nothing => {}
        }
    }

    /// Sends the questions that wait. One that cannot be sent counts as unreachable: another server is asked.
    pub(super) fn flush_questions(&mut self, context: &Context<'_>) {
        // Bound: every question has few attempts.
        loop {
            let unsent = self.io.ports.flush();
            if unsent.is_empty() {
                return;
            }
            for Unsent { port, question } in unsent {
                let Self { engine, io, .. } = self;
                engine.unreachable(&mut context.call(io), SourcePort { port, question }, None);
            }
        }
    }

    /// Serves a connection to an upstream.
    pub(super) fn serve_stream(&mut self, context: &Context<'_>, index: u16) {
        // Bound: each message is the answer to a question that was asked, or the last one.
        loop {
            let Self { engine, io, .. } = self;
            match io.streams.progress(index, io.now, &io.epoll) {
                Progress::Waiting => return,
                Progress::Late => io.counters.count(Counter::UpstreamLate),
                Progress::Malformed => io.counters.count(Counter::UpstreamMalformed),
                Progress::Answered { slot, len } => {
                    // Frees the place for another question before the engine takes the answer.
                    let Some((mut buffer, from)) = io.streams.take_answer(slot) else {
                        return;
                    };
                    io.tap.turns_to(Some(from));
                    let origin = ResponseOrigin {
                        via: Via::Stream { slot },
                        question: u16::MAX,
                        from,
                    };
                    engine.response(&mut context.call(io), &origin, &mut buffer[..len]);
                    io.streams.give_back(buffer);
                }
            }
        }
    }

    /// Tells the engine of questions that a stream left unanswered, and closes idle connections.
    pub(super) fn expire_streams(&mut self, context: &Context<'_>) {
        let now = self.io.now;
        // Bound: each question is sent a few times at most.
        while let Some(Lost { slot, loss }) = self.io.streams.lost(now, &self.io.epoll) {
            self.io.tap.turns_to(None);
            let call = &mut context.call(&mut self.io);
            self.engine.lost(call, slot, loss);
        }
        self.io.streams.close_idle(now);
    }

    /// Accepts a batch of connections.
    pub(super) fn serve_tcp_listener(&mut self, context: &Context<'_>, index: u16) {
        let now = self.io.now;
        for _ in 0..BATCH {
            let Io {
                tcp,
                epoll,
                arrivals,
                ..
            } = &mut self.io;
            match tcp.accept(index, now, context.policy, arrivals, epoll) {
                Accepted::One => {}
                Accepted::Stranger => self.io.counters.count(Counter::AclDropped),
                Accepted::None => break,
                Accepted::Paused(trouble) => {
                    self.io.notices.put_trouble(trouble);
                    break;
                }
            }
        }
        // Each new connection, and each pause, has a deadline.
        self.next_expiry = Some(now);
    }

    /// Serves a batch of queries of one connection.
    pub(super) fn serve_tcp_client(&mut self, context: &Context<'_>, slot: u16) {
        let since_ns = clock::monotonic_ns();
        let (mut answers, mut is_closed) = (0, false);
        for _ in 0..BATCH {
            match self.io.tcp.read(slot, context.now, &mut self.buffer) {
                tcp::TcpRead::Query(len) => {
                    answers += u64::from(self.answer_tcp(context, slot, len));
                }
                tcp::TcpRead::Nothing => break,
                tcp::TcpRead::Closed => {
                    is_closed = true;
                    break;
                }
            }
        }
        self.observe(Tier::Kernel, since_ns, answers);
        if is_closed {
            return;
        }
        self.io.tcp.wait(slot, &self.io.epoll);
        // A partial query has an earlier deadline than an idle connection.
        let deadline = context.now + QUERY_MS;
        self.next_expiry = Some(self.next_expiry.map_or(deadline, |next| next.min(deadline)));
    }

    /// Returns true if the query got its answer at once.
    fn answer_tcp(&mut self, context: &Context<'_>, slot: u16, len: usize) -> bool {
        let Some((id, peer)) = self.io.tcp.client(slot) else {
            return false;
        };
        self.io.counters.count(Counter::QueriesTcp);
        let ingress = self.io.tcp.ingress(id);
        self.io.arrivals.count(ingress, Counter::QueriesTcp);
        let client = Client {
            reply_path: ReplyPath::Tcp(id),
            address: peer.ip().to_canonical(),
            transport: Transport::Tcp,
            device: self.io.tcp.device(id),
        };
        self.io.tcp.expect(id);
        let asker = Asker {
            client: peer,
            via: QueryPath::Tcp,
        };
        let outcome = self.answer_in_buffer(context, &client, asker, len);
        match outcome {
            Outcome::Reply(len) => self.io.reply_tcp(id, &self.buffer[..len]),
            Outcome::Pending => {}
            Outcome::Silence => self.io.tcp.forget(id),
        }
        matches!(outcome, Outcome::Reply(_))
    }

    /// Answers the query in the buffer, over which the answer is written; the tap gets both.
    fn answer_in_buffer(
        &mut self,
        context: &Context<'_>,
        client: &Client<ReplyPath>,
        asker: Asker,
        len: usize,
    ) -> Outcome {
        let buffer = &mut self.buffer;
        // The first bytes of a longer one.
        let len = match len {
            TCP_QUERY_MAX.. => query::shorten(&mut buffer[..len]),
            _ => len,
        };
        let seen = self.io.tap.asked(asker, &buffer[..len]);
        let call = &mut context.call(&mut self.io);
        let outcome = self.engine.query(call, client, buffer, len);
        if let Some(seen) = &seen {
            self.io.tap.became(seen, outcome, buffer);
        }
        outcome
    }
}

/// Sets TC in a message.
fn set_truncated(message: &mut [u8]) {
    if let Some(mut header) = Header::parse(message) {
        header.flags |= flag::TC;
        header.emit(message);
    }
}
