//! Rights of clients: root and the account of the process may do everything, a group that the config names as much as the
//! config says.
//!
//! The socket's mode keeps all others from connecting, and the kernel tells the account of a client (SO_PEERCRED).

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{PermissionsExt as _, lchown};
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::geteuid;

use crate::os::account;
use crate::os::keeper::{self, Request};
use crate::text;

/// Reason why an account cannot give a file to a group.
const NO_MEMBER: &str = "the account that serves has to be a member of the group";

/// Requests that change nothing, whatever follows. `json` may precede them.
const READS: &[&str] = &[
    "stats",
    "upstreams",
    "why",
    "health",
    "cache dump",
    "shield status",
    "shield list",
    "shield log",
    "tap",
];

/// Requests that change nothing if nothing follows.
const BARE_READS: &[&str] = &["pause"];

/// A group that may use the socket as well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its name or number.
    pub name: String,
    /// True if it may change something, and not only look.
    pub may_change: bool,
}

impl Group {
    /// Why this process cannot let the group use the socket at `path`; `None` if it can.
    pub fn obstacle(&self, path: &Path) -> Option<String> {
        let reason = match account::group(&self.name) {
            Ok(group) if account::may_give_to(group) => return None,
            Ok(_) => NO_MEMBER.to_owned(),
            Err(error) => error,
        };
        Some(self.refusal(path, &reason))
    }

    fn refusal(&self, path: &Path, reason: &str) -> String {
        let (name, path) = (text::line(&self.name), text::path(path));
        format!("{name} cannot use {path}: {reason}")
    }

    /// Lets the group use the socket at `path`, so far only for root and the account.
    ///
    /// # Errors
    /// There is no such group, or the process may not give the socket to it.
    pub(super) fn admit(&self, path: &Path) -> Result<(), String> {
        let group = account::group(&self.name).map_err(|error| self.refusal(path, &error))?;
        let given = if keeper::is_there() {
            let asked = keeper::ask(Request::AdmitGroup, None);
            asked
                .map_err(|refusal| io::Error::from(refusal.errno))
                .map(drop)
        } else {
            lchown(path, None, Some(group.as_raw()))
        };
        let given =
            given.and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o660)));
        given.map_err(|error| {
            if error.kind() == ErrorKind::PermissionDenied {
                self.refusal(path, NO_MEMBER)
            } else {
                self.refusal(path, &error.to_string())
            }
        })
    }
}

/// True if this client may make the request.
pub(super) fn may(client: &UnixStream, request: &str, group: Option<&Group>) -> io::Result<bool> {
    if group.is_none_or(|group| group.may_change) || is_read(request) {
        return Ok(true);
    }
    let who = getsockopt(client, PeerCredentials)?;
    Ok(who.uid() == 0 || who.uid() == geteuid().as_raw())
}

fn is_read(request: &str) -> bool {
    let request = request.strip_prefix("json ").unwrap_or(request).trim_end();
    if BARE_READS.contains(&request) {
        return true;
    }
    let mut rests = READS.iter().filter_map(|name| request.strip_prefix(name));
    rests.any(|rest| rest.is_empty() || rest.starts_with(' '))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_that_cannot_be_given_the_socket_is_told_with_the_reason() {
        let of = |name: &str| {
            let group = Group {
                name: name.into(),
                may_change: false,
            };
            group.obstacle(Path::new("/run/sock"))
        };
        let missing = of("no such group").expect("an obstacle");
        assert_eq!(
            missing,
            "no such group cannot use /run/sock: /etc/group: no group no such group"
        );
        assert_eq!(of(&nix::unistd::getegid().to_string()), None);
    }

    #[test]
    fn what_changes_something_is_no_reading() {
        for request in [
            "stats",
            "json stats",
            "stats\n",
            "why a.b",
            "cache dump x",
            "tap 1 2",
            "pause",
            "json pause\n",
        ] {
            assert!(is_read(request), "{request}");
        }
        for request in [
            "reload",
            "cache flush",
            "cache save",
            "cache",
            "shield deny 192.0.2.1",
            "json shield detach lan0",
            "pause 5m",
            "json pause 5m 192.0.2.1",
            "resume",
            "statsx",
            "whyx a.b",
            "json json stats",
            "",
        ] {
            assert!(!is_read(request), "{request}");
        }
    }
}
