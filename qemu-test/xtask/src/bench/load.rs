//! The load: a thread that makes the kernel send frames as fast as its core can.
//!
//! Frames are made by a BPF program that runs on copies of one frame (BPF_PROG_TEST_RUN with live frames) and redirects
//! them into the pair. No sockets and no socket buffers: a core makes several times what a responder answers, so the
//! responder's core is what is measured. The pair's receive side (the driver's NAPI, the XDP program, the copy into the
//! UMEM) runs where the frames are sent, that is on the load's core; the worker and its transmit side run on the other.

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

use super::pair::{ENDS, Pair};
use super::query;
use xdnsd_lab::bpf::Program;
use xdnsd_lab::wait::wait_until;

/// Frames of one call. Each call ends with a wait for the kernel's page pool, which may be as long as the call, so a
/// turn is one call, cut short by a signal.
const ENDLESS: u32 = u32::MAX;
/// Interrupts the call.
const INTERRUPT: Signal = Signal::SIGUSR1;
/// How long a stopped load may take to end.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// What sends.
#[derive(Debug)]
pub struct Load {
    program: Arc<Program>,
    frame: Vec<u8>,
}

/// A load that goes on until it is stopped.
#[derive(Debug)]
pub struct Running {
    thread: JoinHandle<Result<()>>,
}

impl Load {
    /// Loads the program that sends out of the pair's client.
    pub fn new(pair: &Pair) -> Result<Self> {
        let action = SigAction::new(
            SigHandler::Handler(interrupt),
            SaFlags::empty(),
            SigSet::empty(),
        );
        // SAFETY: the handler does nothing, so it may run at any point of any thread. The signal has no other use here.
        unsafe { sigaction(INTERRUPT, &action) }.context("handle the load's signal")?;
        let instructions = query::program(pair.far_index()?);
        let program = Program::load(&instructions).context("load the program of the load")?;
        Ok(Self {
            program: Arc::new(program),
            frame: query::frame(&ENDS),
        })
    }

    /// Sends `count` frames.
    pub fn burst(&self, pair: &Pair, count: u32) -> Result<()> {
        let sent = pair
            .client
            .run(|| self.program.run_live(&self.frame, count));
        sent.context("run the program of the load (Linux 5.18)")
    }

    /// Sends from core `core` until stopped.
    pub fn start(&self, pair: &Pair, core: usize) -> Running {
        let (program, frame) = (self.program.clone(), self.frame.clone());
        let send = move || {
            pin(Pid::from_raw(0), core)?;
            match program.run_live(&frame, ENDLESS) {
                Err(error) if error.kind() != ErrorKind::Interrupted => {
                    Err(error).context("run the program of the load")
                }
                _ => Ok(()),
            }
        };
        // A thread that a thread inside starts is inside too.
        let thread = pair.client.run(|| thread::spawn(send));
        Running { thread }
    }
}

impl Running {
    /// Stops and waits.
    pub fn stop(self) -> Result<()> {
        let handle = self.thread.as_pthread_t();
        // Again and again, because a signal that comes just before the call does not interrupt it.
        let stopped = wait_until("the load ends", END_TIMEOUT, || {
            // The thread may have ended by itself; it is not joined yet, so its handle is valid.
            let _ = pthread_kill(handle, INTERRUPT);
            self.thread.is_finished()
        });
        stopped?;
        let ended = self.thread.join();
        ended.map_err(|_| anyhow!("the thread of the load panicked"))?
    }
}

extern "C" fn interrupt(_: libc::c_int) {}

/// Keeps a thread, 0 for the calling one, on one core.
pub fn pin(thread: Pid, core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core).context("a core has a number that fits")?;
    sched_setaffinity(thread, &set).with_context(|| format!("pin to core {core}"))
}
