//! A log of queries in files of limited size.
//!
//! ```text
//!  queries.log ─► queries.log.1 ─► ... ─► queries.log.N ─► gone
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::output;

/// Log file with rotation.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    /// Maximum size before rotation, in bytes; 0: unlimited.
    rotate_bytes: u64,
    /// Number of rotated files that are kept.
    keep: u32,
    file: BufWriter<File>,
    len: u64,
}

impl LogFile {
    /// Opens the file to append.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(path: &Path, rotate_bytes: u64, keep: u32) -> io::Result<Self> {
        let file = open(path)?;
        let len = file.metadata()?.len();
        Ok(Self {
            path: path.to_owned(),
            rotate_bytes,
            keep,
            file: BufWriter::new(file),
            len,
        })
    }

    /// Writes one line.
    ///
    /// # Errors
    /// The disk is full, or the next file cannot be made.
    pub fn write(&mut self, line: &str) -> io::Result<()> {
        let bytes = line.len() as u64 + 1;
        if self.rotate_bytes > 0 && self.len > 0 && self.len + bytes > self.rotate_bytes {
            self.rotate()?;
        }
        writeln!(self.file, "{line}")?;
        self.len += bytes;
        Ok(())
    }

    /// Flushes to the kernel.
    ///
    /// # Errors
    /// The disk is full.
    pub fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.file.flush()?;
        if self.keep == 0 {
            fs::remove_file(&self.path)?;
        }
        for number in (0..self.keep).rev() {
            match fs::rename(self.numbered(number), self.numbered(number + 1)) {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                renamed => renamed?,
            }
        }
        self.file = BufWriter::new(open(&self.path)?);
        self.len = 0;
        Ok(())
    }

    /// Path of the file that was rotated this many times.
    fn numbered(&self, number: u32) -> PathBuf {
        if number == 0 {
            return self.path.clone();
        }
        let mut path = self.path.clone().into_os_string();
        path.push(format!(".{number}"));
        path.into()
    }
}

/// Mode 0640: queries are private.
fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).append(true).mode(0o640);
    output::file(&mut options, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_files_of_such_a_length_stay() {
        let folder = std::env::temp_dir().join(format!("xdnsd-log-file-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let path = folder.join("queries.log");
        let mut log = LogFile::open(&path, 10, 2).expect("a file");
        for line in [
            "one",
            "two",
            "three",
            "four",
            "a line that is longer",
            "six",
        ] {
            log.write(line).expect("room");
        }
        log.flush().expect("room");
        let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap_or_default();
        assert_eq!(read("queries.log"), "six\n");
        assert_eq!(read("queries.log.1"), "a line that is longer\n");
        assert_eq!(read("queries.log.2"), "four\n");
        assert!(!folder.join("queries.log.3").exists());
        // A file that is opened again is appended to, and its size counts.
        drop(log);
        let mut log = LogFile::open(&path, 10, 2).expect("a file");
        log.write("seven").expect("room");
        log.write("8").expect("room");
        log.flush().expect("room");
        assert_eq!(
            (read("queries.log.1"), read("queries.log")),
            ("six\nseven\n".into(), "8\n".into())
        );
        let mut log = LogFile::open(&path, 4, 0).expect("a file");
        log.write("nine").expect("room");
        log.flush().expect("room");
        assert_eq!(read("queries.log"), "nine\n");
        assert_eq!(read("queries.log.1"), "six\nseven\n", "none was moved");
        fs::remove_dir_all(&folder).expect("it is there");
    }
}
