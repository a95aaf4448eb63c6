//! Faults, and how they are undone.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow};
use nix::sys::signal::Signal;
use xdnsd_lab::lab::{HOST_INTERFACE, LAN, LAN_V4, Lab, WAN};

use crate::bench::flood::callers;

use super::load::SlowClients;
use super::router::{Disk, Router};
use super::servers::{Mood, Servers};

/// Slow clients at the same time: more than there are places.
const SLOW_CLIENTS: usize = 80;
/// Client that asks for random names, and how many a second.
const FLOODER: Ipv4Addr = Ipv4Addr::new(10, 53, 0, 66);
const FLOOD_RATE: u32 = 5_000;
/// Time that an interface is down, or a process stopped.
const MOMENT: Duration = Duration::from_secs(1);

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No fault, as a baseline.
    None,
    /// The first server is silent.
    FirstSilent,
    /// Both servers are silent.
    BothSilent,
    /// Both servers answer SERVFAIL.
    BothFailing,
    /// Both servers truncate all datagrams.
    Truncating,
    /// Both servers send other answers, with a wrong ID.
    WrongId,
    /// Both servers answer with the question in lower case.
    Lowering,
    /// The link to the servers is down for a moment.
    WanDown,
    /// The link to the clients is down for a moment.
    LanDown,
    /// Repeated SIGHUP.
    Reload,
    /// The cache is flushed.
    Flush,
    /// SIGKILL, then a start.
    Kill,
    /// SIGTERM, then a start.
    Restart,
    /// The process is stopped for a moment.
    Stopped,
    /// No space for the snapshot.
    FullDisk,
    /// A list is replaced with other names, by a rename.
    ListRenamed,
    /// A list is overwritten in place with other names.
    ListInPlace,
    /// TCP clients that send half a query, or never read.
    SlowClients,
    /// Another client asks for random names.
    RandomNames,
    /// The XDP program is detached, so the kernel's sockets serve.
    Detached,
}

/// All faults.
pub const ALL: [Fault; 20] = [
    Fault::None,
    Fault::FirstSilent,
    Fault::BothSilent,
    Fault::BothFailing,
    Fault::Truncating,
    Fault::WrongId,
    Fault::Lowering,
    Fault::WanDown,
    Fault::LanDown,
    Fault::Reload,
    Fault::Flush,
    Fault::Kill,
    Fault::Restart,
    Fault::Stopped,
    Fault::FullDisk,
    Fault::ListRenamed,
    Fault::ListInPlace,
    Fault::SlowClients,
    Fault::RandomNames,
    Fault::Detached,
];

/// Environment of the faults.
#[derive(Debug)]
pub struct Scene<'s, 'l> {
    /// The network.
    pub lab: &'l Lab,
    /// The servers.
    pub servers: &'s Servers,
    /// The appliance.
    pub router: &'s mut Router<'l>,
    /// File system of its snapshot.
    pub disk: &'s Disk,
}

impl Fault {
    /// Name in the table.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::FirstSilent => "first server silent",
            Self::BothSilent => "both servers silent",
            Self::BothFailing => "both servers fail",
            Self::Truncating => "all datagrams truncated",
            Self::WrongId => "answers with another ID",
            Self::Lowering => "letter case lost",
            Self::WanDown => "link to servers down 1 s",
            Self::LanDown => "link to clients down 1 s",
            Self::Reload => "SIGHUP five times",
            Self::Flush => "cache flushed",
            Self::Kill => "SIGKILL and start",
            Self::Restart => "SIGTERM and start",
            Self::Stopped => "SIGSTOP for 1 s",
            Self::FullDisk => "disk full",
            Self::ListRenamed => "list renamed over",
            Self::ListInPlace => "list written over",
            Self::SlowClients => "80 slow TCP clients",
            Self::RandomNames => "5,000 random names/s",
            Self::Detached => "XDP program detached",
        }
    }

    /// Causes the fault for `length`, and undoes it.
    pub fn happen(self, scene: &mut Scene<'_, '_>, length: Duration) -> Result<()> {
        match self {
            Self::None => thread::sleep(length),
            Self::FirstSilent => moods([Mood::Silent, Mood::Good], scene, length),
            Self::BothSilent => moods([Mood::Silent; 2], scene, length),
            Self::BothFailing => moods([Mood::Failing; 2], scene, length),
            Self::Truncating => moods([Mood::Truncating; 2], scene, length),
            Self::WrongId => moods([Mood::WrongId; 2], scene, length),
            Self::Lowering => moods([Mood::Lowering; 2], scene, length),
            Self::WanDown => down(scene.lab, WAN)?,
            Self::LanDown => down(scene.lab, LAN)?,
            Self::Reload => {
                for _ in 0..5 {
                    scene.router.signal(Signal::SIGHUP)?;
                    thread::sleep(length / 5);
                }
            }
            Self::Flush => {
                scene.router.ask(&["cache", "flush"])?;
            }
            Self::Kill => {
                scene.router.kill()?;
                scene.router.start_again()?;
            }
            Self::Restart => {
                scene.router.terminate()?;
                scene.router.start_again()?;
            }
            Self::Stopped => {
                scene.router.signal(Signal::SIGSTOP)?;
                thread::sleep(MOMENT);
                scene.router.signal(Signal::SIGCONT)?;
            }
            Self::FullDisk => {
                scene.disk.fill()?;
                // Writes a snapshot meanwhile, or tries to.
                let _ = scene.router.ask(&["cache", "save"]);
                thread::sleep(length);
                scene.disk.clear()?;
            }
            Self::ListRenamed => swap(scene, false, length)?,
            Self::ListInPlace => swap(scene, true, length)?,
            Self::SlowClients => {
                let clients = scene.lab.client.run(|| SlowClients::open(SLOW_CLIENTS))?;
                thread::sleep(length);
                drop(clients);
            }
            Self::RandomNames => flooded(scene.lab, length)?,
            Self::Detached => {
                scene.router.ask(&["shield", "detach", LAN])?;
                thread::sleep(length);
                scene.router.ask(&["shield", "attach", LAN])?;
            }
        }
        Ok(())
    }
}

fn moods(moods: [Mood; 2], scene: &Scene<'_, '_>, length: Duration) {
    scene.servers.set(moods);
    thread::sleep(length);
    scene.servers.set([Mood::Good; 2]);
}

/// Has another client ask for random names.
fn flooded(lab: &Lab, length: Duration) -> Result<()> {
    let is_over = AtomicBool::new(false);
    lab.client.ip(&format!(
        "address replace {FLOODER}/24 dev {HOST_INTERFACE}\n"
    ))?;
    thread::scope(|scope| {
        let flooding = scope.spawn(|| {
            lab.client
                .run(|| callers::flood(FLOODER, LAN_V4, FLOOD_RATE, &is_over))
        });
        thread::sleep(length);
        is_over.store(true, Ordering::Relaxed);
        let flooded = flooding.join().map_err(|_| anyhow!("the flood panicked"))?;
        flooded.map(drop)
    })
}

fn down(lab: &Lab, device: &str) -> Result<()> {
    lab.router.ip(&format!("link set {device} down\n"))?;
    thread::sleep(MOMENT);
    lab.router.ip(&format!("link set {device} up\n"))
}

/// Replaces one list's names, then restores them.
fn swap(scene: &Scene<'_, '_>, is_in_place: bool, length: Duration) -> Result<()> {
    scene.router.swap_list("none.txt", is_in_place)?;
    thread::sleep(length);
    scene.router.swap_list("all.txt", is_in_place)
}
