//! Frames in bulk: a thread that makes the kernel send as fast as its core can.
//!
//! Frames are made by a BPF program that runs on copies of one frame (BPF_PROG_TEST_RUN with live frames) and redirects them to a
//! device, without sockets and socket buffers: one core makes several times what a responder answers, so the responder's core is
//! what is measured. On a veth pair the receive side (the driver's NAPI, the XDP program, the copy into the UMEM) runs on the
//! sender's core.

use std::io::ErrorKind;
use std::os::unix::thread::JoinHandleExt;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::pthread::pthread_kill;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::unistd::Pid;

use crate::bpf::instruction::Instruction;
use crate::bpf::{LIVE_BATCH, Program};
use crate::netns::Namespace;
use crate::wait::wait_until;

/// More frames than any run lasts for.
pub const ENDLESS: u32 = u32::MAX;
/// Signal that interrupts the system call.
const INTERRUPT: Signal = Signal::SIGUSR1;
/// Time for a stopped sender to end.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// A frame, and the program that derives many frames from it.
#[derive(Clone, Debug)]
pub struct Live {
    program: Arc<Program>,
    frame: Vec<u8>,
    batch: u32,
}

/// A sender that runs until it has sent all or is stopped.
///
/// Each system call ends with a wait for its page pool, which may last as long as the call. So there is one call, cut short by a
/// signal.
#[derive(Debug)]
pub struct Running {
    thread: JoinHandle<Result<()>>,
}

impl Live {
    /// Loads a program that sends frames derived from `frame`.
    ///
    /// # Errors
    /// The kernel refused the program.
    pub fn new(instructions: &[Instruction], frame: Vec<u8>) -> Result<Self> {
        let action = SigAction::new(
            SigHandler::Handler(interrupt),
            SaFlags::empty(),
            SigSet::empty(),
        );
        // SAFETY: the handler does nothing, so it may run at any point of any thread. The signal has no other use here.
        unsafe { sigaction(INTERRUPT, &action) }.context("handle the signal that ends a sender")?;
        let program = Program::load(instructions).context("load the program that sends")?;
        Ok(Self {
            program: Arc::new(program),
            frame,
            batch: LIVE_BATCH,
        })
    }

    /// Sets how many frames are passed on at once: with one, each is sent as soon as it is made.
    #[must_use]
    pub fn in_batches_of(self, batch: u32) -> Self {
        Self { batch, ..self }
    }

    /// Sends `count` frames in `namespace`, and waits until all are on their way.
    ///
    /// # Errors
    /// The kernel refused to run the program.
    pub fn burst(&self, namespace: &Namespace, count: u32) -> Result<()> {
        let sent = namespace.run(|| self.program.run_live(&self.frame, count, self.batch));
        sent.context("send frames in bulk (Linux 5.18)")
    }

    /// Sends `count` frames in `namespace` from core `core`, if one is given, until stopped.
    #[must_use]
    pub fn start(&self, namespace: &Namespace, core: Option<usize>, count: u32) -> Running {
        let Self {
            program,
            frame,
            batch,
        } = self.clone();
        let send = move || {
            if let Some(core) = core {
                pin(core)?;
            }
            match program.run_live(&frame, count, batch) {
                Err(error) if error.kind() != ErrorKind::Interrupted => {
                    Err(error).context("send frames in bulk (Linux 5.18)")
                }
                _ => Ok(()),
            }
        };
        // A thread started from a thread inside the namespace is inside, too.
        let thread = namespace.run(|| thread::spawn(send));
        Running { thread }
    }
}

impl Running {
    /// True if all frames are sent, or sending failed.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Stops the sender and waits for its end.
    ///
    /// # Errors
    /// Sending failed.
    pub fn stop(self) -> Result<()> {
        let handle = self.thread.as_pthread_t();
        // Repeated, because a signal just before the call does not interrupt it.
        let stopped = wait_until("frames in bulk end", END_TIMEOUT, || {
            // The thread may have ended by itself; until it is joined its handle is valid.
            let _ = pthread_kill(handle, INTERRUPT);
            self.thread.is_finished()
        });
        stopped?;
        let ended = self.thread.join();
        ended.map_err(|_| anyhow!("the thread that sends panicked"))?
    }
}

extern "C" fn interrupt(_: libc::c_int) {}

/// Keeps the calling thread on one core.
fn pin(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core).context("a core has a number that fits")?;
    sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("pin to core {core}"))
}
