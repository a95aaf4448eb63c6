//! `cargo xtask image --report`: sizes and times of the image, measured, for `qemu-test/REPORT.md`.

use std::fs;
use std::net::Ipv4Addr;
use std::process::Command;

use anyhow::{Context, Result};

use super::guest::Guest;
use super::machine::{Accel, HOST, Link, Machine, Scratch, free_port};
use super::run::configuration;
use super::upstream::Upstream;
use crate::image::{Image, disk};
use crate::process::output_of;
use crate::workspace;

/// Boots that are measured; the report has their median.
const BOOTS: usize = 5;
const MIB: f64 = (1 << 20) as f64;

/// Boots `image` a few times and writes what was measured to `REPORT.md` under its own heading.
pub fn write(image: &Image, command: &str) -> Result<()> {
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
    let section = format!("{heading}\n`{command}`, {}\n\n{text}", machine()?);
    fs::write(&path, replace_section(&old, &heading, &section))
        .with_context(|| format!("write {}", path.display()))?;
    print!("{section}");
    Ok(())
}

/// One boot, in its verdict's words.
struct Boot {
    kernel: String,
    init_s: f64,
    answer_s: f64,
    rss_kib: f64,
}

fn measure(image: &Image, accel: Accel) -> Result<Boot> {
    let scratch = Scratch::new("report")?;
    let upstream = Upstream::start(Ipv4Addr::LOCALHOST)?;
    let data = scratch.join("data.ext4");
    disk::make_data_with_config(
        &data,
        &configuration(&format!("{HOST}:{}", upstream.port), ""),
    )?;
    let link = Link::User {
        udp_port: free_port()?,
        tcp_port: free_port()?,
    };
    let mut machine = Machine::new(image, accel, link);
    machine.data = Some(&data);
    let mut guest = Guest::start(machine.command(), &scratch.join("console.log"))?;
    let verdict = guest.wait_for_verdict(1, super::tests::BOOT_LIMIT)?;
    let value = |key: &str| {
        let mut words = verdict.split_whitespace();
        words
            .find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
            .with_context(|| format!("no {key} in {verdict:?}"))
    };
    let number = |key: &str| {
        value(key)?
            .parse::<f64>()
            .with_context(|| format!("{key} in {verdict:?}"))
    };
    let (kernel, init_s, answer_s) = (
        value("kernel")?.to_owned(),
        number("init_s")?,
        number("answer_s")?,
    );
    // The first answer comes while the XDP program is still being loaded, which takes memory that is given back.
    guest.log_in()?;
    let status = guest.shell("grep ^VmRSS: /proc/$(cat /run/xdnsd-server.pid)/status")?;
    let rss_kib = status.split_whitespace().nth(1);
    let rss_kib = rss_kib.and_then(|kib| kib.parse().ok());
    Ok(Boot {
        kernel,
        init_s,
        answer_s,
        rss_kib: rss_kib.with_context(|| format!("no memory in {status:?}"))?,
    })
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
        // Buildroot's root has the kernel inside: it is what a slot of the disk holds.
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
    let (init, answer) = (median(|boot| boot.init_s)?, median(|boot| boot.answer_s)?);
    let mut text =
        format!("| power on to init, {accel:?}, 2 processors, 128 MiB | {init:.2} s |\n");
    text += &format!(
        "| power on to first answer | {answer:.2} s, {:.2} times that; the goal is 1.2 |\n",
        answer / init
    );
    text += &format!(
        "| memory of the server after the boot | {:.1} MiB, at most 16 |\n",
        median(|boot| boot.rss_kib)? / 1024.0
    );
    Ok(text)
}

/// The kind of machine, without its name, and how busy it was: times mean little without that.
fn machine() -> Result<String> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let load = fs::read_to_string("/proc/loadavg").context("read the load")?;
    let load = load.split(' ').next().unwrap_or("?").to_owned();
    let qemu = output_of(Command::new("qemu-system-x86_64").arg("--version"))?;
    let qemu = qemu.split_whitespace().nth(3).unwrap_or("?").to_owned();
    Ok(format!(
        "median of {BOOTS} boots, QEMU {qemu}, host with {cores} cores and load {load}:"
    ))
}

/// `text` with the section of that heading replaced, or with a new one at its end.
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
