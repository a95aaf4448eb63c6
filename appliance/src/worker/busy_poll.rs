//! Busy polling for an upstream's answer, where it arrives sooner than a sleeping worker wakes.
//!
//! A server on this machine or on the same switch answers within some ten microseconds, and falling asleep and waking cost about
//! as much again. So a worker that has just asked polls for a while, and yields the processor each time: other threads, the
//! server itself maybe, go first. It polls only while answers arrive that soon. One late answer ends it, and the worker sleeps
//! after each question until an answer is soon again. (The kernel's haltpoll driver decides in the same way,
//! Documentation/virt/guest-halt-polling.rst.)

/// Decides whether a worker polls, and until when.
#[derive(Debug)]
pub struct BusyPoll {
    /// Longest polling time after a question, in nanoseconds; 0: never.
    span_ns: u64,
    /// When the latest question was sent, if no wait has begun since.
    asked_ns: Option<u64>,
    /// The latest answer came within the span.
    is_soon: bool,
}

impl BusyPoll {
    /// Polls for at most `span_us` microseconds after a question; 0: never.
    #[must_use]
    pub fn new(span_us: u32) -> Self {
        Self {
            span_ns: u64::from(span_us) * 1000,
            asked_ns: None,
            is_soon: false,
        }
    }

    /// True if the worker may poll at all.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.span_ns > 0
    }

    /// Notes that a question was sent.
    pub fn asked(&mut self, now_ns: u64) {
        self.asked_ns = Some(now_ns);
    }

    /// Notes an answer, `took_ns` after the latest question through its port.
    pub fn answered(&mut self, took_ns: u64) {
        self.is_soon = took_ns <= self.span_ns;
    }

    /// Called when the worker has nothing to do. End of polling on the clock of [`BusyPoll::asked`]; `None` if it should sleep.
    pub fn until(&mut self) -> Option<u64> {
        let asked_ns = self.asked_ns.take()?;
        self.is_soon.then_some(asked_ns + self.span_ns)
    }

    /// Notes that polling ended without an event.
    pub fn was_in_vain(&mut self) {
        self.is_soon = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN_NS: u64 = 50_000;

    fn polling() -> BusyPoll {
        let mut busy = BusyPoll::new(50);
        busy.asked(1_000_000);
        assert_eq!(busy.until(), None, "nobody knows yet how soon answers come");
        busy.answered(SPAN_NS);
        busy.asked(2_000_000);
        busy
    }

    #[test]
    fn polls_after_a_question_while_answers_are_soon() {
        let mut busy = polling();
        assert_eq!(busy.until(), Some(2_000_000 + SPAN_NS));
        assert_eq!(busy.until(), None, "once for a question");
        busy.asked(3_000_000);
        assert_eq!(busy.until(), Some(3_000_000 + SPAN_NS));
    }

    #[test]
    fn sleeps_once_an_answer_was_late_or_none_came() {
        let mut busy = polling();
        busy.answered(SPAN_NS + 1);
        assert_eq!(busy.until(), None);

        let mut busy = polling();
        busy.was_in_vain();
        assert_eq!(busy.until(), None);
        busy.asked(3_000_000);
        assert_eq!(busy.until(), None);
    }

    #[test]
    fn is_never_done_where_the_span_is_nothing() {
        let mut busy = BusyPoll::new(0);
        assert!(!busy.is_on());
        busy.answered(1);
        busy.asked(1);
        assert_eq!(busy.until(), None);
    }
}
