//! `cargo xtask image --report`: measured sizes and times of the image, for `qemu-test/REPORT.md`.
//!
//! The first answer is measured by a host on the wire, which asks from power on without a pause. The guest itself can report only
//! later, by the time that asking it takes.

use std::fs;
use std::net::UdpSocket;
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::cable::{Cable, DEVICE};
use super::guest::Guest;
use super::machine::{Accel, GUEST, HOST, Machine, Scratch, program};
use super::run::configuration;
use crate::image::{Image, disk};
use crate::workspace;
use xdnsd_lab::privilege::require_root;
use xdnsd_lab::process::output_of;

/// Measured boots; the report has their median.
const BOOTS: usize = 5;
const MIB: f64 = (1 << 20) as f64;
/// Interval of the host's questions.
const ASK_EVERY: Duration = Duration::from_millis(5);
/// Most frames queued for the guest: an older question has been asked again.
const WAITING_MAX: u32 = 2;
/// The address of localhost, which is answered without an upstream (RFC 6761 section 6.3).
const QUESTION: &[u8] = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x09localhost\0\0\x01\0\x01";
/// Readings of the guest's clock; the quickest reply counts.
const CLOCK_READINGS: usize = 5;

/// Boots `image` a few times and writes the results to `REPORT.md` under their own heading.
pub fn write(image: &Image, command: &str) -> Result<()> {
    require_root("a tap device")?;
    let accel = Accel::choose(None, image)?;
    let mut boots = Vec::new();
    for _ in 0..BOOTS {
        boots.push(measure(image, accel)?);
    }
    let text = format!("{}{}", sizes(image)?, times(&boots, accel)?);
    let path = workspace::root().join("qemu-test/REPORT.md");
    let release = boots
        .first()
        .map(|boot| boot.kernel.as_str())
        .unwrap_or_default();
    let heading = format!("## {} with kernel {release}\n", image.arch.name());
    let old = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let section = format!("{heading}\n`{command}`, {}\n\n{text}", machine(image)?);
    fs::write(&path, replace_section(&old, &heading, &section))
        .with_context(|| format!("write {}", path.display()))?;
    print!("{section}");
    Ok(())
}

/// Results of one boot.
struct Boot {
    kernel: String,
    /// Seconds from power on until the kernel's clock starts: firmware, and the kernel's decompression.
    firmware_s: f64,
    /// Seconds from there to init.
    init_s: f64,
    /// Seconds from power on to the first answer.
    answer_s: f64,
    rss_kib: f64,
}

fn measure(image: &Image, accel: Accel) -> Result<Boot> {
    let scratch = Scratch::new("report")?;
    let cable = Cable::new(false)?;
    cable
        .namespace
        .ip(&format!("link set {DEVICE} txqueuelen {WAITING_MAX}\n"))?;
    // The guest learns the host's MAC address from the host's ARP request, as from any client's. At the kernel's interval of a
    // second, the request would come up to a second after the guest is reachable.
    cable.namespace.write(
        &format!("/proc/sys/net/ipv4/neigh/{DEVICE}/retrans_time_ms"),
        "20",
    )?;
    let data = scratch.join("data.ext4");
    disk::make_data_with_config(
        &data,
        &configuration(&format!("{HOST}:{}", cable.upstream.port), ""),
    )?;
    let mut machine = Machine::new(image, accel, cable.link());
    machine.data = Some(&data);
    let mut guest = Guest::start(machine.command(), &scratch.join("console.log"))?;
    let first = ask_until_answered(&cable)?;
    let verdict = guest.wait_for_verdict(1, super::tests::BOOT_LIMIT)?;
    let value = |key: &str| {
        let mut words = verdict.split_whitespace();
        words
            .find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
            .with_context(|| format!("no {key} in {verdict:?}"))
    };
    let kernel = value("kernel")?.to_owned();
    let init_s = value("init_s")?
        .parse()
        .with_context(|| format!("init_s in {verdict:?}"))?;
    let answered = first.recv().context("nobody answered")?;
    let answer_s = answered.duration_since(guest.started()).as_secs_f64();
    guest.log_in()?;
    let firmware_s = firmware(&mut guest)?;
    let status = guest.shell("grep ^VmRSS: /proc/$(cat /run/xdnsd-server.pid)/status")?;
    let rss_kib = status.split_whitespace().nth(1);
    let rss_kib = rss_kib.and_then(|kib| kib.parse().ok());
    Ok(Boot {
        kernel,
        firmware_s,
        init_s,
        answer_s,
        rss_kib: rss_kib.with_context(|| format!("no memory in {status:?}"))?,
    })
}

/// Asks the guest from the cable until it answers, and sends the time of the answer.
fn ask_until_answered(cable: &Cable) -> Result<mpsc::Receiver<Instant>> {
    let socket = cable.namespace.run(|| -> Result<UdpSocket> {
        let socket = UdpSocket::bind((HOST, 0)).context("a socket on the cable")?;
        socket.connect((GUEST, 53)).context("the guest's address")?;
        socket
            .set_read_timeout(Some(ASK_EVERY))
            .context("a pause")?;
        Ok(socket)
    })?;
    let (sender, first) = mpsc::channel();
    thread::spawn(move || {
        let limit = Instant::now() + super::tests::BOOT_LIMIT;
        let mut reply = [0; 512];
        while Instant::now() < limit {
            // Refused, or without carrier: the next turn asks again.
            let is_sent = socket.send(QUESTION).is_ok();
            if is_sent && socket.recv(&mut reply).is_ok() {
                let _ = sender.send(Instant::now());
                return;
            }
            thread::sleep(ASK_EVERY);
        }
    });
    Ok(first)
}

/// Seconds from power on to the start of the guest's clock. A reading is late by the console's delay at most, so the least
/// counts.
fn firmware(guest: &mut Guest) -> Result<f64> {
    let mut firmware_s = f64::MAX;
    for _ in 0..CLOCK_READINGS {
        let said = guest.shell("cut -d' ' -f1 /proc/uptime")?;
        let age = guest.age().as_secs_f64();
        let up: f64 = said
            .trim()
            .parse()
            .with_context(|| format!("uptime {said:?}"))?;
        firmware_s = firmware_s.min(age - up);
    }
    Ok(firmware_s)
}

fn sizes(image: &Image) -> Result<String> {
    let size = |path: &std::path::Path| -> Result<f64> {
        Ok(fs::metadata(path)
            .with_context(|| format!("look at {}", path.display()))?
            .len() as f64
            / MIB)
    };
    let kernel = size(&image.kernel)?;
    let initrd = image.initrd.as_deref().map_or(Ok(0.0), size)?;
    let root = size(&image.root)?;
    let mut text = String::from("| what | |\n|---|---|\n");
    if !image.directory.join("root").exists() {
        // Buildroot's root has the kernel inside, as in a slot of the disk.
        text += &format!(
            "| kernel | {kernel:.2} MiB |\n| root with the kernel inside | {root:.2} MiB, at most 16 |\n"
        );
        return Ok(text);
    }
    text += &format!(
        "| kernel | {kernel:.2} MiB |\n| first root | {initrd:.2} MiB |\n| root | {root:.2} MiB |\n"
    );
    text += &format!(
        "| all three | {:.2} MiB, at most 16 |\n",
        kernel + initrd + root
    );
    let server = image.directory.join("root/usr/bin/xdnsd");
    if server.exists() {
        text += &format!("| server, not compressed | {:.2} MiB |\n", size(&server)?);
    }
    Ok(text)
}

fn times(boots: &[Boot], accel: Accel) -> Result<String> {
    let median = |of: fn(&Boot) -> f64| -> Result<f64> {
        let mut values: Vec<f64> = boots.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values
            .get(values.len() / 2)
            .copied()
            .context("nothing was measured")
    };
    let firmware = median(|boot| boot.firmware_s)?;
    let (init, answer) = (
        median(|boot| boot.init_s)?,
        median(|boot| boot.answer_s - boot.firmware_s)?,
    );
    let from_power_on = median(|boot| boot.answer_s / (boot.firmware_s + boot.init_s))?;
    let mut text = format!(
        "| power on to the kernel's clock, {accel:?}, 2 processors, 128 MiB | {firmware:.2} s |\n\
         | the kernel's clock to the first line of init's first script | {init:.2} s |\n"
    );
    text += &format!(
        "| the kernel's clock to the first answer | {answer:.2} s, {:.2} times that; the goal is 1.2 |\n\
         | the same ratio from power on | {from_power_on:.2} times |\n",
        median(|boot| (boot.answer_s - boot.firmware_s) / boot.init_s)?
    );
    text += &format!(
        "| memory of the server after the boot | {:.1} MiB, at most 16 |\n",
        median(|boot| boot.rss_kib)? / 1024.0
    );
    Ok(text)
}

/// The host's hardware, without its name, and its load, without which times mean little.
fn machine(image: &Image) -> Result<String> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let load = fs::read_to_string("/proc/loadavg").context("read the load")?;
    let load = load.split(' ').next().unwrap_or("?").to_owned();
    let qemu = output_of(Command::new(program(image.arch)).arg("--version"))?;
    let qemu = qemu.split_whitespace().nth(3).unwrap_or("?").to_owned();
    Ok(format!(
        "median of {BOOTS} boots, QEMU {qemu}, host with {cores} cores and load {load}:"
    ))
}

/// `text` with the section of this heading replaced, or appended.
fn replace_section(text: &str, heading: &str, section: &str) -> String {
    let Some((before, rest)) = text.split_once(heading) else {
        return format!("{}\n\n{section}", text.trim_end());
    };
    let after = rest.find("\n## ").map_or("", |at| &rest[at..]);
    format!("{before}{section}{after}")
}

#[cfg(test)]
mod tests {
    use super::replace_section;

    #[test]
    fn section_is_replaced_and_its_neighbours_stay() {
        let text = "# R\n\n## a\nold\n\n## b\nstays\n";
        assert_eq!(
            replace_section(text, "## a\n", "## a\nnew\n"),
            "# R\n\n## a\nnew\n\n## b\nstays\n"
        );
        assert_eq!(
            replace_section(text, "## b\n", "## b\nnew\n"),
            "# R\n\n## a\nold\n\n## b\nnew\n"
        );
        assert_eq!(
            replace_section("# R\n", "## c\n", "## c\nnew\n"),
            "# R\n\n## c\nnew\n"
        );
    }
}
