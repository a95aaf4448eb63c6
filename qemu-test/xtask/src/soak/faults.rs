//! What goes wrong, and how it is made right again.

use std::thread;
use std::time::Duration;

use anyhow::Result;
use nix::sys::signal::Signal;
use xdnsd_lab::lab::{LAN, Lab, WAN};

use super::load::SlowClients;
use super::router::{Disk, Router};
use super::servers::{Mood, Servers};

/// Slow clients at the same time: more than there are places.
const SLOW_CLIENTS: usize = 80;
/// How long an interface is down, and a process stopped.
const MOMENT: Duration = Duration::from_secs(1);

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing: what the others are compared with.
    None,
    /// The first server is silent.
    FirstSilent,
    /// Both are.
    BothSilent,
    /// Both say SERVFAIL.
    BothFailing,
    /// All datagrams of both are truncated.
    Truncating,
    /// Both send other answers, to another ID.
    WrongId,
    /// Both lose the letter case of questions.
    Lowering,
    /// The link to the servers is down for a moment.
    WanDown,
    /// The link to the clients is.
    LanDown,
    /// SIGHUP, again and again.
    Reload,
    /// The cache is emptied.
    Flush,
    /// SIGKILL, and a start.
    Kill,
    /// SIGTERM, and a start.
    Restart,
    /// The process stands still for a moment.
    Stopped,
    /// No space for the snapshot.
    FullDisk,
    /// A list has other names, by a rename.
    ListRenamed,
    /// The same, written over the old one.
    ListInPlace,
    /// TCP clients that say half a query, or never read.
    SlowClients,
}

/// All of them.
pub const ALL: [Fault; 18] = [
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
];

/// What faults are made in.
#[derive(Debug)]
pub struct Scene<'s, 'l> {
    /// The network.
    pub lab: &'l Lab,
    /// The servers.
    pub servers: &'s Servers,
    /// The appliance.
    pub router: &'s mut Router<'l>,
    /// Where its snapshot is.
    pub disk: &'s Disk,
}

impl Fault {
    /// What the table calls it.
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
        }
    }

    /// Goes wrong for `length`, and is right again at the end.
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
                // A snapshot is written meanwhile, or tried to be.
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
        }
        Ok(())
    }
}

fn moods(moods: [Mood; 2], scene: &Scene<'_, '_>, length: Duration) {
    scene.servers.set(moods);
    thread::sleep(length);
    scene.servers.set([Mood::Good; 2]);
}

fn down(lab: &Lab, device: &str) -> Result<()> {
    lab.router.ip(&format!("link set {device} down\n"))?;
    thread::sleep(MOMENT);
    lab.router.ip(&format!("link set {device} up\n"))
}

/// One list gets other names, and then its own again.
fn swap(scene: &Scene<'_, '_>, is_in_place: bool, length: Duration) -> Result<()> {
    scene.router.swap_list("none.txt", is_in_place)?;
    thread::sleep(length);
    scene.router.swap_list("all.txt", is_in_place)
}
