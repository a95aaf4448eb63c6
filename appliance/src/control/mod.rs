//! Requests to a daemon from outside, and their answers: `xdnsd stats`, `upstreams`, `why`, `tail`, `top`, `web`, `pause`,
//! `reload`, `cache`, `shield`, `health`, `memory`.
//!
//! Here belongs the control socket with its two sides (`socket`) and its threads (`thread`), the requests (`commands`), whose
//! words are checked first (`request`), and what they show: counters (`metrics`, as text `summary`), upstream servers
//! (`upstreams`), the reasons for an answer (`why`), the cache (`dump`, `presentation`, `rdata`), the memory budget (`memory`),
//! the shield (`shield`), whether all threads go on (`health`). A reader of the tap brings its memory (`readers`). `tail` is
//! the reader's side, a separate process, and so is `web`, which serves over HTTP what the control socket gives.
//!
//! What does not: carrying out a request that does more than read. That part is passed in as a function, so that all of this
//! can be tested without a daemon.
//!
//! It uses `worker` and `store`, whose counters and answers it shows, `config` and `compile` for syntax that it shares with the
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
