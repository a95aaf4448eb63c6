//! A kernel setting that SYN cookies need: set while they are given, and restored.
//!
//! The kernel gives a program its cookie, and accepts the ACK that returns it, if net.ipv4.tcp_syncookies is 2; and it reads
//! from an ACK's timestamp what a program wrote there if net.ipv4.tcp_timestamps is 2. Each setting holds for the whole network
//! namespace, so it is changed only for as long as needed. A file keeps the previous value meanwhile: a killed process restores
//! nothing, and the next one does.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use log::{info, warn};

use crate::os::files::place::{self, Obstacle};
use crate::os::{files, sysctl};
use crate::text;

/// Value that both need: cookies for every SYN, and for programs that ask; timestamps without a random offset.
const WANTED: u8 = 2;
/// Maximum size of the file, which has one line.
const FILE_BYTES_MAX: u64 = 256;
/// Mode of the file: readable only by the account.
const FILE_MODE: u32 = 0o600;

/// The setting and its state.
#[derive(Debug)]
pub struct Setting {
    /// Name in the log.
    name: &'static str,
    kernels: sysctl::Sysctl,
    /// File that keeps the previous value.
    memory: Option<PathBuf>,
    /// Identifies this namespace in this boot.
    place: String,
    /// Value before we set it. `None` if we have not.
    before: Option<u8>,
}

impl Setting {
    /// Restores what a killed process has left.
    pub fn new(name: &'static str, memory: Option<PathBuf>, place: String) -> Self {
        Self::of(name, sysctl::Sysctl::named(name), memory, place)
    }

    fn of(
        name: &'static str,
        kernels: sysctl::Sysctl,
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

    /// True if somebody has set it to 0.
    pub fn is_zero(&self) -> bool {
        self.kernels.read().is_ok_and(|now| now == 0)
    }

    /// True if we changed it, so that it has to be restored.
    pub fn is_taken(&self) -> bool {
        self.before.is_some_and(|before| before != WANTED)
    }

    /// Sets it, or checks that it still is set.
    ///
    /// # Errors
    /// The setting is refused: a sentence.
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

    /// Restores the previous value, unless somebody else has set it since.
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

    /// Restores what the last process left.
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

    /// Writes the previous value. True if the setting was still ours. If this fails, the file stays.
    fn put(&self, before: u8) -> io::Result<bool> {
        let is_ours = self.kernels.read()? == WANTED;
        if is_ours {
            self.kernels.set(before)?;
        }
        if let Some(memory) = self
            .memory
            .as_deref()
            .filter(|path| obstacle(path).is_none())
        {
            // If it stays, it says what is true already.
            let _ = fs::remove_file(memory);
        }
        Ok(is_ours)
    }

    fn remember(&self, before: u8) -> io::Result<()> {
        let Some(path) = &self.memory else {
            return Err(io::Error::other("no shield.state_file"));
        };
        if let Some(Obstacle { what, .. }) = obstacle(path) {
            return Err(io::Error::other(format!("shield.state_file: {what}")));
        }
        let named = |error: io::Error| {
            io::Error::new(error.kind(), format!("{}: {error}", text::path(path)))
        };
        let written = || {
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder)?;
            }
            let new = path.with_extension("tmp");
            let mut file = files::create_own(&new, FILE_MODE)?;
            file.write_all(format!("{before} {}\n", self.place).as_bytes())?;
            fs::rename(&new, path)
        };
        written().map_err(named)
    }

    /// Value that a process of this boot and namespace wrote down and did not restore. Other contents of the file are ignored.
    fn remembered(&self) -> Option<u8> {
        let path = self.memory.as_deref()?;
        let text = read(files::open_own(path).ok()?).ok()?;
        let (before, place) = line_of(&text)?;
        (before < WANTED && place == self.place).then_some(before)
    }

    /// Describes a refusal, with what to do.
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

/// Obstacle to writing a file at `path`, as far as it shows in advance: the folder takes none from this process, or something
/// else has that name.
pub fn obstacle(path: &Path) -> Option<Obstacle> {
    let other = || {
        let kind = match place::found(path) {
            Ok(found) => found?.file_type(),
            Err(obstacle) => return Some(obstacle),
        };
        if !kind.is_file() {
            return Some(place::of_kind(path, kind, "file"));
        }
        match files::open(path).and_then(read) {
            Ok(text) if text.trim_matches('\0').is_empty() || line_of(&text).is_some() => None,
            // Includes binary files.
            Ok(_) => Some(Obstacle::of(path, "exists and is a file of another kind")),
            Err(error) => Some(Obstacle::with(path, &error)),
        }
    };
    let obstacle = place::folder_obstacle(path).or_else(other);
    Some(obstacle?.so("the kernel's former settings cannot be written down"))
}

/// Reads no more of a file than ours may have.
fn read(file: File) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The value, and the namespace and boot that it belongs to.
fn line_of(text: &str) -> Option<(u8, &str)> {
    let (before, place) = text.trim_end().split_once(' ')?;
    Some((before.parse().ok()?, place))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Folder;

    const NAME: &str = "net.ipv4.tcp_syncookies";

    /// A file as the setting, and a folder for the previous value.
    struct Machine(Folder);

    impl Machine {
        fn new(value: u8) -> Self {
            let machine = Self(Folder::new());
            machine.set(value);
            machine
        }

        fn setting(&self) -> PathBuf {
            self.0.path().join("tcp_syncookies")
        }

        fn memory(&self) -> PathBuf {
            self.0.path().join("state")
        }

        fn set(&self, value: u8) {
            fs::write(self.setting(), format!("{value}\n")).expect("a file");
        }

        fn value(&self) -> Option<u8> {
            sysctl::Sysctl::at(&self.setting()).read().ok()
        }

        /// A process that starts in this namespace.
        fn start(&self, place: &str) -> Setting {
            let kernels = sysctl::Sysctl::at(&self.setting());
            Setting::of(NAME, kernels, Some(self.memory()), place.into())
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
        // From another namespace or another boot: it does not apply here.
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
        // Without the folder the setting is changed all the same.
        machine.set(1);
        let kernels = sysctl::Sysctl::at(&machine.setting());
        let nowhere = machine.setting().join("no/folder");
        let mut cookies = Setting::of(NAME, kernels, Some(nowhere), "here".into());
        assert_eq!(cookies.take(), Ok(()));
        cookies.put_back();
        assert_eq!(machine.value(), Some(1));
    }

    #[test]
    fn its_folder_is_made() {
        let machine = Machine::new(1);
        let kernels = sysctl::Sysctl::at(&machine.setting());
        let path = machine.0.path().join("new/folder/state");
        assert_eq!(obstacle(&path), None);
        let mut cookies = Setting::of(NAME, kernels, Some(path.clone()), "here".into());
        assert_eq!(cookies.take(), Ok(()));
        assert!(path.exists());
    }

    /// Such as the config, whose path was entered twice.
    #[test]
    fn what_is_none_of_ours_is_neither_replaced_nor_removed() {
        let machine = Machine::new(1);
        let said = |path: &Path| obstacle(path).map(|obstacle| obstacle.what);
        for foreign in ["[[interface]]\n", "x", "300 here\n"] {
            fs::write(machine.memory(), foreign).expect("a file");
            let what = "exists and is a file of another kind; the kernel's former settings cannot be written down";
            let expected = format!("{}: {what}", machine.memory().display());
            assert_eq!(said(&machine.memory()), Some(expected));
            let mut cookies = machine.start("here");
            assert_eq!(cookies.take(), Ok(()));
            cookies.put_back();
            let left = fs::read_to_string(machine.memory()).expect("it is there");
            assert_eq!(left, foreign);
        }
        for ours in ["", "1 there\n", "\0\0\0"] {
            fs::write(machine.memory(), ours).expect("a file");
            assert_eq!(said(&machine.memory()), None, "{ours:?}");
        }
        let device = said(Path::new("/dev/null")).expect("it cannot be");
        assert!(
            device.starts_with("/dev/null: is a device, not a file; "),
            "{device}"
        );
        let folder = said(machine.0.path()).expect("it cannot be");
        assert!(folder.contains(": is a folder, not a file; "), "{folder}");
    }
}
