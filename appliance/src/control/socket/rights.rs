//! Rights of clients: root and the account of the process may do everything, a group that the config names as much as the
//! config says.
//!
//! The socket's mode keeps all others from connecting, and the kernel tells the account of a client (SO_PEERCRED).

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, lchown};
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::geteuid;

use crate::os::account;

/// Requests that change nothing. `json` may precede them.
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

/// A group that may use the socket as well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its name or number.
    pub name: String,
    /// True if it may change something, and not only look.
    pub may_change: bool,
}

impl Group {
    /// Lets the group use the socket at `path`, so far only for root and the account.
    ///
    /// # Errors
    /// There is no such group, or the process may not give the socket to it.
    pub(super) fn admit(&self, path: &Path) -> io::Result<()> {
        let group = account::group(&self.name).map_err(io::Error::other)?;
        lchown(path, None, Some(group.as_raw()))?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o660))
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
    let mut rests = READS.iter().filter_map(|name| request.strip_prefix(name));
    rests.any(|rest| rest.is_empty() || rest.starts_with(' '))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_something_is_no_reading() {
        for request in [
            "stats",
            "json stats",
            "stats\n",
            "why a.b",
            "cache dump x",
            "tap 1 2",
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
            "statsx",
            "whyx a.b",
            "json json stats",
            "",
        ] {
            assert!(!is_read(request), "{request}");
        }
    }
}
