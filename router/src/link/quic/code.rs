//! Why a connection is closed, as its other end is told.

use quinn::VarInt;

/// The application's code in the closing frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    /// The process stops, or needs this connection no longer.
    Done = 0,
    /// The hello is of another version.
    Version = 1,
    /// The hello is of another cluster.
    Cluster = 2,
    /// The certificate does not fit the hello, or is of no use here.
    Identity = 3,
    /// What came is not the protocol.
    Protocol = 4,
    /// As many clients as there may be are connected.
    Crowded = 5,
    /// The peer asks and does not read.
    Overflow = 6,
    /// A newer connection has taken its place.
    Replaced = 7,
    /// No hello in time.
    Late = 8,
    /// Nothing comes back from the peer.
    Silent = 9,
}

/// Closes with the code and the reason.
pub(super) fn close(connection: &quinn::Connection, code: Code, reason: &str) {
    connection.close(VarInt::from_u32(code as u32), reason.as_bytes());
}
