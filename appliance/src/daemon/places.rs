//! Obstacles to the files and the socket that this process is to make, as far as they show in advance: `check` reports what a
//! start would.

use std::path::{Path, PathBuf};

use crate::config::{Config, SynCookiesWord};
use crate::control::socket;
use crate::os::files::place::{self, Obstacle};
use crate::store::Store;

use super::{run, shield};

/// Why the previous snapshot is not kept, where a new one can be written.
#[must_use]
pub fn doubt(config: &Config) -> Option<Obstacle> {
    let store = Store::new(config.cache.snapshot.as_deref()?, 0);
    match store.obstacle() {
        // Reported already.
        Some(_) => None,
        None => store.doubt(),
    }
}

/// Why the group of the control socket cannot be given it, where the socket itself can be made.
#[must_use]
pub fn group_doubt(config: &Config) -> Option<String> {
    let path = config.control.socket.as_deref()?;
    run::group_of(config)?.obstacle(path)
}

/// Keys whose paths are unusable, each with the reason.
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
        // Nothing is written there, so it does not matter whether it could be.
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
    let mut found: Vec<_> = found
        .filter_map(|(key, obstacle)| Some((key, obstacle?)))
        .collect();
    // A path that is unusable by itself is reported only as that.
    let is_told = |key: &str| found.iter().any(|(told, _)| *told == key);
    let shared: Vec<_> = shared(config)
        .into_iter()
        .filter(|(key, _)| !is_told(key))
        .collect();
    found.extend(shared);
    found
}

/// Keys whose path another key has as well: the second user would find the other's file there, or replace it.
fn shared(config: &Config) -> Vec<(&'static str, Obstacle)> {
    let mut known: Vec<(PathBuf, &'static str)> = Vec::new();
    let mut found = Vec::new();
    let policy = config.policy();
    let prefixes = config.prefixes();
    let leases = policy.local.leases.iter().map(|file| &file.path);
    let local = policy.local.hosts.iter().chain(leases);
    let prefixes = prefixes.files().map(|file| file.path);
    let servers = policy.server_files.iter();
    let read = [
        policy
            .lists
            .files()
            .map(|path| (path.as_path(), "a list of filter"))
            .collect::<Vec<_>>(),
        local
            .map(|path| (path.as_path(), "a file of local"))
            .collect(),
        prefixes.map(|path| (path, "a list of shield")).collect(),
        servers
            .map(|path| (path.as_path(), "a file of upstream"))
            .collect(),
    ];
    // Several keys may read the same file.
    known.extend(
        read.concat()
            .into_iter()
            .map(|(path, key)| (whole(path), key)),
    );
    let one = |path: Option<&Path>| path.map(|path| vec![path.to_owned()]);
    let snapshot = config.cache.snapshot.as_deref();
    let snapshot = snapshot.map(|path| Store::new(path, 0).paths().to_vec());
    let own = [
        ("cache.snapshot", snapshot),
        ("control.socket", one(config.control.socket.as_deref())),
        (
            "shield.state_file",
            one(config.shield.state_file.as_deref()),
        ),
    ];
    for (key, paths) in own {
        for path in paths.into_iter().flatten() {
            let place = whole(&path);
            let other = known
                .iter()
                .find(|(known, other)| *known == place && *other != key);
            let obstacle =
                other.map(|(_, other)| Obstacle::of(&path, format!("{other} has this path, too")));
            found.extend(obstacle.map(|obstacle| (key, obstacle)));
            known.push((place, key));
        }
    }
    found
}

/// Canonical form of a path, as far as its folder exists: two paths to the same file become equal.
fn whole(path: &Path) -> PathBuf {
    let folder = path.parent().and_then(|folder| folder.canonicalize().ok());
    match (folder, path.file_name()) {
        (Some(folder), Some(name)) => folder.join(name),
        _ => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Folder;

    /// It is a warning, and no fault.
    #[test]
    fn what_has_the_name_of_the_snapshot_before_is_told_and_stops_none() {
        let folder = Folder::new();
        let path = folder.path().join("cache");
        let told = || {
            let text = format!(
                "[[interface]]\nname = \"lo\"\n[[upstream]]\nservers = [\"192.0.2.1\"]\n\
                 [cache]\nsnapshot = {path:?}\n[control]\nsocket = \"\"\n"
            );
            let config = Config::parse("test.toml", &text).expect("valid");
            let what = |obstacle: Obstacle| obstacle.what;
            let obstacles = obstacles(&config).into_iter();
            (
                obstacles
                    .map(|(_, obstacle)| what(obstacle))
                    .collect::<Vec<_>>(),
                doubt(&config).map(what),
            )
        };
        assert_eq!(told(), (Vec::new(), None));
        let before = folder.write("cache.old", "a note of mine\n");
        let foreign = "exists and is not a snapshot: remove it, or name another file";
        let kept = format!(
            "{}: {foreign}; the snapshot before the newest is not kept",
            before.display()
        );
        assert_eq!(told(), (Vec::new(), Some(kept)));
        folder.write("cache", "and another\n");
        let (obstacles, doubt) = told();
        assert!(
            obstacles.len() == 1 && obstacles[0].contains(foreign),
            "{obstacles:?}"
        );
        assert_eq!(doubt, None);
    }

    /// One of two keys with the same path would lose its file, or replace the other's.
    #[test]
    fn two_keys_with_one_path_are_told() {
        let folder = Folder::new();
        let here = folder.path().display();
        let told = |snapshot: &str, socket: &str, state: &str, list: &str| {
            let text = format!(
                "[[interface]]\nname = \"lo\"\n[[upstream]]\nservers = [\"192.0.2.1\"]\n\
                 [cache]\nsnapshot = \"{here}/{snapshot}\"\n[control]\nsocket = \"{here}/{socket}\"\n\
                 [shield]\nstate_file = \"{here}/{state}\"\n[filter]\nblock_files = [\"{here}/{list}\"]\n"
            );
            let config = Config::parse("test.toml", &text).expect("valid");
            let found = obstacles(&config).into_iter();
            found
                .map(|(key, obstacle)| format!("{key}: {}", obstacle.what))
                .collect::<Vec<_>>()
        };
        assert_eq!(told("a", "b", "c", "d"), [""; 0]);
        for (files, key, path, other) in [
            (
                ["a", "a", "c", "d"],
                "control.socket",
                "a",
                "cache.snapshot",
            ),
            (
                ["a", "./a.old", "c", "d"],
                "control.socket",
                "./a.old",
                "cache.snapshot",
            ),
            (
                ["a", "a.tmp", "c", "d"],
                "control.socket",
                "a.tmp",
                "cache.snapshot",
            ),
            (
                ["a", "b", "b", "d"],
                "shield.state_file",
                "b",
                "control.socket",
            ),
            (
                ["a", "b", "c", "a"],
                "cache.snapshot",
                "a",
                "a list of filter",
            ),
        ] {
            let [snapshot, socket, state, list] = files;
            let expected = format!("{key}: {here}/{path}: {other} has this path, too");
            assert_eq!(told(snapshot, socket, state, list), [expected], "{files:?}");
        }
    }

    #[test]
    fn what_is_no_file_where_the_shield_keeps_its_state_is_told_whether_it_is_used_or_not() {
        let folder = Folder::new();
        let fifo = folder.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("elsewhere", &link).expect("a link");
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
            for (path, what) in [
                (fifo.as_path(), "FIFO, not a file"),
                (folder.path(), "folder, not a file"),
                (&link, "symbolic link, not a file: name what it leads to"),
            ] {
                let said = told(cookies, path);
                let expected = format!("shield.state_file: {}: is a {what}; ", path.display());
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
