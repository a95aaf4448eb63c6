//! What stands in the way of the files and the socket that this process is to make, as far as that shows before: `check` says
//! what a start would.

use crate::config::{Config, SynCookiesWord};
use crate::control::socket;
use crate::os::files::place::Obstacle;
use crate::store::Store;

use super::shield;

/// The keys whose paths cannot be had, each with the reason.
#[must_use]
pub fn obstacles(config: &Config) -> Vec<(&'static str, Obstacle)> {
    let snapshot = config.cache.snapshot.as_deref();
    let snapshot = snapshot.and_then(|path| Store::new(path, 0).obstacle());
    let control = config.control.socket.as_deref();
    let control = control.and_then(socket::obstacle);
    let gives_cookies = config.shield.syn_cookies != SynCookiesWord::Off;
    let state = config.shield.state_file.as_deref();
    let state = state.filter(|_| gives_cookies);
    let state = state.and_then(|path| shield::state_obstacle(path, config.shield.tcp_options));
    let found = [
        ("cache.snapshot", snapshot),
        ("control.socket", control),
        ("shield.state_file", state),
    ];
    let found = found.into_iter();
    found
        .filter_map(|(key, obstacle)| Some((key, obstacle?)))
        .collect()
}
