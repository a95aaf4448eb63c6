//! The threads of the control socket, from its creation to the end: one serves, one carries out requests that read or write
//! files. The socket's folder may be on a file system that does not answer: the main thread does not touch it, and waits for
//! these threads with a timeout.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use log::warn;

use super::socket::{self, Commands, Control, Group, SocketFile, serve_waiting};
use crate::os::{capabilities, threads};
use crate::text::Sentence;

/// Time that a start waits for the socket: a process that has it serves already, and must not be disturbed.
const START_MAX: Duration = Duration::from_secs(10);
/// Time that the end waits until the socket's name is removed. A name that stays is replaced by the next start.
const STOP_MAX: Duration = Duration::from_secs(1);
/// First pause before a failed socket is tried again.
const PAUSE: Duration = Duration::from_secs(1);
/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Report of the thread about each attempt.
#[derive(Debug)]
enum BindReport {
    /// It listens, and serves once it has the commands.
    Bound(SocketFile),
    /// It will be tried again; the log has the reason.
    Failed,
    /// Another process answers there: it serves already.
    Taken(Sentence),
}

/// Handle of the threads. Belongs to the main thread.
pub struct ControlThreads {
    told: Receiver<BindReport>,
    commands: Sender<Commands>,
    /// The socket's name, if it listens.
    file: Option<SocketFile>,
}

impl ControlThreads {
    /// Starts the threads for the socket at `path`, which `place` of the config names, and which a group may use.
    ///
    /// # Errors
    /// The system is out of threads.
    pub fn start(path: Box<Path>, place: String, group: Option<Group>) -> Result<Self, Sentence> {
        Self::start_with(move || {
            if let Some(folder) = path.parent() {
                // /run is empty after a boot. If this fails, so does the bind, with the reason.
                let _ = std::fs::create_dir_all(folder);
            }
            Control::bind_for(&path, group.as_ref())
                .map_err(|error| io::Error::new(error.kind(), format!("{place}: {error}")))
        })
    }

    fn start_with(
        mut bind: impl FnMut() -> io::Result<Control> + Send + 'static,
    ) -> Result<Self, Sentence> {
        let (tell, told) = mpsc::channel();
        let (commands, inbox) = mpsc::channel();
        let (give, given) = mpsc::channel();
        let (queue, waiting) = socket::queue();
        let serve = move || {
            let Some((server, file)) = bound(&mut bind, &tell).map(Control::split) else {
                return;
            };
            // If nobody takes the name or sends the commands, the process is about to end.
            let is_told = tell.send(BindReport::Bound(file)).is_ok();
            let commands: Option<Commands> = inbox.recv().ok().filter(|_| is_told);
            if let Some(commands) = commands.map(Arc::new)
                && give.send(Arc::clone(&commands)).is_ok()
            {
                server.serve(&commands, &queue);
            }
        };
        let carry_out = move || {
            if let Ok(commands) = given.recv() {
                serve_waiting(&waiting, &commands);
            }
        };
        spawn("control", serve)?;
        spawn("control files", carry_out)?;
        Ok(Self {
            told,
            commands,
            file: None,
        })
    }

    /// Waits, up to [`START_MAX`], until it is known whether another process serves already.
    ///
    /// # Errors
    /// One does.
    pub fn wait(&mut self) -> Result<(), Sentence> {
        self.wait_for(START_MAX)
    }

    fn wait_for(&mut self, max: Duration) -> Result<(), Sentence> {
        match self.told.recv_timeout(max) {
            Ok(told) => self.take(told),
            Err(_) => {
                warn!(
                    "control socket: its folder does not answer for {} s, started without it",
                    max.as_secs()
                );
                Ok(())
            }
        }
    }

    /// Gives the threads the commands to serve.
    pub fn serve(&self, commands: Commands) {
        // Fails if the thread has ended, which `poll` is about to report.
        let _ = self.commands.send(commands);
    }

    /// Takes the thread's reports.
    ///
    /// # Errors
    /// Another process answers at the socket.
    pub fn poll(&mut self) -> Result<(), Sentence> {
        while let Ok(told) = self.told.try_recv() {
            self.take(told)?;
        }
        Ok(())
    }

    fn take(&mut self, told: BindReport) -> Result<(), Sentence> {
        match told {
            BindReport::Bound(file) => self.file = Some(file),
            BindReport::Failed => {}
            BindReport::Taken(why) => return Err(why),
        }
        Ok(())
    }

    /// Removes the socket's name, and waits [`STOP_MAX`] at most.
    pub fn stop(mut self) {
        let _ = self.poll();
        if let Some(file) = self.file.take() {
            within(STOP_MAX, move || drop(file));
        }
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), Sentence> {
    threads::builder_with_stack(name, threads::SMALL_STACK_BYTES)
        .spawn(move || {
            capabilities::keep(capabilities::FILES_AND_MAPS);
            work();
        })
        .map(drop)
        .map_err(|error| format!("{name} thread: {error}"))
}

/// Tries until it listens. `None` if another process does, which was reported.
fn bound(
    bind: &mut impl FnMut() -> io::Result<Control>,
    tell: &Sender<BindReport>,
) -> Option<Control> {
    let mut pause = PAUSE;
    let mut last = String::new();
    loop {
        let trouble = match bind() {
            Ok(control) => return Some(control),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                let _ = tell.send(BindReport::Taken(format!("control socket: {error}")));
                return None;
            }
            Err(error) => format!("control socket: {error}"),
        };
        if last != trouble {
            warn!("{trouble}; tried again until it can be had");
            last = trouble;
        }
        let _ = tell.send(BindReport::Failed);
        thread::sleep(pause);
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Runs `work` on a thread and waits up to `max` for it. The threads with an engine have ended, so their stacks are free. False
/// if it takes longer.
fn within(max: Duration, work: impl FnOnce() + Send + 'static) -> bool {
    let (living, over) = mpsc::channel::<()>();
    let spawned =
        threads::builder_with_stack("control end", threads::SMALL_STACK_BYTES).spawn(|| {
            let _living = living;
            work();
        });
    if let Err(error) = spawned {
        warn!("control socket: its name stays: {error}");
    }
    let is_late = over.recv_timeout(max) == Err(RecvTimeoutError::Timeout);
    if is_late {
        warn!("control socket: its folder does not answer, left as it is");
    }
    !is_late
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    const TIMEOUT: Duration = Duration::from_secs(20);

    /// The socket's folder is on a file system that does not answer.
    #[test]
    fn a_control_socket_that_hangs_keeps_neither_a_start_nor_an_end_waiting() {
        let (go, folder) = mpsc::channel::<()>();
        let mut control = ControlThreads::start_with(move || {
            // Blocks until the test is over.
            let _ = folder.recv();
            Err(io::ErrorKind::AddrInUse.into())
        })
        .expect("a thread");
        assert_eq!(control.wait_for(Duration::from_millis(1)), Ok(()));
        control.serve(Commands::default());
        assert_eq!(control.poll(), Ok(()));
        control.stop();
        drop(go);
    }

    #[test]
    fn a_name_that_cannot_be_removed_is_left() {
        let (go, folder) = mpsc::channel::<()>();
        let hang = move || {
            let _ = folder.recv();
        };
        assert!(!within(Duration::from_millis(1), hang));
        drop(go);
        let is_done = Arc::new(AtomicBool::new(false));
        let done = Arc::clone(&is_done);
        assert!(within(TIMEOUT, move || done.store(true, Ordering::Release)));
        assert!(is_done.load(Ordering::Acquire), "it is waited for");
    }

    #[test]
    fn a_process_that_has_the_socket_ends_a_start_and_what_else_there_is_does_not() {
        let kinds = [io::ErrorKind::PermissionDenied, io::ErrorKind::AddrInUse];
        let starts = kinds.map(|kind| {
            let mut control =
                ControlThreads::start_with(move || Err(kind.into())).expect("a thread");
            control.wait_for(TIMEOUT)
        });
        assert_eq!(starts[0], Ok(()));
        let why = starts[1].as_ref().expect_err("it is taken");
        assert!(why.starts_with("control socket: "), "{why}");
    }

    #[test]
    fn a_socket_that_comes_late_is_served_and_its_name_goes_with_the_end() {
        let folder = crate::testing::Folder::new();
        let path = folder.path().join("sock");
        let bound = path.clone();
        let mut tries = 0;
        let mut control = ControlThreads::start_with(move || {
            tries += 1;
            if tries == 1 {
                return Err(io::ErrorKind::ReadOnlyFilesystem.into());
            }
            Control::bind(&bound)
        })
        .expect("a thread");
        assert_eq!(control.wait_for(TIMEOUT), Ok(()));
        assert!(!path.exists());
        control.serve(Commands::default().with("hello", |_, out| Ok(writeln!(out, "there")?)));
        assert_eq!(control.wait_for(TIMEOUT), Ok(()), "the second try");
        let mut said = Vec::new();
        crate::control::socket::ask(&path, "hello", &mut said).expect("an answer");
        assert_eq!(said, b"there\n");
        control.stop();
        assert!(!path.exists());
    }
}
