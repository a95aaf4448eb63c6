//! The keeper's side: the process that keeps the rights of a server that has none (`security.keeper`).
//!
//! It reads no byte of the network, and of the server's only requests of one size ([`crate::os::keeper`]). Each is checked
//! against what the config named at the start: its interfaces, ports and settings need a restart to change.

mod permitted;
mod serve;

use log::info;

use crate::config::Config;
use crate::os::keeper::{self, Side};
use crate::os::{account, capabilities, nf_tables, xsk};
use crate::text::Sentence;
use permitted::Permitted;

pub use crate::os::keeper::watched;

/// Splits the process, if the config wants it. It returns in the server, which has lost its capabilities once
/// [`drop_rights`] was called.
///
/// # Errors
/// No process can be made, or the build's backend for AF_XDP makes its sockets itself.
pub fn start(config: &Config) -> Result<(), Sentence> {
    if !config.security.keeper {
        return account::settle().map_err(|error| format!("capset: {error}"));
    }
    if cfg!(feature = "afxdp") {
        let why = "security.keeper: the backend afxdp makes its sockets itself; allowed: false";
        return Err(why.into());
    }
    let user = account::of_keeper(&config.security.keeper_user)
        .map_err(|problem| format!("security.keeper_user: {problem}"))?;
    // The server registers its own memory, by this limit.
    xsk::raise_memlock();
    let permitted = Permitted::of(config);
    let sets = config.policy_without_files().nft_sets.into_iter();
    nf_tables::remember(sets.flat_map(|input| input.sets));
    match keeper::split().map_err(|errno| format!("security.keeper: {}", errno.desc()))? {
        Side::Server => {
            // Of the bounding set only root may take.
            let _ = capabilities::bound(capabilities::NONE);
            info!(
                "the rights are a process of their own{}; this one has none",
                if user.is_some() {
                    ", with an account of its own"
                } else {
                    ""
                }
            );
            Ok(())
        }
        Side::Keeper(lanes) => serve::run(lanes, permitted, user),
    }
}

/// Drops all capabilities of the server, before it starts a thread. Without a keeper this process keeps them.
///
/// # Errors
/// The kernel refused: the server would have rights that it must not have.
pub fn drop_rights() -> Result<(), Sentence> {
    if !keeper::is_there() {
        return Ok(());
    }
    let dropped = capabilities::limit(capabilities::NONE);
    dropped.map_err(|error| format!("security.keeper: capset: {error}"))
}
