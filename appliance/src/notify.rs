//! What the service manager is told (sd_notify(3)): that the process serves, and again and again that it lives. A datagram to
//! the socket that NOTIFY_SOCKET names; without one nobody wants to know.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The environment variable with the socket's name: a path, or an abstract one behind `@`.
const VARIABLE: &str = "NOTIFY_SOCKET";

/// The way to the service manager.
#[derive(Debug)]
pub struct Notify(Option<(UnixDatagram, SocketAddr)>);

impl Notify {
    /// As the environment says.
    #[must_use]
    pub fn from_environment() -> Self {
        Self::to(&std::env::var(VARIABLE).unwrap_or_default())
    }

    fn to(name: &str) -> Self {
        let address = match name.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name),
            None => SocketAddr::from_pathname(name),
        };
        let socket = || {
            let socket = UnixDatagram::unbound()?;
            // A manager that does not read must not hold us up.
            socket.set_nonblocking(true)?;
            Ok::<_, std::io::Error>(socket)
        };
        let address = address.ok().filter(|_| !name.is_empty());
        Self(address.and_then(|address| Some((socket().ok()?, address))))
    }

    /// Tells `state`: lines of `NAME=VALUE`.
    pub fn tell(&self, state: &str) {
        if let Some((socket, address)) = &self.0 {
            // A datagram that is lost is followed by another, or the manager acts as it was told to.
            let _ = socket.send_to_addr(state.as_bytes(), address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manager_is_told_at_a_path_or_an_abstract_name_or_not_at_all() {
        let own = format!("xdnsd-notify-{}", std::process::id());
        let path = std::env::temp_dir().join(&own);
        let address = SocketAddr::from_abstract_name(&own).expect("a name");
        let sockets = [
            (path.display().to_string(), UnixDatagram::bind(&path)),
            (format!("@{own}"), UnixDatagram::bind_addr(&address)),
        ];
        for (name, manager) in sockets {
            let manager = manager.expect("a socket");
            Notify::to(&name).tell("READY=1\nSTATUS=serves");
            let mut told = [0; 64];
            let len = manager.recv(&mut told).expect("a datagram");
            assert_eq!(&told[..len], b"READY=1\nSTATUS=serves");
        }
        let _ = std::fs::remove_file(&path);
        Notify::to(&path.display().to_string()).tell("READY=1");
        Notify::to("").tell("READY=1");
    }
}
