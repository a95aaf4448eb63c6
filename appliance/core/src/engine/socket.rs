//! The names by which an engine knows its ways to upstreams.
//!
//! ```text
//!  0 .. 254      streams
//!  255           none: no port could be had
//!  256 .. 65535  source ports of datagrams: by their own number, or by a place of the caller's
//! ```
//! A name is one question's for as long as it is open.

/// The name of no socket.
pub const NONE: u16 = 255;
/// The lowest name of a source port.
pub const FIRST_PORT: u16 = 256;

/// Why there is no source port for a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPort {
    /// As many as there can be are open: one has to be closed first.
    Full,
    /// The system does not give one, for this server at least.
    Failed,
}

/// Whether the name is that of a source port. Otherwise a stream's, or [`NONE`].
#[must_use]
pub const fn is_port(socket: u16) -> bool {
    socket >= FIRST_PORT
}
