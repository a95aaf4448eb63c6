//! Keeps policy up to date: reads files anew when they change, and keeps the set in force where the new one is wrong.

use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::Arc;

use xdnsd_core::policy::on_link::Network;
use xdnsd_core::time::Instant;

use super::problem::{Notes, Problem, Said};
use super::set::{PolicyInput, PolicySet};
use super::watch::{Debounce, Users, Watcher};

/// What came of reading files anew.
#[derive(Debug)]
pub struct Update {
    /// The set in force from now on. `None`: the one before stays.
    pub set: Option<Arc<PolicySet>>,
    /// What was passed over, with file and line; and the files that failed. After a start their names are missing until
    /// they can be read; later, what they belong to stays as it was.
    pub notes: Notes,
}

/// The set in force, and what it is made of. Belongs to one thread, which waits for its file descriptor and its deadline.
#[derive(Debug)]
pub struct Keeper {
    input: PolicyInput,
    set: Arc<PolicySet>,
    watcher: Watcher,
    debounce: Debounce,
    changed: Users,
    /// Files of local data that could not be used when the set in force was built.
    missing_local: Vec<Problem>,
    /// Lists that could not.
    missing_lists: Vec<Problem>,
    /// When the first of the leases in force ends, in seconds of the Unix epoch.
    next_end_secs: Option<i64>,
    /// What was said of local data as it is.
    said: Said,
    /// Whether the machine has other addresses than those that the leases in force were compared with.
    has_moved: bool,
}

impl Keeper {
    /// Compiles the first set and watches its files. A file that cannot be read does not keep a router from starting: what
    /// it belongs to is empty until it can, and the update says so.
    ///
    /// # Errors
    /// The config itself is wrong, or the kernel gives no inotify instance.
    pub fn start(input: PolicyInput, now_secs: Option<i64>) -> Result<(Self, Update), Problem> {
        // Watched before they are read: what changes in between is read again.
        let no_watch = |error: nix::Error| {
            Problem::of("inotify", format!("{error}; see fs.inotify in sysctl"))
        };
        let watcher = Watcher::new(files(&input)).map_err(no_watch)?;
        let (mut local, mut lists) = (Notes::default(), Notes::default());
        let set = PolicySet::build_fixed(&input)?
            .with_lists(&input, &mut lists)?
            .with_local(&input, now_secs, &mut local)?;
        let mut keeper = Self {
            input,
            set: Arc::new(set),
            watcher,
            debounce: Debounce::default(),
            changed: Users::default(),
            missing_local: local.failures.clone(),
            missing_lists: lists.failures.clone(),
            next_end_secs: local.next_end_secs,
            said: Said::default(),
            has_moved: false,
        };
        keeper.said.leave_new(&mut local);
        local.merge(lists);
        let update = Update {
            set: Some(keeper.set()),
            notes: local,
        };
        Ok((keeper, update))
    }

    /// The set in force.
    #[must_use]
    pub fn set(&self) -> Arc<PolicySet> {
        Arc::clone(&self.set)
    }

    /// Takes the kernel's events. To be called when the file descriptor is readable.
    ///
    /// # Errors
    /// The kernel does not tell. All files count as changed then.
    pub fn take_events(&mut self, now: Instant) -> Result<(), Problem> {
        let (changed, told) = match self.watcher.changes() {
            Ok(changed) => (changed, Ok(())),
            Err(error) => (Users::ALL, Err(Problem::of("inotify", error.to_string()))),
        };
        if changed.any() {
            self.changed = self.changed.with(changed);
            self.debounce.note(now);
        }
        told
    }

    /// When [`Self::update_if_due`] has something to do. `None`: not before the next event.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.debounce.deadline()
    }

    /// Reads what has changed, once its writers have had the time to finish, and leases when one has ended. `None`: not
    /// yet, or nothing. To be asked every second or so.
    pub fn update_if_due(&mut self, now: Instant, now_secs: Option<i64>) -> Option<Update> {
        let ends = self.next_end_secs.zip(now_secs);
        let has_ended = ends.is_some_and(|(end_secs, now_secs)| end_secs < now_secs);
        self.changed.local |= has_ended;
        let is_due = self.debounce.take_due(now) || has_ended || self.has_moved;
        self.has_moved = false;
        is_due.then(|| self.rebuild(now_secs))
    }

    /// Addresses that no query from the wire can come from.
    #[must_use]
    pub fn unfit_sources(&self) -> &[IpAddr] {
        &self.input.unfit_sources
    }

    /// The networks of the served interfaces.
    #[must_use]
    pub fn on_link(&self) -> &[Network] {
        &self.input.on_link
    }

    /// Takes over what the machine's addresses are by now.
    pub fn set_addresses(
        &mut self,
        unfit_sources: Vec<IpAddr>,
        on_link: Vec<Network>,
    ) -> Arc<PolicySet> {
        // None of our own addresses is a client's.
        self.has_moved |= self.has_leases() && unfit_sources != self.input.unfit_sources;
        self.changed.local |= self.has_moved;
        self.input.unfit_sources = unfit_sources;
        self.input.on_link = on_link;
        self.set = Arc::new(self.set.with_addresses(&self.input));
        self.set()
    }

    /// Reads all files again at once: somebody asked for it.
    pub fn reload(&mut self, now_secs: Option<i64>) -> Update {
        self.changed = Users::ALL;
        self.rebuild(now_secs)
    }

    fn has_leases(&self) -> bool {
        !self.input.local.leases.is_empty()
    }

    fn rebuild(&mut self, now_secs: Option<i64>) -> Update {
        let changed = std::mem::take(&mut self.changed);
        let before = Arc::clone(&self.set);
        let mut notes = Notes::default();
        if changed.lists {
            let mut lists = Notes::default();
            let built = self.set.with_lists(&self.input, &mut lists);
            let set = accept(built, &mut lists, &mut self.missing_lists);
            self.set = set.map_or(Arc::clone(&self.set), Arc::new);
            notes.merge(lists);
        }
        // What a list blocks is not a lease's.
        if changed.local || changed.lists && self.has_leases() {
            let mut local = Notes::default();
            let built = self.set.with_local(&self.input, now_secs, &mut local);
            self.next_end_secs = local.next_end_secs;
            let set = accept(built, &mut local, &mut self.missing_local);
            self.set = set.map_or(Arc::clone(&self.set), Arc::new);
            self.said.leave_new(&mut local);
            notes.merge(local);
        }
        let is_new = !Arc::ptr_eq(&before, &self.set);
        Update {
            set: is_new.then(|| self.set()),
            notes,
        }
    }
}

/// The new set, unless a file failed that the set in force has: half a blocklist is worse than yesterday's.
fn accept(
    built: Result<PolicySet, Problem>,
    notes: &mut Notes,
    missing: &mut Vec<Problem>,
) -> Option<PolicySet> {
    let set = notes.or_fail(built)?;
    let is_missing = |failure: &Problem| missing.iter().any(|known| known.place == failure.place);
    if !notes.failures.iter().all(is_missing) {
        return None;
    }
    missing.clone_from(&notes.failures);
    Some(set)
}

impl AsFd for Keeper {
    /// Readable when [`Keeper::take_events`] has something to take.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.watcher.as_fd()
    }
}

fn files(input: &PolicyInput) -> Vec<(PathBuf, Users)> {
    let local = input
        .local
        .hosts
        .iter()
        .chain(input.local.leases.iter().map(|lease| &lease.path));
    let lists = input
        .lists
        .block
        .iter()
        .chain(&input.lists.allow)
        .chain(&input.lists.compiled);
    let local = local.map(|path| (path.clone(), Users::LOCAL));
    local
        .chain(lists.map(|path| (path.clone(), Users::LISTS)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::hosts::LeaseFormat;
    use crate::policy::local::LeaseFile;
    use crate::policy::testing::Folder;
    use crate::policy::{list_file, lists::Purpose, name};
    use std::fs;
    use xdnsd_core::dns::rtype;
    use xdnsd_core::policy::{Decision, Labels, Local};

    /// Time enough for any debounce.
    const LATER: Instant = Instant::from_millis(10_000);
    const NOW: Instant = Instant::from_millis(1_000);

    fn is_local(keeper: &Keeper, question: &str) -> bool {
        let name = name::parse(question).expect("a name");
        let set = keeper.set();
        let found = set
            .view()
            .decide(&Labels::new(&name).expect("well-formed"), rtype::A);
        matches!(found, Decision::Local(Local::Records(_)))
    }

    fn is_blocked(keeper: &Keeper, question: &str) -> bool {
        let name = name::parse(question).expect("a name");
        let set = keeper.set();
        let found = set
            .view()
            .decide(&Labels::new(&name).expect("well-formed"), rtype::A);
        matches!(found, Decision::Blocked(_))
    }

    /// Lets the keeper find out what happened and do what it does.
    fn update(keeper: &mut Keeper) -> Option<Update> {
        keeper.take_events(NOW).expect("events");
        keeper.update_if_due(LATER, None)
    }

    fn told(update: &Update) -> Vec<String> {
        update
            .notes
            .failures
            .iter()
            .chain(&update.notes.first)
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn a_lease_is_answered_once_its_file_is_written() {
        let folder = Folder::new();
        let path = folder.path().join("dhcp.leases");
        let mut input = PolicyInput::default();
        input.local.leases = vec![LeaseFile {
            path: path.clone(),
            format: LeaseFormat::Dnsmasq,
        }];
        let (mut keeper, first) = Keeper::start(input, None).expect("started");
        assert_eq!(told(&first), [format!("{}: is not there", path.display())]);
        assert!(update(&mut keeper).is_none(), "nothing happened");
        fs::write(&path, "0 02:00:00:00:00:01 192.168.1.7 phone *\n").expect("written");
        keeper.take_events(NOW).expect("events");
        assert!(
            keeper.update_if_due(NOW, None).is_none(),
            "its writer may not have finished"
        );
        assert!(keeper.deadline().is_some_and(|deadline| deadline > NOW));
        let updated = keeper.update_if_due(LATER, None).expect("due");
        assert_eq!((told(&updated).len(), updated.set.is_some()), (0, true));
        assert!(is_local(&keeper, "phone"));
        assert_eq!(keeper.deadline(), None);
    }

    #[test]
    fn a_lease_that_ends_goes_although_nobody_writes() {
        let folder = Folder::new();
        let text = "1900000000 m 192.168.1.7 phone *\n1900000005 m 192.168.1.8 tv *\n0 m 192.168.1.9 box *\n";
        let mut input = PolicyInput::default();
        input.local.leases = vec![LeaseFile {
            path: folder.write("dhcp.leases", text),
            format: LeaseFormat::Dnsmasq,
        }];
        let (mut keeper, _) = Keeper::start(input, Some(1_800_000_000)).expect("started");
        let at = |keeper: &mut Keeper, secs| keeper.update_if_due(NOW, Some(secs)).is_some();
        assert!(!at(&mut keeper, 1_900_000_000), "its last second");
        assert!(is_local(&keeper, "phone"));
        assert!(at(&mut keeper, 1_900_000_001));
        assert!(!is_local(&keeper, "phone") && is_local(&keeper, "tv"));
        assert!(!at(&mut keeper, 1_900_000_002));
        assert!(at(&mut keeper, 1_900_000_010) && !is_local(&keeper, "tv"));
        assert!(!at(&mut keeper, i64::MAX) && is_local(&keeper, "box"));
        assert!(keeper.update_if_due(NOW, None).is_none(), "without a clock");
    }

    #[test]
    fn a_list_that_turns_bad_leaves_the_old_one_in_force() {
        let folder = Folder::new();
        let (text, hosts) = (
            folder.write("ads.txt", "ads.example\n"),
            folder.write("hosts", "192.168.1.2 nas\n"),
        );
        let source = folder.write("source.txt", "mapped.example\n");
        let compiled = folder.path().join("compiled.list");
        let (image, _) = list_file::compile(&[(source, Purpose::Block)]).expect("compiled");
        list_file::write(&compiled, &image).expect("written");
        let mut input = PolicyInput::default();
        input.lists.block = vec![text.clone()];
        input.lists.compiled = vec![compiled.clone()];
        input.local.hosts = vec![hosts];
        let (mut keeper, first) = Keeper::start(input, None).expect("started");
        assert_eq!(told(&first), [""; 0]);
        folder.write("ads.txt", "<html>\n");
        folder.write("hosts", "192.168.1.3 tv\n");
        let updated = update(&mut keeper).expect("due");
        assert_eq!(
            told(&updated),
            [format!(
                "{}: has no rule in 1 lines: is it a blocklist?",
                text.display()
            )]
        );
        assert!(is_blocked(&keeper, "ads.example") && is_blocked(&keeper, "mapped.example"));
        assert!(
            is_local(&keeper, "tv") && !is_local(&keeper, "nas"),
            "what is not wrong is taken over"
        );
        // A torn file in place of the compiled one: a new file, because the old one is mapped.
        fs::remove_file(&compiled).expect("removed");
        folder.write("compiled.list", &image[..image.len() / 2]);
        folder.write("ads.txt", "new.example\n");
        let updated = update(&mut keeper).expect("due");
        assert!(
            told(&updated)[0].contains("compiled.list: is torn"),
            "{:?}",
            told(&updated)
        );
        assert!(updated.set.is_none());
        assert!(is_blocked(&keeper, "ads.example") && !is_blocked(&keeper, "new.example"));
        list_file::write(&compiled, &image).expect("written");
        let updated = update(&mut keeper).expect("due");
        assert_eq!(told(&updated), [""; 0]);
        assert!(is_blocked(&keeper, "new.example") && is_blocked(&keeper, "mapped.example"));
        assert!(!is_blocked(&keeper, "ads.example"));
    }

    #[test]
    fn a_file_that_fails_at_the_start_does_not_hold_up_the_others() {
        let folder = Folder::new();
        let (bad, good) = (
            folder.path().join("bad.txt"),
            folder.write("good.txt", "good.example\n"),
        );
        let mut input = PolicyInput::default();
        input.lists.block = vec![bad.clone(), good];
        let (mut keeper, first) = Keeper::start(input, None).expect("started");
        assert_eq!(first.notes.failures.len(), 1);
        assert!(is_blocked(&keeper, "good.example"));
        folder.write("good.txt", "better.example\n");
        let updated = update(&mut keeper).expect("due");
        assert_eq!(updated.notes.failures.len(), 1, "said again");
        assert!(is_blocked(&keeper, "better.example"));
        fs::write(&bad, "late.example\n").expect("written");
        let updated = update(&mut keeper).expect("due");
        assert_eq!(told(&updated), [""; 0]);
        assert!(is_blocked(&keeper, "late.example") && is_blocked(&keeper, "better.example"));
        fs::remove_file(&bad).expect("removed");
        let updated = update(&mut keeper).expect("due");
        assert_eq!(updated.notes.failures.len(), 1);
        assert!(
            is_blocked(&keeper, "late.example"),
            "it was in force, so it stays"
        );
    }

    /// Everything that was said in an update, and the file's own name cut off.
    fn said(update: Option<Update>) -> Vec<String> {
        let notes = update.expect("due").notes;
        let all = notes
            .failures
            .iter()
            .chain(&notes.first)
            .chain(&notes.refusals);
        all.map(|problem| problem.what.clone()).collect()
    }

    #[test]
    fn a_fault_is_said_once_per_change_of_its_file() {
        let folder = Folder::new();
        let mut input = PolicyInput::default();
        input.local.hosts = vec![
            folder.write("hosts", "192.168.1.2 bob's nas\n"),
            folder.path().join("later"),
        ];
        let lease = |number: u8| format!("0 m{number} 192.168.1.7{number} name{number} *\n");
        let text = "0 m9 192.168.1.66 nas *\n0 m8 192.168.1.67 bad's *\n";
        input.local.leases = vec![LeaseFile {
            path: folder.write("leases", text),
            format: LeaseFormat::Dnsmasq,
        }];
        let (mut keeper, first) = Keeper::start(input, None).expect("started");
        let all = [
            "`bob's` has characters that a host name may not have",
            "is not there",
            "`bad's` has characters that a host name may not have",
            "not giving name nas to the DHCP lease of 192.168.1.66 because the name exists in ",
        ];
        let starts = |said: &[String], expected: &[&str]| {
            assert_eq!(said.len(), expected.len(), "{said:?}");
            let mut both = said.iter().zip(expected);
            assert!(
                both.all(|(said, expected)| said.starts_with(expected)),
                "{said:?}"
            );
        };
        starts(&said(Some(first)), &all);
        // Five leases, in front of the others, so that each line's number changes.
        let mut leases = String::from(text);
        for number in 1..=5 {
            leases = lease(number) + &leases;
            folder.write("leases", &leases);
            starts(&said(update(&mut keeper)), &[]);
            assert!(is_local(&keeper, &format!("name{number}")));
        }
        folder.write("hosts", "192.168.1.3 tv\n192.168.1.2 bob's nas\n");
        starts(&said(update(&mut keeper)), &all[..1]);
        folder.write("leases", lease(1) + text);
        starts(&said(update(&mut keeper)), &[]);
        folder.write("later", "192.168.1.9\n");
        starts(&said(update(&mut keeper)), &["has an address and no name"]);
        fs::remove_file(folder.path().join("later")).expect("removed");
        starts(&said(update(&mut keeper)), &["is not there"]);
        // The client calls itself otherwise, then so again: that is news.
        folder.write("leases", lease(1));
        starts(&said(update(&mut keeper)), &[]);
        folder.write("leases", lease(1) + text);
        starts(&said(update(&mut keeper)), &all[2..]);
        starts(&said(Some(keeper.reload(None))), &[]);
    }

    #[test]
    fn a_lease_loses_its_name_to_a_list_and_gets_it_back() {
        let folder = Folder::new();
        let mut input = PolicyInput::default();
        input.lists.block = vec![folder.write("ads.txt", "ads.example\n")];
        input.local.leases = vec![LeaseFile {
            path: folder.write("leases", "0 m1 192.168.1.66 phone *\n"),
            format: LeaseFormat::Dnsmasq,
        }];
        let (mut keeper, _) = Keeper::start(input, None).expect("started");
        assert!(is_local(&keeper, "phone"));
        folder.write("ads.txt", "ads.example\n||phone^\n");
        let expected =
            "not giving name phone to the DHCP lease of 192.168.1.66 because it is blocked";
        assert_eq!(said(update(&mut keeper)), [expected]);
        assert!(!is_local(&keeper, "phone") && is_blocked(&keeper, "phone"));
        folder.write("ads.txt", "ads.example\nb.example\n");
        update(&mut keeper).expect("due");
        assert!(is_local(&keeper, "phone"));
    }

    #[test]
    fn an_address_that_becomes_our_own_is_no_lease_any_more() {
        let folder = Folder::new();
        let mut input = PolicyInput::default();
        input.local.leases = vec![LeaseFile {
            path: folder.write("leases", "0 m1 192.168.1.66 phone *\n"),
            format: LeaseFormat::Dnsmasq,
        }];
        let (mut keeper, _) = Keeper::start(input, None).expect("started");
        assert!(is_local(&keeper, "phone"));
        keeper.set_addresses(
            vec!["192.168.1.66".parse().expect("an address")],
            Vec::new(),
        );
        assert_eq!(said(keeper.update_if_due(NOW, None)).len(), 1);
        assert!(!is_local(&keeper, "phone"));
        assert!(keeper.update_if_due(NOW, None).is_none(), "once");
    }

    #[test]
    fn a_wrong_config_does_not_start() {
        let mut input = PolicyInput::default();
        input.local.records = vec!["nas A 192.168.1".into()];
        let error = Keeper::start(input, None).expect_err("wrong").to_string();
        assert!(error.starts_with("records: `nas A 192.168.1`: "), "{error}");
        let mut input = PolicyInput::default();
        input.lists.compiled = vec!["x".into(); 4];
        assert!(Keeper::start(input, None).is_err());
    }

    #[test]
    fn a_reload_reads_everything_at_once() {
        let folder = Folder::new();
        let hosts = folder.write("hosts", "192.168.1.2 nas\n");
        let mut input = PolicyInput::default();
        input.local.hosts = vec![hosts];
        let (mut keeper, _) = Keeper::start(input, None).expect("started");
        let old = keeper.set();
        folder.write("hosts", "192.168.1.3 tv\n");
        assert!(keeper.reload(None).set.is_some());
        assert!(is_local(&keeper, "tv"));
        assert!(
            !Arc::ptr_eq(&old, &keeper.set()),
            "whoever holds the old set still can"
        );
    }
}
