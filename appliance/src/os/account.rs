//! The account that the daemon serves under: an ordinary one that keeps the capabilities which serving takes.
//!
//! An init script runs as root before anything else has come up; a program in between that only changes the account would
//! be one more to load before the first answer.

use std::fs;
use std::io;

use nix::sys::prctl;
use nix::unistd::{Gid, Uid, geteuid, getresgid, getresuid, setgroups, setresgid, setresuid};
use rustix::thread::CapabilitySet;

use super::capabilities;

/// Where accounts are listed.
const ACCOUNTS: &str = "/etc/passwd";

/// Where groups are.
const GROUPS: &str = "/etc/group";

/// What serving takes: port 53, the interfaces, raw sockets, memory that is not paged out, the XDP program and its
/// verification.
const KEPT: CapabilitySet = CapabilitySet::NET_BIND_SERVICE
    .union(CapabilitySet::NET_ADMIN)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::IPC_LOCK)
    .union(CapabilitySet::PERFMON)
    .union(CapabilitySet::BPF);

/// An account's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct PasswdEntry {
    user: Uid,
    group: Gid,
}

/// Makes the process, which root has started, one of `name`'s for good, with the capabilities that serving takes and no way to
/// more. One that is that account's already keeps of them what it has. Before any thread is started: the system calls are about
/// the calling thread.
///
/// # Errors
/// There is no such account, or the process may not change to it: one sentence.
pub fn change_to(name: &str) -> Result<(), String> {
    let accounts = fs::read_to_string(ACCOUNTS).map_err(|error| format!("{ACCOUNTS}: {error}"))?;
    let account = find(&accounts, name).ok_or_else(|| format!("{ACCOUNTS}: no user {name}"))?;
    let changed = if !is_root() && account.is_ours()? {
        capabilities::limit(KEPT).and_then(|()| Ok(prctl::set_no_new_privs()?))
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

impl PasswdEntry {
    /// Whether the process is its already, and never was anybody else's that it could go back to.
    fn is_ours(self) -> Result<bool, String> {
        let ids = getresuid().and_then(|user| Ok((user, getresgid()?)));
        let (user, group) = ids.map_err(|errno| format!("getresuid: {errno}"))?;
        let users = [user.real, user.effective, user.saved];
        let groups = [group.real, group.effective, group.saved];
        let is_user = users.into_iter().all(|user| user == self.user);
        Ok(is_user && groups.into_iter().all(|group| group == self.group))
    }
}

/// The number of a group, which may be named by it.
///
/// # Errors
/// There is no such group: one sentence.
pub fn group(name: &str) -> Result<Gid, String> {
    if let Ok(number) = name.parse() {
        return Ok(Gid::from_raw(number));
    }
    let groups = fs::read_to_string(GROUPS).map_err(|error| format!("{GROUPS}: {error}"))?;
    find_group(&groups, name).ok_or_else(|| format!("{GROUPS}: no group {name}"))
}

/// Whether this process is root's.
#[must_use]
pub fn is_root() -> bool {
    Uid::effective().is_root()
}

fn change(account: PasswdEntry) -> io::Result<()> {
    capabilities::bound(KEPT)?;
    // Without this the change of the user would take them all.
    prctl::set_keepcaps(true)?;
    setgroups(&[])?;
    setresgid(account.group, account.group, account.group)?;
    setresuid(account.user, account.user, account.user)?;
    capabilities::set(KEPT)?;
    Ok(prctl::set_no_new_privs()?)
}

/// The account called `name` among `accounts`, a line each (passwd(5)).
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

/// The group called `name` among `groups`, a line each (group(5)).
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
    fn an_account_that_does_not_exist_is_an_error_that_names_it() {
        let problem = change_to("no:such").expect_err("no name has a colon");
        assert!(problem.contains("no:such"), "{problem}");
    }
}
