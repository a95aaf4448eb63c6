//! What stands in the way of the files and the socket that this process is to make, as far as that shows before: `check` says
//! what a start would.

use crate::config::{Config, SynCookiesWord};
use crate::control::socket;
use crate::os::files::place::{self, Obstacle};
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
    let state = state.and_then(|path| match gives_cookies {
        true => shield::state_obstacle(path, config.shield.tcp_options),
        // Nothing is written there, and so nobody minds whether that could be done.
        false => {
            place::no_file(path).map(|obstacle| obstacle.so("it is where settings would be kept"))
        }
    });
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Folder;

    #[test]
    fn what_is_no_file_where_the_shield_keeps_its_state_is_told_whether_it_is_used_or_not() {
        let folder = Folder::new();
        let fifo = folder.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
        let told = |cookies: &str, path: &std::path::Path| {
            let text = format!(
                "[[interface]]\nname = \"lo\"\n[[upstream]]\nservers = [\"192.0.2.1\"]\n\
                 [control]\nsocket = \"\"\n[shield]\nsyn_cookies = {cookies:?}\nstate_file = {path:?}\n"
            );
            let config = Config::parse("test.toml", &text).expect("valid");
            let found = obstacles(&config);
            found
                .into_iter()
                .map(|(key, obstacle)| format!("{key}: {}", obstacle.what))
                .collect::<Vec<_>>()
        };
        for cookies in ["off", "auto"] {
            for (path, what) in [(fifo.as_path(), "FIFO"), (folder.path(), "folder")] {
                let said = told(cookies, path);
                let expected = format!(
                    "shield.state_file: {}: is a {what}, not a file; ",
                    path.display()
                );
                assert!(
                    said.len() == 1 && said[0].starts_with(&expected),
                    "{cookies} {said:?}"
                );
            }
            assert_eq!(told(cookies, &folder.path().join("state")), [""; 0]);
        }
        assert_eq!(
            told("off", std::path::Path::new("/nonexist/a/state")),
            [""; 0],
            "nobody writes it"
        );
    }
}
