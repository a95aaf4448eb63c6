//! What can be asked of a daemon from outside, and what it answers: `xdnsd stats`, `upstreams`, `why`, `tail`, `top`, `web`, `pause`,
//! `reload`, `cache`, `shield`, `health`, `memory`.
//!
//! Here belongs the control socket with its two sides (`socket`) and its threads (`thread`), the requests (`commands`), whose words
//! are checked first (`request`), and what they show: counters (`metrics`; for people `summary`), upstream servers (`upstreams`), why
//! a question is answered as it is (`why`), the cache (`dump`, `presentation`, `rdata`), the memory budget (`memory`), the shield
//! (`shield`), whether all threads go on (`health`). A reader of the tap brings its memory (`readers`). `tail` is the reader's side, a
//! process of its own, and so is `web`, which serves over HTTP what the control socket says.
//!
//! What does not: how a request is carried out where that is more than to read something. Such a part is handed in as a
//! function, so that all of this can be tested without a daemon.
//!
//! It uses `worker` and `store`, whose counters and answers it shows, `config` and `compile` for what is written as in the
//! config, and `logging`, `os` and `text`.

pub mod commands;
pub mod dump;
pub mod health;
pub mod memory;
pub mod metrics;
pub mod presentation;
pub mod rdata;
pub mod readers;
pub mod request;
pub mod shield;
pub mod socket;
pub mod summary;
pub mod tail;
pub mod thread;
pub mod upstreams;
pub mod web;
pub mod why;

pub use request::check;
pub use socket::{FILES_MAX, ask, check_length, check_path};
