//! The image and its disks: snapshots, power cuts, bad configurations, updates.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::bench::{BOOT_LIMIT, Bench, Router};
use crate::image::{self, disk};
use crate::qemu::machine::{Machine, free_port, press_power_button};
use crate::workspace;
use xdnsd_lab::process::output_of;
use xdnsd_lab::wait::wait_until;

/// Names that are asked for before and after a reboot.
const NAMES: [&str; 5] = [
    "a.keep.test",
    "b.keep.test",
    "c.keep.test",
    "d.keep.test",
    "e.keep.test",
];
/// Power cuts in a normal run, and in a long one.
const CUTS: u32 = 3;
const CUTS_LONG: u32 = 50;
/// Bits of e2fsck's exit status.
const FSCK_CLEAN: i32 = 0;
const FSCK_JOURNAL_REPLAYED: i32 = 1;
/// The snapshot interval in these tests is 1 s; a snapshot is on the disk within this.
const SNAPSHOT_LIMIT: Duration = Duration::from_secs(30);
/// Covers the snapshot interval and the writing: answers known before outlive a power cut.
const SNAPSHOT_PAUSE: &str = "sleep 4; test -s /data/xdnsd/cache";

/// Cached answers survive a reboot, without an upstream.
pub fn reboot(bench: &Bench) -> Result<()> {
    let mut router = bench.router("", "")?;
    learn(&mut router)?;
    knows_after_a_reboot(&mut router)
}

/// Each name is asked for once, so an answer from the cache was restored. It may be refreshed upstream meanwhile.
fn knows_after_a_reboot(router: &mut Router) -> Result<()> {
    router.guest.type_line("reboot")?;
    router.guest.wait_for_verdict(2, BOOT_LIMIT)?;
    NAMES.iter().try_for_each(|name| router.ask(name))?;
    router.guest.log_in()?;
    let hits = router.guest.counter("xdnsd_cache_hits_total")?
        + router.guest.counter("xdnsd_cache_stale_total")?;
    ensure!(
        hits >= u64::try_from(NAMES.len())?,
        "{hits} answers from the cache after the reboot"
    );
    Ok(())
}

/// Number of answers that the latest start has restored.
fn restored(router: &Router) -> Result<usize> {
    let console = router.guest.console();
    let said = console.rsplit_once("snapshot: restored ");
    let count = said.and_then(|(_, said)| said.split(' ').next()?.parse().ok());
    count.with_context(|| format!("nothing was restored. The console:\n{console}"))
}

/// QEMU is killed at varying moments: the journal repairs the file system, the next boot has the answers of the first one, and
/// serves.
pub fn power_cut(bench: &Bench) -> Result<()> {
    let data = bench.data_disk(&bench.configuration(""))?;
    let cuts = if bench.is_long { CUTS_LONG } else { CUTS };
    let mut random = u64::from(std::process::id()) | 1;
    for number in 0..cuts {
        let machine = bench.machine(bench.user_link()?, &data);
        let mut router = bench.boot(&machine)?;
        NAMES.iter().try_for_each(|name| router.ask(name))?;
        if number == 0 {
            router.guest.log_in()?;
            router.guest.shell(SNAPSHOT_PAUSE)?;
        } else {
            ensure!(
                restored(&router)? >= NAMES.len(),
                "power cut {number}: too few"
            );
        }
        // xorshift64: when to cut the power within the next seconds of work.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let moment = Duration::from_millis(random % 3000);
        println!(
            "     power cut {number} after {moment:?} (seed {})",
            std::process::id()
        );
        let deadline = std::time::Instant::now() + moment;
        let mut count = 0_u32;
        while std::time::Instant::now() < deadline {
            router.ask(&format!("x{count}.{number}.test"))?;
            count += 1;
        }
        router.guest.cut_power()?;
        is_repaired_by_its_journal(bench, &data)?;
    }
    let machine = bench.machine(bench.user_link()?, &data);
    let router = bench.boot(&machine)?;
    for name in NAMES {
        router.ask(name)?;
    }
    Ok(())
}

/// The power button shuts down in order: the data partition is clean, and has the snapshot.
pub fn power_button(bench: &Bench) -> Result<()> {
    let data = bench.data_disk(&bench.configuration(""))?;
    let port = free_port()?;
    let mut machine = bench.machine(bench.user_link()?, &data);
    machine.control_port = Some(port);
    let mut router = bench.boot(&machine)?;
    router.guest.log_in()?;
    learn(&mut router)?;
    press_power_button(port)?;
    router.guest.wait_for_end(BOOT_LIMIT)?;
    let said = output_of(Command::new("dumpe2fs").arg("-h").arg(&data))?;
    ensure!(!said.contains("needs_recovery"), "{said}");
    Ok(())
}

/// A router without a battery boots in 1970.
pub fn clock_at_1970(bench: &Bench) -> Result<()> {
    let data = bench.data_disk(&bench.configuration(""))?;
    let mut machine = bench.machine(bench.user_link()?, &data);
    machine.clock = Some("1970-01-01T00:00:00");
    let mut router = bench.boot(&machine)?;
    router.guest.log_in()?;
    let year = router.guest.shell("date +%Y")?;
    ensure!(year.trim() == "1970", "the guest's year is {year}");
    learn(&mut router)?;
    knows_after_a_reboot(&mut router)
}

/// The data partition is read-only: its configuration applies, and names are answered.
pub fn read_only_data(bench: &Bench) -> Result<()> {
    let data = bench.data_disk(&bench.configuration(""))?;
    let mut machine = bench.machine(bench.user_link()?, &data);
    machine.is_data_read_only = true;
    let router = bench.boot(&machine)?;
    router.console_says("data: cannot be written")?;
    NAMES.iter().try_for_each(|name| router.ask(name))
}

/// The data partition is full: its configuration applies, and names are answered.
pub fn full_data(bench: &Bench) -> Result<()> {
    let data = bench.data_disk(&bench.configuration(""))?;
    let filler = bench.scratch.join("filler");
    fs::write(&filler, vec![0x5a; 40 << 20]).context("write a file that does not fit")?;
    // debugfs ends with an error, having written as much as fits.
    drop(output_of(
        Command::new("debugfs")
            .args(["-w", "-R", &format!("write {} filler", filler.display())])
            .arg(&data),
    ));
    let machine = bench.machine(bench.user_link()?, &data);
    let mut router = bench.boot(&machine)?;
    router.guest.log_in()?;
    let free = router.guest.shell("df -k /data | awk 'END { print $4 }'")?;
    ensure!(
        free.trim() == "0",
        "{free} KiB are free on the data partition"
    );
    router.console_says("data: cannot be written")?;
    NAMES.iter().try_for_each(|name| router.ask(name))
}

/// A bad configuration: the console shows the error, the network is up, and the configuration can be replaced.
pub fn bad_configuration(bench: &Bench) -> Result<()> {
    let good = bench.configuration("");
    let data = bench.data_disk(&good.replace("[upstream]", "[upstraem]"))?;
    let machine = bench.machine(bench.user_link()?, &data);
    let mut guest = bench.start(&machine)?;
    guest.wait_for("xdnsd: NOT STARTED, bad configuration", BOOT_LIMIT)?;
    guest.wait_for("upstraem", BOOT_LIMIT)?;
    guest.log_in()?;
    guest.shell("ip addr show dev br-lan | grep -q 192.168.1.1")?;
    guest.shell("sed -i s/upstraem/upstream/ /etc/xdnsd/xdnsd.toml")?;
    guest.shell("/etc/init.d/S60xdnsd start")?;
    let router = Router::of(guest, &machine.link);
    wait_until("the repaired configuration is served", BOOT_LIMIT, || {
        router.ask(NAMES[0]).is_ok()
    })
}

/// An updated system that does not answer is rolled back; one that answers stays.
pub fn update(bench: &Bench) -> Result<()> {
    let configuration = bench.configuration("");
    let path = if let Some(disk) = &bench.image.disk {
        let path = bench.scratch.join("disk.img");
        disk::copy_disk(disk, &configuration, &path)?;
        path
    } else {
        disk::make_disk(
            bench.image,
            &mut image::packages(),
            Some(&configuration),
            &bench.scratch.join("disk"),
        )?
    };
    let link = bench.user_link()?;
    let mut machine = Machine::new(bench.image, bench.accel, link.clone());
    machine.disk = Some(&path);
    machine.memory_mib = 192;
    let mut router = bench.boot(&machine)?;
    ensure!(router.verdict.contains("slot=a"), "{}", router.verdict);
    router.guest.log_in()?;

    // The other slot gets a copy of this one. Half a system, from a pipe, is refused.
    router
        .guest
        .shell("dd if=/dev/vda2 of=/dev/vda3 bs=64k 2>/dev/null")?;
    let said = router.guest.shell(
        "dd if=/dev/vda2 bs=64k count=20 2>/dev/null | xdnsd-update - 2>&1 || xdnsd-update --status",
    )?;
    ensure!(
        said.contains("cut short: 1310720 of") && said.contains("running=a good=a try=\n"),
        "half a system, from a pipe: {said}"
    );
    router
        .guest
        .shell("dd if=/dev/vda2 bs=64k 2>/dev/null | xdnsd-update -")?;
    let status = router.guest.shell("xdnsd-update --status")?;
    ensure!(status.contains("running=a good=a try=b"), "{status}");
    router.guest.type_line("reboot")?;
    let verdict = router.guest.wait_for_verdict(2, BOOT_LIMIT)?;
    ensure!(verdict.contains("slot=b"), "{verdict}");
    router.ask(NAMES[0])?;
    router.guest.log_in()?;
    let status = router.guest.shell("xdnsd-update --status")?;
    ensure!(status.contains("running=b good=b try="), "{status}");

    // Slot a is on trial with a root that the kernel cannot mount: it panics, and slot b boots again.
    router
        .guest
        .shell("dd if=/dev/vda3 bs=64k 2>/dev/null | xdnsd-update -")?;
    router.guest.shell(
        "dd if=/dev/zero of=/dev/vda2 bs=64k seek=8 count=24 conv=notrunc 2>/dev/null; sync",
    )?;
    router.guest.type_line("reboot")?;
    let verdict = router.guest.wait_for_verdict(3, 2 * BOOT_LIMIT)?;
    ensure!(verdict.contains("slot=b"), "{verdict}");
    router.ask(NAMES[1])?;

    // Going back is a trial, too: the other slot may hold half an update, as here.
    router.guest.log_in()?;
    router.guest.shell("xdnsd-update --back")?;
    let status = router.guest.shell("xdnsd-update --status")?;
    ensure!(status.contains("running=b good=b try=a"), "{status}");
    Ok(())
}

/// Neither slot starts. The loader retries by itself, more than once.
pub fn no_slot(bench: &Bench) -> Result<()> {
    let work = bench.scratch.join("disk");
    let path = disk::make_disk(bench.image, &mut image::packages(), None, &work)?;
    disk::ruin_slots(&path)?;
    let mut machine = Machine::new(bench.image, bench.accel, bench.user_link()?);
    machine.disk = Some(&path);
    machine.memory_mib = 192;
    let mut guest = bench.start(&machine)?;
    guest.wait_for_nth("No slot starts. Trying again", 3, BOOT_LIMIT)?;
    ensure!(guest.is_running(), "{}", guest.console());
    Ok(())
}

/// The LAN side gets its address by DHCP, after the one-word change in `/etc/network/interfaces`. The line for IPv6 stays as it
/// was.
pub fn leased_address(bench: &Bench) -> Result<()> {
    const FILE: &str = "etc/network/interfaces";
    let overlay = format!("buildroot/board/xdnsd/rootfs-overlay/{FILE}");
    let shipped =
        fs::read_to_string(workspace::root().join(overlay)).context("read the overlay")?;
    let stanza = "iface br-lan inet static\n\taddress 192.168.1.1\n\tnetmask 255.255.255.0\n";
    ensure!(shipped.contains(stanza), "another {FILE}:\n{shipped}");
    let edited = shipped.replace(stanza, "iface br-lan inet dhcp\n");
    let mut image = bench.image.clone();
    image.root = bench.scratch.join("dhcp.squashfs");
    disk::make_root_with(bench.image, FILE, &edited, &image.root)?;
    let data = bench.scratch.join("data.ext4");
    disk::make_data(&data, None)?;
    let mut machine = bench.machine(bench.user_link()?, &data);
    machine.image = &image;
    let mut router = bench.boot(&machine)?;
    router.guest.log_in()?;
    let has = router.guest.shell("ip -o addr show dev br-lan")?;
    ensure!(
        has.contains("inet 192.168.1.") && !has.contains("192.168.1.1/"),
        "not leased: {has}"
    );
    ensure!(has.contains("fd00:53::1/64"), "IPv6 is gone: {has}");
    let said = router.guest.shell(
        "nslookup -type=a localhost $(ip -4 -o addr show dev br-lan | sed -n 's|.* inet \\([0-9.]*\\)/.*|\\1|p')",
    )?;
    ensure!(said.contains("127.0.0.1"), "{said}");
    Ok(())
}

/// Asks for all names and waits until a snapshot with them is on the disk.
fn learn(router: &mut Router) -> Result<()> {
    for name in NAMES {
        router.ask(name)?;
    }
    wait_until("a snapshot is written", SNAPSHOT_LIMIT, || {
        router.guest.shell("test -s /data/xdnsd/cache").is_ok()
    })
}

/// Does with e2fsck on a copy what a boot does: the journal is replayed, and nothing is left to repair.
fn is_repaired_by_its_journal(bench: &Bench, data: &Path) -> Result<()> {
    let copy = bench.scratch.join("copy.ext4");
    fs::copy(data, &copy).context("copy the data disk")?;
    let check = |options: &[&str]| -> Result<i32> {
        let output = Command::new("e2fsck")
            .args(options)
            .arg(&copy)
            .output()
            .context("run e2fsck")?;
        output
            .status
            .code()
            .with_context(|| format!("e2fsck: {}", String::from_utf8_lossy(&output.stdout)))
    };
    let replayed = check(&["-E", "journal_only", "-y"])?;
    ensure!(
        matches!(replayed, FSCK_CLEAN | FSCK_JOURNAL_REPLAYED),
        "e2fsck replays the journal with status {replayed}"
    );
    let left = check(&["-fn"])?;
    ensure!(
        left == FSCK_CLEAN,
        "after its journal is replayed, e2fsck finds errors in the data partition ({left})"
    );
    Ok(())
}
