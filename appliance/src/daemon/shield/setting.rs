//! A setting of the kernel that its cookies need: set while they are given, and put back.
//!
//! The kernel gives a program its cookie, and takes the ACK that brings it back, where net.ipv4.tcp_syncookies is 2; and it reads
//! out of an ACK's timestamp what a program wrote there where net.ipv4.tcp_timestamps is 2. Each is one setting of the whole
//! network namespace, so it is ours only for as long as it has to be. What it was stands in a file meanwhile: a process that is
//! killed puts nothing back, and the next one does.

use std::fs;
use std::io::{self, Write as _};
use std::path::PathBuf;

use log::{info, warn};

use crate::os::{files, sysctl};
use crate::text;

/// What each has to be: cookies for every SYN, and for programs that ask; timestamps without a secret number added.
const WANTED: u8 = 2;
/// The file has one line.
const FILE_BYTES_MAX: u64 = 256;
/// Ours alone.
const FILE_MODE: u32 = 0o600;

/// The setting, and what is known of it.
#[derive(Debug)]
pub struct Setting {
    /// In the log.
    name: &'static str,
    kernels: sysctl::Setting,
    /// Where it is written down what was before.
    memory: Option<PathBuf>,
    /// This namespace in this boot.
    place: String,
    /// What was before we set it. `None`: it is not ours.
    before: Option<u8>,
}

impl Setting {
    /// Puts back what a process that was killed has left.
    pub fn new(name: &'static str, memory: Option<PathBuf>, place: String) -> Self {
        Self::of(name, sysctl::Setting::named(name), memory, place)
    }

    fn of(
        name: &'static str,
        kernels: sysctl::Setting,
        memory: Option<PathBuf>,
        place: String,
    ) -> Self {
        let setting = Self {
            name,
            kernels,
            memory,
            place,
            before: None,
        };
        setting.put_back_left();
        setting
    }

    /// Whether somebody wants it to be nothing at all.
    pub fn is_zero(&self) -> bool {
        self.kernels.read().is_ok_and(|now| now == 0)
    }

    /// Whether it is ours, and has to be put back.
    pub fn is_taken(&self) -> bool {
        self.before.is_some_and(|before| before != WANTED)
    }

    /// Sets it, or looks whether it still is.
    ///
    /// # Errors
    /// It cannot be had: a sentence.
    pub fn take(&mut self) -> Result<(), String> {
        let name = self.name;
        let now = self.kernels.read().map_err(|error| self.refused(&error))?;
        if now == WANTED {
            if self.before.is_none() {
                info!("{name} is {WANTED} already, and stays so");
            }
            self.before.get_or_insert(WANTED);
            return Ok(());
        }
        if self.before.is_some() {
            warn!("{name} was set to {now} by somebody else: {WANTED} again, and {now} at the end");
        }
        if let Err(error) = self.remember(now) {
            warn!(
                "{name}: what it was is not written down, and it would stay {WANTED} if this process were killed: {error}"
            );
        }
        let set = self.kernels.set(WANTED);
        set.map_err(|error| self.refused(&error))?;
        if self.before.is_none() {
            info!(
                "{name} is {WANTED} while SYN cookies are given, it was {now}; it counts for every port of this machine"
            );
        }
        self.before = Some(now);
        Ok(())
    }

    /// Puts back what was before, unless somebody else has set it since.
    pub fn put_back(&mut self) {
        let Some(before) = self.before.take().filter(|before| *before != WANTED) else {
            return;
        };
        let name = self.name;
        match self.put(before) {
            Ok(true) => info!("{name} is {before} again"),
            Ok(false) => info!("{name} was set by somebody else, and stays so"),
            Err(error) => warn!("{name} stays {WANTED}: {error}"),
        }
    }

    /// What the last process did not.
    fn put_back_left(&self) {
        let Some(before) = self.remembered() else {
            return;
        };
        let name = self.name;
        match self.put(before) {
            Ok(true) => {
                info!("{name} is {before} again, a process that was killed had left it {WANTED}")
            }
            Ok(false) => {}
            Err(error) => {
                warn!("{name} stays {WANTED}, as a process that was killed had left it: {error}")
            }
        }
    }

    /// Whether it was still ours. What could not be put back stays written down.
    fn put(&self, before: u8) -> io::Result<bool> {
        let is_ours = self.kernels.read()? == WANTED;
        if is_ours {
            self.kernels.set(before)?;
        }
        if let Some(memory) = &self.memory {
            // One that is left says what is so already.
            let _ = fs::remove_file(memory);
        }
        Ok(is_ours)
    }

    fn remember(&self, before: u8) -> io::Result<()> {
        let Some(path) = &self.memory else {
            return Err(io::Error::other("no shield.state_file"));
        };
        let named = |error: io::Error| {
            io::Error::new(error.kind(), format!("{}: {error}", text::path(path)))
        };
        let written = || {
            let new = path.with_extension("tmp");
            let mut file = files::create_own(&new, FILE_MODE)?;
            file.write_all(format!("{before} {}\n", self.place).as_bytes())?;
            fs::rename(&new, path)
        };
        written().map_err(named)
    }

    /// What a process of this boot and namespace wrote down and did not put back. Anything else in the file says nothing.
    fn remembered(&self) -> Option<u8> {
        let path = self.memory.as_deref()?;
        let mut text = String::new();
        let file = files::open_own(path).ok()?;
        io::Read::read_to_string(&mut io::Read::take(file, FILE_BYTES_MAX), &mut text).ok()?;
        let (before, place) = text.trim_end().split_once(' ')?;
        let before = before.parse().ok().filter(|before| *before < WANTED)?;
        (place == self.place).then_some(before)
    }

    /// In words that say what to do.
    fn refused(&self, error: &io::Error) -> String {
        let hint = match error.raw_os_error() {
            Some(libc::ENOENT) => " (this kernel has no SYN cookies)".to_owned(),
            Some(libc::EROFS) => {
                let path = text::path(self.kernels.path());
                format!(" (a systemd unit needs ReadWritePaths={path})")
            }
            Some(libc::EACCES | libc::EPERM) => " (needs CAP_NET_ADMIN)".to_owned(),
            Some(_) | None => String::new(),
        };
        format!("{} cannot be set to {WANTED}: {error}{hint}", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    const NAME: &str = "net.ipv4.tcp_syncookies";

    /// A setting that is a file, and a folder for what is written down.
    struct Machine(PathBuf);

    impl Machine {
        fn new(value: u8) -> Self {
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            let path =
                std::env::temp_dir().join(format!("xdnsd-shield-{}-{number}", std::process::id()));
            fs::create_dir(&path).expect("a folder");
            let machine = Self(path);
            machine.set(value);
            machine
        }

        fn setting(&self) -> PathBuf {
            self.0.join("tcp_syncookies")
        }

        fn memory(&self) -> PathBuf {
            self.0.join("state")
        }

        fn set(&self, value: u8) {
            fs::write(self.setting(), format!("{value}\n")).expect("a file");
        }

        fn value(&self) -> Option<u8> {
            sysctl::Setting::at(&self.setting()).read().ok()
        }

        /// A process that starts, in this namespace.
        fn start(&self, place: &str) -> Setting {
            let kernels = sysctl::Setting::at(&self.setting());
            Setting::of(NAME, kernels, Some(self.memory()), place.into())
        }
    }

    impl Drop for Machine {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn it_is_set_checked_and_put_back() {
        for before in [0, 1] {
            let machine = Machine::new(before);
            let mut cookies = machine.start("here");
            assert_eq!(machine.value(), Some(before), "not before it is wanted");
            for _ in 0..2 {
                assert_eq!(cookies.take(), Ok(()));
                assert_eq!(machine.value(), Some(2));
                assert!(cookies.is_taken());
                let written = fs::read_to_string(machine.memory()).expect("it is there");
                assert_eq!(written, format!("{before} here\n"));
            }
            cookies.put_back();
            assert_eq!(machine.value(), Some(before));
            assert!(!machine.memory().exists() && !cookies.is_taken());
            machine.set(2);
            cookies.put_back();
            assert_eq!(machine.value(), Some(2), "put back once");
        }
    }

    #[test]
    fn what_is_2_already_stays_so() {
        let machine = Machine::new(2);
        let mut cookies = machine.start("here");
        assert_eq!(cookies.take(), Ok(()));
        cookies.put_back();
        assert_eq!(machine.value(), Some(2));
        assert!(!machine.memory().exists());
    }

    #[test]
    fn what_somebody_else_sets_meanwhile_is_put_back_and_at_the_end_theirs() {
        let machine = Machine::new(1);
        let mut cookies = machine.start("here");
        assert_eq!(cookies.take(), Ok(()));
        machine.set(0);
        assert_eq!(cookies.take(), Ok(()));
        assert_eq!(machine.value(), Some(2));
        cookies.put_back();
        assert_eq!(machine.value(), Some(0), "what they wanted");
        assert_eq!(cookies.take(), Ok(()));
        machine.set(1);
        cookies.put_back();
        assert_eq!(machine.value(), Some(1), "theirs already");
        assert!(!machine.memory().exists());
    }

    #[test]
    fn what_a_killed_process_left_is_put_back_by_the_next_one() {
        let machine = Machine::new(1);
        let mut killed = machine.start("here");
        assert_eq!(killed.take(), Ok(()));
        drop(killed);
        assert_eq!(machine.value(), Some(2));
        // Another namespace's, or one of another boot: it is none of theirs.
        drop(machine.start("there"));
        assert_eq!(machine.value(), Some(2));
        let mut next = machine.start("here");
        assert_eq!(machine.value(), Some(1));
        assert!(!machine.memory().exists());
        assert_eq!(next.take(), Ok(()));
        next.put_back();
        assert_eq!(machine.value(), Some(1));
    }

    #[test]
    fn a_file_that_says_nothing_changes_nothing() {
        for text in [
            "", "1", "2 here", "7 here", "x here", "1 there", "-1 here", "1  here",
        ] {
            let machine = Machine::new(2);
            fs::write(machine.memory(), text).expect("a file");
            drop(machine.start("here"));
            assert_eq!(machine.value(), Some(2), "{text:?}");
        }
    }

    #[test]
    fn one_that_cannot_be_set_is_refused_in_words() {
        let machine = Machine::new(1);
        fs::remove_file(machine.setting()).expect("it was there");
        let mut cookies = machine.start("here");
        let problem = cookies.take().expect_err("it is not there");
        assert!(problem.contains("no SYN cookies"), "{problem}");
        // Without a folder for it the setting is had all the same.
        machine.set(1);
        let kernels = sysctl::Setting::at(&machine.setting());
        let nowhere = machine.0.join("no/folder");
        let mut cookies = Setting::of(NAME, kernels, Some(nowhere), "here".into());
        assert_eq!(cookies.take(), Ok(()));
        cookies.put_back();
        assert_eq!(machine.value(), Some(1));
    }
}
