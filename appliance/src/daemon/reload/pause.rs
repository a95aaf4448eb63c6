//! Lists that say nothing for a while: `xdnsd pause`.
//!
//! Workers get the set in force without its lists, as they get any other set: a generation of its own, so what is cached under
//! one is judged anew under the other. It is the process's: a restart filters again.

use std::sync::Arc;
use std::time::Duration;

use xdnsd_core::time::Instant;

use crate::compile::set::PolicySet;

/// Whether lists are paused.
#[derive(Debug, Default)]
pub(super) struct Pause {
    /// Until then they are.
    until: Option<Instant>,
    /// The latest set with its lists, and the same without.
    bare: Option<(Arc<PolicySet>, Arc<PolicySet>)>,
}

impl Pause {
    /// Begins it, or gives it another end.
    pub fn begin(&mut self, now: Instant, length: Duration) {
        let millis = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
        self.until = Some(Instant::from_millis(now.millis().saturating_add(millis)));
    }

    /// Ends it. Whether there was one.
    pub fn end(&mut self) -> bool {
        self.until.take().is_some()
    }

    /// The same, where its time is over.
    pub fn end_if_due(&mut self, now: Instant) -> bool {
        self.until.take_if(|until| *until <= now).is_some()
    }

    pub const fn is_on(&self) -> bool {
        self.until.is_some()
    }

    /// When it ends.
    pub const fn until(&self) -> Option<Instant> {
        self.until
    }

    /// What workers are to serve under, where `set` has all that the config says.
    pub fn in_force(&mut self, set: Arc<PolicySet>) -> Arc<PolicySet> {
        if !self.is_on() {
            self.bare = None;
            return set;
        }
        match &self.bare {
            Some((of, bare)) if Arc::ptr_eq(of, &set) => Arc::clone(bare),
            Some(_) | None => {
                let bare = Arc::new(set.without_lists());
                self.bare = Some((set, Arc::clone(&bare)));
                bare
            }
        }
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
        pause.begin(at(10), Duration::from_secs(60));
        let bare = pause.in_force(Arc::clone(&one));
        assert_eq!((bare.listed_names(), one.listed_names()), (0, 1));
        assert_eq!((bare.is_paused(), one.is_paused()), (true, false));
        assert_ne!(bare.view().generation, one.view().generation);
        let again = pause.in_force(Arc::clone(&one));
        assert!(Arc::ptr_eq(&again, &bare), "nothing has changed");
        assert_eq!(pause.in_force(Arc::clone(&other)).listed_names(), 0);
        assert!(!pause.end_if_due(at(69)));
        assert!(pause.end_if_due(at(70)) && !pause.end());
        assert!(Arc::ptr_eq(&pause.in_force(Arc::clone(&other)), &other));
    }
}
