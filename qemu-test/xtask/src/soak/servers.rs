//! The servers behind the appliance: answers follow from the question, errors from the fault in force.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use anyhow::{Context, Result};
use xdnsd_lab::lab::{Lab, UPSTREAM_V4, UPSTREAM_V6};
use xdnsd_lab::scripted::{self, A, Asked, Rule};

use super::oracle::{self, Clock};

/// Offset of the flags in a header.
const FLAGS: usize = 2;
const TRUNCATED: u8 = 2;
const SERVFAIL: u8 = 2;

/// Behaviour of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mood {
    /// Answers.
    Good,
    /// Is silent.
    Silent,
    /// Answers SERVFAIL.
    Failing,
    /// Truncates all datagrams.
    Truncating,
    /// Sends datagrams with a wrong ID.
    WrongId,
    /// Returns the question in lower case.
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

/// Both servers, until dropped.
#[derive(Debug)]
pub struct Servers {
    moods: Arc<[AtomicU8; 2]>,
    _scripted: scripted::Upstream,
}

impl Servers {
    /// Starts them at the lab's upstream addresses.
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

    /// Sets the behaviour of the first and the second server.
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

/// Loses the letter case of a question.
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
