//! The process: its main thread, and the threads that it starts and looks after.
//!
//! Here belongs what connects the other wings, and keeps them working while the environment changes: the main thread (`run`),
//! the threads with an engine (`workers`), interfaces that come and go (`interfaces`, `supervisor`, `queues`), destinations
//! that are ours (`destinations`), the XDP program shared by threads (`program`) and its switches for an operator (`switches`),
//! denied prefixes and SYN cookies (`shield`), limits per client (`rates`), hot names (`tier0`), all of these on one interface
//! (`interface_programs`) and whether their answers leave it (`way_out`), the sk_lookup program (`ports`), sockets for addresses that come
//! and go (`sockets`), files and configs that are read again (`reload`), sets of
//! nf_tables (`nft_sets`), and pauses between attempts (`retry`). State for
//! metrics is `shared` and `gauges`. Obstacles to files and sockets that it is to make (`places`) are also used by `check`. The confinement
//! of the process is `confine`, the process that keeps the rights where this one has none is `keeper`.
//!
//! What does not: anything that one query or one request needs. Workers go on while everything here waits.
//!
//! It uses `control`, `worker`, `config`, `compile`, `store`, `logging`, `os` and `text`. No wing uses it.

mod confine;
mod destinations;
mod gauges;
mod interface_programs;
mod interfaces;
mod keeper;
mod nft_sets;
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

pub use places::{doubt, group_doubt, obstacles};
pub use run::run;
