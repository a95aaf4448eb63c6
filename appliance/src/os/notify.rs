//! Notifies the service manager (sd_notify(3)) of readiness, and periodically of liveness: datagrams to the socket in
//! NOTIFY_SOCKET, if it is set.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Environment variable with the socket's name: a path, or an abstract name after `@`.
const VARIABLE: &str = "NOTIFY_SOCKET";

/// True if the service manager listens at an abstract socket.
#[must_use]
pub fn is_abstract() -> bool {
    std::env::var(VARIABLE).is_ok_and(|name| name.starts_with('@'))
}

/// Connection to the service manager.
#[derive(Debug)]
pub struct Notify {
    way: Option<(UnixDatagram, SocketAddr)>,
    /// Latest state that the manager has not taken yet; empty if none.
    owed: String,
}

impl Notify {
    /// Connects to the socket that the environment names.
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
            // A manager that does not read must not block us.
            socket.set_nonblocking(true)?;
            Ok::<_, std::io::Error>(socket)
        };
        let address = address.ok().filter(|_| !name.is_empty());
        Self {
            way: address.and_then(|address| Some((socket().ok()?, address))),
            owed: String::new(),
        }
    }

    /// Sends `state`: lines of `NAME=VALUE`. If the manager does not take it, [`Self::tell_again`] repeats it: a service whose
    /// `READY=1` is lost would be stopped.
    pub fn tell(&mut self, state: &str) {
        state.clone_into(&mut self.owed);
        self.tell_again();
    }

    /// Sends the state that the manager has not taken yet, if any.
    pub fn tell_again(&mut self) {
        if !self.owed.is_empty() && self.send(&self.owed) {
            self.owed.clear();
        }
    }

    /// Sends a watchdog ping. A lost one is followed by another.
    pub fn beat(&self) {
        self.send("WATCHDOG=1");
    }

    fn send(&self, state: &str) -> bool {
        let Some((socket, address)) = &self.way else {
            return true;
        };
        socket.send_to_addr(state.as_bytes(), address).is_ok()
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

    /// Its queue is full, or it does not exist yet.
    #[test]
    fn a_manager_that_does_not_take_a_state_is_told_again_and_only_the_last() {
        let own = format!("xdnsd-notify-full-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&own).expect("a name");
        let mut notify = Notify::to(&format!("@{own}"));
        notify.tell("STATUS=waits");
        let manager = UnixDatagram::bind_addr(&address).expect("a socket");
        manager.set_nonblocking(true).expect("a socket");
        while notify.send("WATCHDOG=1") {}
        notify.tell("READY=1");
        let mut told = [0; 64];
        while manager.recv(&mut told).is_ok() {}
        notify.tell_again();
        let len = manager.recv(&mut told).expect("told again");
        assert_eq!(&told[..len], b"READY=1");
        notify.tell_again();
        assert!(manager.recv(&mut told).is_err(), "told once");
    }
}
