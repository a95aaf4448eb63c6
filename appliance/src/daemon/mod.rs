//! The process: its main thread, and the threads that it starts and looks after.
//!
//! Here belongs what makes parts of the other wings work together, and keeps them working while the world changes: the main
//! thread (`run`), the threads with an engine (`workers`), interfaces that come and go (`interfaces`, `supervisor`, `queues`),
//! what of their traffic is ours (`destinations`), the XDP program that several threads have (`program`) and what an operator
//! switches on it (`switches`), what the programs drop and SYN cookies (`shield`), limits per client (`rates`), hot names (`tier0`),
//! all of these on one interface (`inside`) and whether their answers leave it (`way_out`), the sk_lookup program (`ports`), sockets
//! of addresses that come and go (`sockets`), files and configs that are read again (`reload`), and when to try again (`retry`).
//! States that metrics show are `shared`. What stands in the way of files and sockets that it is to make (`places`) is known to
//! `check` as well. What the process may do from its start on is `confine`.
//!
//! What does not: anything that one query or one request needs. A worker goes on when everything here waits.
//!
//! It uses `control`, `worker`, `config`, `compile`, `store`, `os` and `text`. No wing uses it.

mod confine;
mod destinations;
mod inside;
mod interfaces;
mod places;
mod ports;
mod program;
mod queues;
mod rates;
mod reload;
mod retry;
mod run;
mod seats;
mod shared;
mod shield;
mod sockets;
mod supervisor;
mod switches;
mod tier0;
mod way_out;
mod workers;

pub use places::obstacles;
pub use run::run;
