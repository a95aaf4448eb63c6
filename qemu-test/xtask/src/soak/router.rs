//! The appliance in the soak: its files, its process, its memory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use xdnsd_lab::lab::{LAN, LAN_V4, LAN_V6, Lab, UPSTREAM_V4, UPSTREAM_V6};
use xdnsd_lab::process::{End, Process, output_of};

use super::load::{LISTED, LOCAL};
use super::oracle::STALE_MAX;

/// Time to answer on its control socket.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// Size of the file system for its snapshot.
const DISK: &str = "size=8m";

/// A folder on its own file system, which can be filled. Removed when dropped.
#[derive(Debug)]
pub struct Disk(PathBuf);

impl Disk {
    /// Mounts the file system.
    pub fn mount() -> Result<Self> {
        let path = PathBuf::from(format!("/run/xdnsd-soak-{}", std::process::id()));
        fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", DISK, "tmpfs"]).arg(&path);
        output_of(&mut mount)?;
        Ok(Self(path))
    }

    /// Fills it completely.
    pub fn fill(&self) -> Result<()> {
        let piece = vec![0x5a; 1 << 16];
        let path = self.0.join("full");
        let mut file = fs::File::create(&path).context("fill the disk")?;
        // Bound: a write fails once it is full.
        while std::io::Write::write_all(&mut file, &piece).is_ok() {}
        Ok(())
    }

    /// Frees the space again.
    pub fn clear(&self) -> Result<()> {
        fs::remove_file(self.0.join("full")).context("clear the disk")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let mut unmount = Command::new("umount");
        unmount.arg("-l").arg(&self.0);
        let removed = output_of(&mut unmount).map(|_| fs::remove_dir(&self.0));
        if let Err(error) = removed {
            eprintln!("{} is left behind: {error:#}", self.0.display());
        }
    }
}

/// The appliance.
#[derive(Debug)]
pub struct Router<'l> {
    lab: &'l Lab,
    server: PathBuf,
    folder: PathBuf,
    process: Process,
    starts: u32,
}

impl<'l> Router<'l> {
    /// Starts it in the lab's router, with its files in `folder`.
    pub fn start(lab: &'l Lab, server: &Path, folder: &Path, disk: &Disk) -> Result<Self> {
        let names = |zone: &str| -> String {
            (0..LISTED)
                .map(|number| format!("l{number}.{zone}\n"))
                .collect()
        };
        fs::write(folder.join("always.txt"), names("listed.test")).context("write a list")?;
        fs::write(folder.join("all.txt"), names("sometimes.test")).context("write a list")?;
        fs::write(folder.join("none.txt"), "l0.elsewhere.test\n").context("write a list")?;
        fs::copy(folder.join("all.txt"), folder.join("sometimes.txt")).context("copy a list")?;
        let config = format!(
            "[[interface]]\nname = \"{LAN}\"\nlisten = [\"{LAN_V4}\", \"{LAN_V6}\"]\n\
             [[upstream]]\nservers = [\"{UPSTREAM_V4}\", \"{UPSTREAM_V6}\"]\n\
             [cache]\ntier0 = \"auto\"\nsnapshot = \"{disk}/cache\"\nsnapshot_interval_secs = 5\nstale_max_ttl = {stale}\n\
             [local]\nrecords = [\"host.soak.lan A {LOCAL}\"]\n\
             [filter]\nblock_files = [\"{folder}/always.txt\", \"{folder}/sometimes.txt\"]\n\
             [control]\nsocket = \"{folder}/control.sock\"\n",
            disk = disk.0.display(),
            folder = folder.display(),
            stale = STALE_MAX.as_secs(),
        );
        fs::write(folder.join("soak.toml"), config).context("write the config")?;
        // Keeps addresses while an interface is down for a moment, like a router that sets them again.
        lab.router.write(
            &format!("/proc/sys/net/ipv6/conf/{LAN}/keep_addr_on_down"),
            "1",
        )?;
        let process = spawn(lab, server, folder, 0)?;
        let mut router = Self {
            lab,
            server: server.to_owned(),
            folder: folder.to_owned(),
            process,
            starts: 0,
        };
        router.wait_until_ready()?;
        Ok(router)
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let (server, folder) = (self.server.clone(), self.folder.clone());
        let what = "xdnsd answers at its control socket";
        let is_ready = || ask(&server, &folder, &["stats"]).is_ok();
        self.process.wait_until(what, START_TIMEOUT, is_ready)
    }

    /// Starts it again after its end.
    pub fn start_again(&mut self) -> Result<()> {
        self.starts += 1;
        self.process = spawn(self.lab, &self.server, &self.folder, self.starts)?;
        self.wait_until_ready()
    }

    /// Ends it with SIGKILL.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill().map(drop)
    }

    /// Ends it with SIGTERM, and waits.
    pub fn terminate(&mut self) -> Result<()> {
        let status = self.process.terminate()?;
        ensure!(
            status.success(),
            "it ended with {status}: {}",
            self.process.log()
        );
        Ok(())
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// Fails if it has ended by itself.
    pub fn assert_runs(&mut self) -> Result<()> {
        let is_running = self.process.is_running();
        ensure!(
            is_running,
            "xdnsd has ended by itself: {}",
            self.process.log()
        );
        Ok(())
    }

    /// Sends a request to its control socket.
    pub fn ask(&self, words: &[&str]) -> Result<String> {
        ask(&self.server, &self.folder, words)
    }

    /// Replaces one of its lists by the file `from`, in place or by a rename.
    pub fn swap_list(&self, from: &str, is_in_place: bool) -> Result<()> {
        let (from, to) = (self.folder.join(from), self.folder.join("sometimes.txt"));
        if is_in_place {
            fs::copy(from, to).context("copy over a list")?;
            return Ok(());
        }
        let new = self.folder.join("sometimes.new");
        fs::copy(from, &new).context("copy a list")?;
        fs::rename(new, to).context("rename a list")
    }

    /// Its resident memory in KiB, and its number of descriptors.
    pub fn measure(&self) -> Result<(u64, usize)> {
        let process = PathBuf::from(format!("/proc/{}", self.process.pid()));
        let status = fs::read_to_string(process.join("status")).context("read its status")?;
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let rss = rss.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
        let descriptors = fs::read_dir(process.join("fd")).context("list its descriptors")?;
        Ok((rss.context("its status has VmRSS")?, descriptors.count()))
    }
}

fn spawn(lab: &Lab, server: &Path, folder: &Path, number: u32) -> Result<Process> {
    let mut command = lab.router.command(server);
    command.arg("run").arg(folder.join("soak.toml"));
    let log = folder.join(format!("xdnsd-{number}.log"));
    Process::spawn_with_end(command, &log, End::Terminate)
}

fn ask(server: &Path, folder: &Path, words: &[&str]) -> Result<String> {
    let mut command = Command::new(server);
    command
        .args(words)
        .arg("--socket")
        .arg(folder.join("control.sock"));
    output_of(&mut command)
}
