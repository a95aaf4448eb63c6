//! A bare Debian as a machine of its own: all of the kernel's namespaces, systemd as the first process, the lab's router as its
//! network. What it writes is in memory and gone with it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::setup;
use crate::signals::Signals;
use xdnsd_lab::netns::Namespace;
use xdnsd_lab::process::{Process, output_of};
use xdnsd_lab::programs::unpacked_root;

/// Time for systemd to start all that a bare Debian has.
const BOOT_MAX: Duration = Duration::from_secs(120);
/// Packages that README installs. They are downloaded with the machine, which has no way to a mirror: the time of a download is
/// not ours.
const DOWNLOADED: &str = "dnsmasq curl adduser";
/// The first shell: an overlay of $1 below $2 with the files of $4 in it, a control group $3, then the rest in new namespaces.
const PLACE: &str = r#"set -eu
mount -t tmpfs tmpfs "$2"
cd "$2"
mkdir upper work root groups
mount -t overlay -o "lowerdir=$1,upperdir=upper,workdir=work" overlay root
cp -R "$4/." root/root
mount -t cgroup2 cgroup2 groups
mkdir -p "groups/$3"
echo $$ > "groups/$3/cgroup.procs"
umount groups
exec unshare --fork --kill-child --pid --mount --uts --ipc --cgroup sh -c "$5" sh root
"#;
/// The second one: the file systems that a kernel gives to a machine, then its init. Devices and settings of the kernel are this
/// machine's, so they can only be read, but for those of the network.
const START: &str = r#"set -eu
cd "$1"
mount -t proc proc proc
mount -o bind proc/sys proc/sys
mount -o bind proc/sys/net proc/sys/net
mount -o remount,bind,ro proc/sys
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -o remount,bind,ro sys
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=755 tmpfs dev
for node in null zero full random urandom tty; do
    touch "dev/$node"
    mount -o bind "/dev/$node" "dev/$node"
done
# Its init changes the rights of the console, which must not be those of a device of this machine.
mknod dev/console c 1 3
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
hostname router
pivot_root . mnt
umount -l /mnt
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    setpriv --bounding-set -sys_time,-sys_module,-sys_rawio,-sys_boot /sbin/init
"#;
/// Removes the control group $2, once its last process has gone; $1 is a folder to see it in.
const END: &str = r#"mount -t cgroup2 cgroup2 "$1"
cd "$1"
for try in $(seq 100); do
    [ ! -d "$2" ] || find "$2" -depth -type d -exec rmdir {} + 2> /dev/null && exit
    sleep 0.1
done
echo "$2 is still in use" >&2
exit 1
"#;

/// A running machine.
#[derive(Debug)]
pub struct Machine {
    process: Process,
    place: PathBuf,
    group: String,
}

impl Machine {
    /// Boots a bare Debian in `network`, with the files of the folder `home` in root's home, and waits until all of it is started.
    pub fn boot(network: &Namespace, home: &Path, place: &Path, signals: &Signals) -> Result<Self> {
        let base = bare(signals)?;
        fs::create_dir_all(place).with_context(|| format!("create {}", place.display()))?;
        let group = format!("xdnsd-machine-{}", std::process::id());
        let mut command = network.command("sh");
        command.args(["-c", PLACE, "sh"]).arg(base).arg(place);
        command.arg(&group).arg(home).arg(START);
        let process = Process::spawn(command, &place.with_extension("log"))?;
        let mut machine = Self {
            process,
            place: place.to_owned(),
            group,
        };
        machine.wait_booted()?;
        Ok(machine)
    }

    fn wait_booted(&mut self) -> Result<()> {
        let unshare = self.process.pid();
        self.process.wait_until("all is started", BOOT_MAX, || {
            let Ok(mut ask) = enter(unshare) else {
                return false;
            };
            let state = ask.args(["systemctl", "is-system-running"]).output();
            let state = state.map(|said| String::from_utf8_lossy(&said.stdout).into_owned());
            // A service of Debian's that cannot start in namespaces does not matter.
            state.is_ok_and(|state| ["running", "degraded"].contains(&state.trim()))
        })
    }

    /// A command in it, by root in its home.
    pub fn command(&self, words: &[&str]) -> Result<Command> {
        let mut command = enter(self.process.pid())?;
        command.args(words);
        Ok(command)
    }

    /// Output of a command in it.
    pub fn output(&self, words: &[&str]) -> Result<String> {
        output_of(&mut self.command(words)?)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // The kernel ends all of its processes with this one.
        drop(self.process.kill());
        let mut remove = Command::new("unshare");
        remove.args(["--mount", "sh", "-c", END, "sh"]);
        remove.arg(&self.place).arg(&self.group);
        if let Err(error) = output_of(&mut remove) {
            eprintln!("the machine's control group: {error:#}");
        }
    }
}

/// Enters the namespaces of the first process that `unshare` has started.
fn enter(unshare: u32) -> Result<Command> {
    let path = format!("/proc/{unshare}/task/{unshare}/children");
    let children = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let init = children.split_whitespace().next();
    let init = init.context("the machine has no first process")?;
    let mut command = Command::new("nsenter");
    command.args(["--target", init, "--all", "--root"]);
    command.args(["env", "-i", "-C", "/root", "HOME=/root"]);
    command.arg("DEBIAN_FRONTEND=noninteractive");
    command.arg("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    Ok(command)
}

/// Root of a bare Debian, as debootstrap makes it: this machine's release. It is made once.
fn bare(signals: &Signals) -> Result<PathBuf> {
    let release = fs::read_to_string("/etc/os-release").context("read /etc/os-release")?;
    let mut lines = release.lines();
    let suite = lines.find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let suite = suite.unwrap_or("stable").trim_matches('"');
    let root = unpacked_root(&format!("bare-{suite}"));
    if !root.exists() {
        let download = format!(
            "--customize-hook=chroot \"$1\" apt-get -q -y --download-only -o APT::Install-Recommends=1 install {DOWNLOADED}"
        );
        let words = ["--variant=important", "--skip=cleanup/apt", &download];
        setup::bootstrap("make a bare Debian", &words, suite, &root, signals)?;
    }
    Ok(root)
}
