//! The shield in a lab that is up: the appliance in its router, with SYN cookies for every client. `lab attach` starts it and
//! returns, `lab log` shows verdicts on frames, `lab detach` ends it.
//!
//! In between, a process holds the appliance, the XDP program at the client's end of the link, and a lock. The lock shows that it
//! is running; the kernel frees all of it when the process is killed.

use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::net::if_::if_nametoindex;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::run::{self, CONFIG, STATE as STATE_OF_CONFIG};
use crate::signals::Signals;
use crate::workspace;
use xdnsd_lab::bpf::{Attach, Link, Program};
use xdnsd_lab::lab::named;
use xdnsd_lab::lab::{HOST_INTERFACE, Host};
use xdnsd_lab::process::{End, Process, output_of};
use xdnsd_lab::wait::wait_until;

/// A folder per lab that has its shield.
const STATE: &str = "/run/xdnsd-lab-shield";
/// Time for the appliance to answer, and to end.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Time between two checks whether to end.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// Directory of a lab's shield.
struct Place(PathBuf);

impl Place {
    fn of(prefix: &str) -> Self {
        Self(Path::new(STATE).join(prefix))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn socket(&self) -> PathBuf {
        self.file("control.sock")
    }

    fn log(&self) -> PathBuf {
        self.file("log")
    }

    /// Takes the lock and writes the holder into it. `None` if another process has it.
    fn lock(&self) -> Result<Option<Flock<File>>> {
        let path = self.file("lock");
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false);
        let file = file.open(&path);
        let file = file.with_context(|| format!("open {}", path.display()))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut lock) => {
                lock.set_len(0)?;
                write!(lock, "{}", std::process::id())?;
                Ok(Some(lock))
            }
            Err((_, Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, errno)) => Err(errno).context("lock the lab's shield"),
        }
    }

    /// Holder of the lock.
    fn holder(&self) -> Result<Option<Pid>> {
        let path = self.file("lock");
        let Ok(file) = File::open(&path) else {
            return Ok(None);
        };
        if Flock::lock(file, FlockArg::LockSharedNonblock).is_ok() {
            return Ok(None);
        }
        let text = fs::read_to_string(&path).context("read whose the lock is")?;
        let number = text
            .parse()
            .with_context(|| format!("{}: {text:?} is a number", path.display()))?;
        Ok(Some(Pid::from_raw(number)))
    }

    /// Output of `xdnsd` for this command.
    fn ask(&self, words: &[&str]) -> Result<String> {
        let mut command = Command::new(server());
        output_of(command.args(words).arg("--socket").arg(self.socket()))
    }
}

fn server() -> PathBuf {
    workspace::target().join("release/xdnsd")
}

/// Attaches the shield to the router of the lab.
pub fn attach(prefix: &str) -> Result<ExitCode> {
    named::host(prefix, Host::Router)?;
    let place = Place::of(prefix);
    ensure!(
        place.holder()?.is_none(),
        "the lab {prefix} has its shield already: `cargo xtask lab detach --prefix {prefix}` takes it away"
    );
    run::build()?;
    fs::create_dir_all(&place.0).with_context(|| format!("create {}", place.0.display()))?;
    let log = File::create(place.log()).context("create the log")?;
    let mut command = Command::new(env::current_exe().context("find this program")?);
    command
        .args(["lab", "attach", "--stay", "--prefix", prefix])
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("duplicate the log's descriptor")?)
        .stderr(log)
        // Ctrl-C in this terminal is not meant for it.
        .process_group(0);
    let mut child = command.spawn().context("start the process that stays")?;
    let mut has_ended = false;
    let waited = wait_until("the shield is there", TIMEOUT, || {
        has_ended = !matches!(child.try_wait(), Ok(None));
        has_ended || place.ask(&["shield", "status"]).is_ok()
    });
    let said = || fs::read_to_string(place.log()).unwrap_or_default();
    ensure!(!has_ended, "it has ended by itself:\n{}", said());
    waited.with_context(said)?;
    print!("{}", place.ask(&["shield", "status"])?);
    Ok(ExitCode::SUCCESS)
}

/// Runs the process that stays, until it is told to end.
pub fn stay(prefix: &str, signals: &Signals) -> Result<ExitCode> {
    let place = Place::of(prefix);
    let Some(_lock) = place.lock()? else {
        bail!("another process has the shield of the lab {prefix}");
    };
    let (client, router) = (
        named::host(prefix, Host::Client)?,
        named::host(prefix, Host::Router)?,
    );
    // A veth pair needs a program at this end to receive frames that XDP sends.
    let other_end = client.run(|| -> Result<Link> {
        let index = if_nametoindex(HOST_INTERFACE)?;
        Ok(Program::pass()?.attach(index, Attach::Native)?)
    });
    let _other_end = other_end.context("a program at the client's end")?;
    let mut command = router.command(server());
    command.arg("run").arg(config(&place)?);
    let mut process = Process::spawn_with_end(command, &place.file("xdnsd.log"), End::Terminate)?;
    while !signals.wait(LOOK_INTERVAL) {
        ensure!(
            process.is_running(),
            "xdnsd has ended. Its log:\n{}",
            process.log()
        );
    }
    process.terminate()?;
    Ok(ExitCode::SUCCESS)
}

/// The lab's configuration, with its paths in `place`, and the shield.
fn config(place: &Place) -> Result<PathBuf> {
    let original = workspace::root().join(CONFIG);
    let text = fs::read_to_string(&original).with_context(|| format!("read {CONFIG}"))?;
    let text = text.replace(
        &format!("{STATE_OF_CONFIG}/"),
        &format!("{}/", place.0.display()),
    );
    let state = place.file("syncookies");
    let section = format!("\n[shield]\nsyn_cookies = \"always\"\nstate_file = {state:?}\n");
    let path = place.file("lab.toml");
    fs::write(&path, text + &section).with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}

/// Ends the shield. True if there was one.
pub fn end(prefix: &str) -> Result<bool> {
    let place = Place::of(prefix);
    let Some(holder) = place.holder()? else {
        return Ok(false);
    };
    kill(holder, Signal::SIGTERM).with_context(|| format!("end process {holder}"))?;
    wait_until("the shield is gone", TIMEOUT, || {
        place.holder().is_ok_and(|holder| holder.is_none())
    })?;
    fs::remove_dir_all(&place.0).with_context(|| format!("remove {}", place.0.display()))?;
    Ok(true)
}

/// Ends the shield; fails if there is none.
pub fn detach(prefix: &str) -> Result<ExitCode> {
    ensure!(end(prefix)?, "{}", there_is_none(prefix));
    Ok(ExitCode::SUCCESS)
}

/// Shows verdicts on frames, until interrupted.
pub fn log(prefix: &str) -> Result<ExitCode> {
    let place = Place::of(prefix);
    ensure!(place.holder()?.is_some(), "{}", there_is_none(prefix));
    let mut command = Command::new(server());
    command
        .args(["shield", "log", "--socket"])
        .arg(place.socket());
    Err(command.exec()).context("run xdnsd shield log")
}

fn there_is_none(prefix: &str) -> String {
    format!(
        "the lab {prefix} has no shield: `cargo xtask lab attach --prefix {prefix}` gives it one"
    )
}

#[cfg(test)]
mod tests {
    use super::Place;
    use crate::workspace;
    use std::fs;

    #[test]
    fn who_has_the_lock_is_known_and_nobody_who_has_gone() {
        let folder = workspace::target().join(format!("lock-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let place = Place(folder);
        let holder = || place.holder().expect("a lock that can be read");
        assert_eq!(holder(), None, "nobody was there");
        let lock = place.lock().expect("it can be locked").expect("it is free");
        let number = holder().map(|holder| holder.as_raw().cast_unsigned());
        assert_eq!(number, Some(std::process::id()));
        assert!(place.lock().expect("it can be asked").is_none());
        drop(lock);
        assert_eq!(holder(), None);
        fs::remove_dir_all(&place.0).expect("it was made here");
    }
}
