//! The account that the daemon serves under: an unprivileged one with only the capabilities that serving needs.
//!
//! An init script runs as root, early in the boot; a separate program that only changes the account would be one more to load
//! before the first answer.

use std::fs;
use std::io;

use log::debug;
use nix::sys::prctl;
use nix::unistd::{
    Gid, Uid, getegid, geteuid, getgroups, getresgid, getresuid, setgroups, setresgid, setresuid,
};
use rustix::thread::CapabilitySet;

use super::capabilities;

/// List of accounts (passwd(5)).
const ACCOUNTS: &str = "/etc/passwd";

/// List of groups (group(5)).
const GROUPS: &str = "/etc/group";

/// Capabilities that serving needs: port 53, interface settings, raw sockets, locked memory, the XDP program and its
/// verification.
const KEPT: CapabilitySet = CapabilitySet::NET_BIND_SERVICE
    .union(CapabilitySet::NET_ADMIN)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::IPC_LOCK)
    .union(CapabilitySet::PERFMON)
    .union(CapabilitySet::BPF);

/// Account of the keeper, if it exists and the config names none.
const KEEPER: &str = "xdnsd-keeper";

/// User and group IDs of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PasswdEntry {
    user: Uid,
    group: Gid,
}

/// Changes the process from root to the account `name` for good, with only [`KEPT`] and what another account for the keeper takes
/// ([`settle`] drops that). A process that already has that account keeps those of them that it has. Call it before any thread
/// starts: the system calls act on the calling thread.
///
/// # Errors
/// The account is missing, or the process may not change to it: one sentence.
pub fn change_to(name: &str) -> Result<(), String> {
    let accounts = fs::read_to_string(ACCOUNTS).map_err(|error| format!("{ACCOUNTS}: {error}"))?;
    let account = find(&accounts, name)
        .ok_or_else(|| format!("--user {name}: {ACCOUNTS} has no such user"))?;
    let changed = if !is_root() && account.is_ours()? {
        capabilities::limit(KEPT.union(capabilities::UNTIL_SETTLED))
            .and_then(|()| Ok(prctl::set_no_new_privs()?))
    } else {
        change(account)
    };
    changed.map_err(|error| match is_root() {
        true => format!("cannot become user {name}: {error}"),
        false => format!(
            "cannot become user {name}: this is user {}, and only root may change",
            geteuid()
        ),
    })
}

/// Gives up the way to another account, for a process that [`change_to`] has changed: for this thread and those to come.
///
/// # Errors
/// The kernel refused.
pub fn settle() -> io::Result<()> {
    if is_root() {
        return Ok(());
    }
    if let Err(error) = capabilities::bound(KEPT) {
        debug!("the bounding set stays: {error}");
    }
    capabilities::limit(KEPT)
}

/// The account that the keeper is to have: `name`, or where that is empty the one made for it. `None`: it has this process's own.
///
/// # Errors
/// `name` is missing, or this process may not change to it: what is wrong.
pub fn of_keeper(name: &str) -> Result<Option<PasswdEntry>, String> {
    let may_change = capabilities::has(capabilities::ACCOUNTS);
    let accounts = fs::read_to_string(ACCOUNTS).map_err(|error| format!("{ACCOUNTS}: {error}"));
    if name.is_empty() {
        let found = accounts.ok().and_then(|accounts| find(&accounts, KEEPER));
        return Ok(found.filter(|_| may_change));
    }
    let found = find(&accounts?, name).ok_or_else(|| format!("{ACCOUNTS}: no user {name}"))?;
    match may_change {
        true => Ok(Some(found)),
        false => Err("changing the account takes CAP_SETUID and CAP_SETGID".to_owned()),
    }
}

impl PasswdEntry {
    /// Gives this account to the process for good, which has one thread, and `kept` of its capabilities. It becomes a member of
    /// the group that it had, whose folders it goes through.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn become_it(self, kept: CapabilitySet) -> io::Result<()> {
        let had = getegid();
        prctl::set_keepcaps(true)?;
        setgroups(&[had])?;
        setresgid(self.group, self.group, self.group)?;
        setresuid(self.user, self.user, self.user)?;
        capabilities::limit(kept)
    }

    /// True if all IDs of the process, saved ones included, are this account's.
    fn is_ours(self) -> Result<bool, String> {
        let ids = getresuid().and_then(|user| Ok((user, getresgid()?)));
        let (user, group) = ids.map_err(|errno| format!("getresuid: {errno}"))?;
        let users = [user.real, user.effective, user.saved];
        let groups = [group.real, group.effective, group.saved];
        let is_user = users.into_iter().all(|user| user == self.user);
        Ok(is_user && groups.into_iter().all(|group| group == self.group))
    }
}

/// The ID of a group, given by name or number.
///
/// # Errors
/// The group is missing: one sentence.
pub fn group(name: &str) -> Result<Gid, String> {
    if let Ok(number) = name.parse() {
        return Ok(Gid::from_raw(number));
    }
    let groups = fs::read_to_string(GROUPS).map_err(|error| format!("{GROUPS}: {error}"))?;
    find_group(&groups, name).ok_or_else(|| format!("{GROUPS}: no group {name}"))
}

/// True if this process may give a file of its own to the group: it is a member, or may change owners.
#[must_use]
pub fn may_give_to(group: Gid) -> bool {
    let is_member = || getgroups().is_ok_and(|groups| groups.contains(&group));
    is_root() || getegid() == group || is_member()
}

/// True if this process runs as root.
#[must_use]
pub fn is_root() -> bool {
    Uid::effective().is_root()
}

fn change(account: PasswdEntry) -> io::Result<()> {
    let kept = KEPT.union(capabilities::UNTIL_SETTLED);
    capabilities::bound(kept)?;
    // Keeps the capabilities across the change of the user.
    prctl::set_keepcaps(true)?;
    setgroups(&[])?;
    setresgid(account.group, account.group, account.group)?;
    setresuid(account.user, account.user, account.user)?;
    capabilities::set(kept)?;
    Ok(prctl::set_no_new_privs()?)
}

/// The account `name` in `accounts`, one per line (passwd(5)).
fn find(accounts: &str, name: &str) -> Option<PasswdEntry> {
    accounts.lines().find_map(|line| {
        let mut fields = line.split(':');
        let is_named = fields.next() == Some(name);
        let user = fields.nth(1).filter(|_| is_named)?.parse().ok()?;
        let group = fields.next()?.parse().ok()?;
        Some(PasswdEntry {
            user: Uid::from_raw(user),
            group: Gid::from_raw(group),
        })
    })
}

/// The group `name` in `groups`, one per line (group(5)).
fn find_group(groups: &str, name: &str) -> Option<Gid> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let is_named = fields.next() == Some(name);
        let number = fields.nth(1).filter(|_| is_named)?.parse().ok()?;
        Some(Gid::from_raw(number))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_found_by_its_whole_name_or_its_number() {
        let groups = "root:x:0:\nadmin:x:4:pi,xdnsd\nadm:x:five:\nadm:x:6:\nshort:x\n";
        let found = |name| find_group(groups, name).map(Gid::as_raw);
        assert_eq!(
            ["admin", "adm", "short", "pi", ""].map(found),
            [Some(4), Some(6), None, None, None]
        );
        assert_eq!(group("1234").map(Gid::as_raw), Ok(1234));
        assert!(group("no:such").is_err_and(|problem| problem.contains("no group no:such")));
    }

    #[test]
    fn an_account_is_found_by_its_whole_name() {
        let accounts = "root:x:0:0:root:/root:/bin/sh\nxdnsd-old:x:7:8::/:\n\
                        broken:x:seven:8::/:\nxdnsd:x:100:101:DNS:/data/xdnsd:/bin/false\nshort:x\n";
        let found =
            find(accounts, "xdnsd").map(|found| (found.user.as_raw(), found.group.as_raw()));
        assert_eq!(found, Some((100, 101)));
        for name in ["xdns", "broken", "short", "", "x"] {
            assert_eq!(find(accounts, name), None, "{name}");
        }
    }

    #[test]
    fn an_account_for_the_keeper_is_one_that_exists_and_may_be_had() {
        let problem = of_keeper("no:such").expect_err("no name has a colon");
        assert!(problem.contains("no:such"), "{problem}");
        if capabilities::has(capabilities::ACCOUNTS) {
            let root = of_keeper("root").expect("root may");
            assert_eq!(root.map(|entry| entry.user.as_raw()), Some(0));
        } else {
            assert!(of_keeper("root").is_err());
        }
    }

    #[test]
    fn an_account_that_does_not_exist_is_an_error_that_names_it() {
        let problem = change_to("no:such").expect_err("no name has a colon");
        assert!(problem.contains("no:such"), "{problem}");
    }
}
