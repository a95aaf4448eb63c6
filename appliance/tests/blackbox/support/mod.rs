//! Parts of the tests: the daemon, a scripted upstream, two clients, and counters to compare with.

pub mod ask;
pub mod browser;
pub mod client;
pub mod daemon;
pub mod frame;
pub mod message;
pub mod metrics;
pub mod preload;
pub mod random;
pub mod run;
pub mod scene;
pub mod script;
pub mod stream;
pub mod text;
pub mod upstream;
pub mod view;
pub mod ways;

use std::time::Duration;

/// Timeout for what is immediate on an idle machine.
pub const TIMEOUT: Duration = Duration::from_secs(20);
/// Timeout for one reply. Shorter, so that a test that waits for a change asks again.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Time in which nothing has to come. Counters prove the rest.
pub const SILENCE: Duration = Duration::from_millis(150);
