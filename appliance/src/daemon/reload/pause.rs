//! Lists that are switched off for a while: `xdnsd pause`.
//!
//! Workers get the set in force without its lists, like any other set: it has a generation of its own, so what is cached under
//! one is judged anew under the other. A pause lives in the process: a restart filters again.

use std::sync::Arc;
use std::time::Duration;

use xdnsd_core::time::Instant;

use crate::compile::Prefix;
use crate::compile::set::PolicySet;
use crate::control::commands::PauseState;

/// Maximum number of clients with a pause at once, each an address or a prefix.
pub(super) const CLIENTS_MAX: usize = 64;

/// A client, and when its pause ends.
type PausedClient = (Prefix, Instant);

/// Current pauses of lists.
#[derive(Debug, Default)]
pub(super) struct Pause {
    /// When the pause for everybody ends.
    until: Option<Instant>,
    /// Clients with a pause of their own.
    clients: Vec<PausedClient>,
    /// The latest set with its lists, the paused clients, and the resulting set of the workers. `None`: workers have the set as
    /// it is.
    shown: Option<Shown>,
}

/// A set, and the one derived from it.
#[derive(Debug)]
struct Shown {
    of: Arc<PolicySet>,
    /// `None`: everybody.
    clients: Option<Vec<Prefix>>,
    set: Arc<PolicySet>,
}

impl Pause {
    /// Begins a pause for one client or for everybody, or changes its end.
    ///
    /// # Errors
    /// There are [`CLIENTS_MAX`] clients already.
    pub fn begin(
        &mut self,
        now: Instant,
        length: Duration,
        client: Option<Prefix>,
    ) -> Result<(), String> {
        let millis = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
        let until = Instant::from_millis(now.millis().saturating_add(millis));
        let Some(client) = client else {
            self.until = Some(until);
            return Ok(());
        };
        let mut known = self.clients.iter_mut();
        if let Some((_, end)) = known.find(|(known, _)| *known == client) {
            *end = until;
        } else if self.clients.len() < CLIENTS_MAX {
            self.clients.push((client, until));
        } else {
            return Err(format!(
                "lists are paused for {CLIENTS_MAX} clients, which is the most; a prefix counts for one"
            ));
        }
        Ok(())
    }

    /// Ends the pause of one client, or all of them with `None`. True if there was one.
    pub fn end(&mut self, client: Option<Prefix>) -> bool {
        let before = self.clients.len();
        match client {
            None => {
                self.clients.clear();
                self.until.take().is_some() || before > 0
            }
            Some(client) => {
                self.clients.retain(|(known, _)| *known != client);
                self.clients.len() < before
            }
        }
    }

    /// Ends pauses whose time is over. True if there was one.
    pub fn end_if_due(&mut self, now: Instant) -> bool {
        let before = self.clients.len();
        self.clients.retain(|(_, until)| *until > now);
        let is_over = self.until.take_if(|until| *until <= now).is_some();
        is_over || self.clients.len() < before
    }

    pub const fn is_on(&self) -> bool {
        self.until.is_some() || !self.clients.is_empty()
    }

    /// Current pauses with the seconds left, that of everybody first.
    pub fn state(&self, now: Instant) -> Vec<PauseState> {
        let everybody = self.until.map(|until| (None, until));
        let clients = self.clients.iter();
        let clients = clients.map(|(client, until)| (Some(*client), *until));
        let all = everybody.into_iter().chain(clients);
        let left = all.map(|(client, until)| PauseState {
            client,
            secs: until.millis_since(now).div_ceil(1_000),
        });
        left.collect()
    }

    /// The set that workers are to serve under; `set` has all that the config says.
    pub fn in_force(&mut self, set: Arc<PolicySet>) -> Arc<PolicySet> {
        if !self.is_on() {
            self.shown = None;
            return set;
        }
        let clients = self.clients.iter().map(|(client, _)| *client);
        let clients = self.until.is_none().then(|| clients.collect::<Vec<_>>());
        if let Some(shown) = &self.shown
            && Arc::ptr_eq(&shown.of, &set)
            && shown.clients == clients
        {
            return Arc::clone(&shown.set);
        }
        let paused = Arc::new(match &clients {
            None => set.without_lists(),
            Some(clients) => set.without_lists_for(clients),
        });
        self.shown = Some(Shown {
            of: set,
            clients,
            set: Arc::clone(&paused),
        });
        paused
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::ListsInput;
    use crate::compile::Notes;
    use crate::compile::set::PolicyInput;

    fn set() -> Arc<PolicySet> {
        let lists = ListsInput {
            block_names: vec!["ads.test".into()],
            ..ListsInput::default()
        };
        let input = PolicyInput {
            lists,
            ..PolicyInput::default()
        };
        let built = PolicySet::build(&input, None, &mut Notes::default());
        Arc::new(built.expect("a policy"))
    }

    #[test]
    fn a_pause_takes_the_lists_of_every_set_until_it_is_over() {
        let (mut pause, one, other) = (Pause::default(), set(), set());
        let at = |secs: u64| Instant::from_millis(secs * 1_000);
        assert!(Arc::ptr_eq(&pause.in_force(Arc::clone(&one)), &one));
        let minute = Duration::from_secs(60);
        pause.begin(at(10), minute, None).expect("begun");
        let bare = pause.in_force(Arc::clone(&one));
        assert_eq!((bare.listed_names(), one.listed_names()), (0, 1));
        assert_eq!((bare.is_paused(), one.is_paused()), (true, false));
        assert_ne!(bare.view().generation, one.view().generation);
        let again = pause.in_force(Arc::clone(&one));
        assert!(Arc::ptr_eq(&again, &bare), "nothing has changed");
        assert_eq!(pause.in_force(Arc::clone(&other)).listed_names(), 0);
        assert!(!pause.end_if_due(at(69)));
        assert!(pause.end_if_due(at(70)) && !pause.end(None));
        assert!(Arc::ptr_eq(&pause.in_force(Arc::clone(&other)), &other));
    }

    #[test]
    fn a_pause_for_one_client_is_one_for_nobody_else() {
        let (mut pause, set) = (Pause::default(), set());
        let at = |secs: u64| Instant::from_millis(secs * 1_000);
        let client: Prefix = "192.0.2.7".parse().expect("an address");
        let network: Prefix = "198.51.100.0/24".parse().expect("a prefix");
        for (client, secs) in [(client, 60), (network, 90)] {
            let length = Duration::from_secs(secs);
            pause.begin(at(10), length, Some(client)).expect("begun");
        }
        let left = pause
            .state(at(30))
            .iter()
            .map(|state| state.secs)
            .collect::<Vec<_>>();
        assert_eq!(left, [40, 70]);
        let paused = pause.in_force(Arc::clone(&set));
        assert!(Arc::ptr_eq(&pause.in_force(Arc::clone(&set)), &paused));
        assert!(!paused.is_paused());
        let lists = |set: &PolicySet, client: &str| {
            let policies = set.policies();
            let client = client.parse().expect("an address");
            let policy = set.views(&policies).of(client, 0).copied();
            let policy = policy.unwrap_or_else(|| set.view());
            (policy.lists.as_slice().len(), policy.view == 0)
        };
        for (client, expected) in [
            ("192.0.2.7", (0, false)),
            ("198.51.100.200", (0, false)),
            ("192.0.2.8", (1, true)),
            ("2001:db8::7", (1, true)),
        ] {
            assert_eq!(lists(&paused, client), expected, "{client}");
            assert_eq!(lists(&set, client), (1, true), "{client}");
        }
        assert_ne!(paused.view().generation, set.view().generation);
        // The first pause is over, and the second goes on.
        assert!(pause.end_if_due(at(70)) && pause.is_on());
        let fewer = pause.in_force(Arc::clone(&set));
        assert_eq!(lists(&fewer, "192.0.2.7"), (1, true));
        assert_eq!(lists(&fewer, "198.51.100.200"), (0, false));
        assert!(!pause.end(Some(client)) && pause.end(Some(network)) && !pause.is_on());
        assert!(Arc::ptr_eq(&pause.in_force(Arc::clone(&set)), &set));
        for number in 0..=CLIENTS_MAX as u8 {
            let client = Prefix::masked([192, 0, 2, number].into(), 32);
            let begun = pause.begin(at(10), Duration::from_secs(1), Some(client));
            assert_eq!(begun.is_ok(), usize::from(number) < CLIENTS_MAX, "{number}");
        }
        assert!(pause.end(None) && !pause.is_on());
    }
}
