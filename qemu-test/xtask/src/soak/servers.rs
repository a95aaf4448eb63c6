//! The servers behind the appliance: what they say follows from the question, and what is wrong with them from the fault in force.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use anyhow::{Context, Result};
use xdnsd_lab::lab::{Lab, UPSTREAM_V4, UPSTREAM_V6};
use xdnsd_lab::scripted::{self, A, Asked, Rule};

use super::oracle::{self, Clock};

/// Where a header says what it is.
const FLAGS: usize = 2;
const TRUNCATED: u8 = 2;
const SERVFAIL: u8 = 2;

/// How a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mood {
    /// It answers.
    Good,
    /// It says nothing.
    Silent,
    /// It has no answer: SERVFAIL.
    Failing,
    /// All of its datagrams are truncated.
    Truncating,
    /// What it sends by datagram is to another question's ID.
    WrongId,
    /// It loses the letter case of a question.
    Lowering,
}

const MOODS: [Mood; 6] = [
    Mood::Good,
    Mood::Silent,
    Mood::Failing,
    Mood::Truncating,
    Mood::WrongId,
    Mood::Lowering,
];

/// Both servers; they end when this is dropped.
#[derive(Debug)]
pub struct Servers {
    moods: Arc<[AtomicU8; 2]>,
    _scripted: scripted::Upstream,
}

impl Servers {
    /// Starts them at the lab's addresses for that.
    pub fn start(lab: &Lab, clock: Clock) -> Result<Self> {
        let moods: Arc<[AtomicU8; 2]> = Arc::default();
        let seen = moods.clone();
        let rule = Rule::answer(move |asked| answer(asked, &seen, clock));
        let mut scripted = scripted::Upstream::without_record(rule);
        let addresses: [IpAddr; 2] = [UPSTREAM_V4.into(), UPSTREAM_V6.into()];
        for address in addresses {
            let served = lab
                .upstream
                .run(|| scripted.serve(SocketAddr::new(address, 53)));
            served.with_context(|| format!("a server at {address}"))?;
        }
        Ok(Self {
            moods,
            _scripted: scripted,
        })
    }

    /// From now on they are like this, the first and the second.
    pub fn set(&self, moods: [Mood; 2]) {
        for (place, mood) in self.moods.iter().zip(moods) {
            place.store(mood as u8, Ordering::Relaxed);
        }
    }
}

fn answer(asked: &Asked, moods: &[AtomicU8; 2], clock: Clock) -> Vec<u8> {
    let place = usize::from(asked.server.is_ipv6());
    let mood = MOODS[usize::from(moods[place].load(Ordering::Relaxed))];
    let mut response = oracle::response(asked, clock);
    match mood {
        Mood::Silent => return Vec::new(),
        Mood::Failing => {
            response = asked.response(&[]);
            response[FLAGS + 1] |= SERVFAIL;
        }
        Mood::Truncating if !asked.is_tcp => {
            response = asked.response(&[]);
            response[FLAGS] |= TRUNCATED;
        }
        Mood::WrongId if !asked.is_tcp => {
            response = match asked.kind() {
                A => asked.response(&oracle::forged()),
                _ => asked.response(&oracle::forged_v6()),
            };
            response[1] ^= 1;
        }
        Mood::Lowering if !asked.is_tcp => response.make_ascii_lowercase_name(),
        Mood::Good | Mood::Truncating | Mood::WrongId | Mood::Lowering => {}
    }
    response
}

/// What loses the letter case.
trait LowerName {
    /// Makes the name of a question lower case.
    fn make_ascii_lowercase_name(&mut self);
}

impl LowerName for Vec<u8> {
    fn make_ascii_lowercase_name(&mut self) {
        let name = self.iter_mut().skip(12).take_while(|byte| **byte != 0);
        name.for_each(|byte| byte.make_ascii_lowercase());
    }
}
