//! Webhooks, as both a gateway and whoever delivers know them: where they may go, what is sent, and by whom it is signed.
//!
//! # Promises
//! 1. Nothing is sent to a target that the process's own configuration does not name, by scheme, host and port
//!    ([`Targets`]).
//! 2. A connection goes to an address that was checked after the name was resolved, and to no other: a name that
//!    resolves to an address inside is refused, unless the configuration says of that very target that it may
//!    ([`is_public`]).
//! 3. A redirect is not followed. It is a failure, like every status but 200 to 299.
//! 4. What is sent is signed ([`sign`]), and a repeat of it is the same to the byte.
//!
//! # To verify a delivery
//!
//! ```text
//! Wardlock-Signature: t=1767225600,v1=<64 hexadecimal digits>
//! ```
//!
//! The digits are the HMAC-SHA-256 of `t`, a dot and the body, under the webhook's secret. Compare them in constant
//! time, and refuse a `t` that is minutes old: it is the time of the attempt, so a repeat that is honest has a new one.

mod address;
mod post;
mod sign;
mod target;

pub use address::is_public;
pub use post::{Headers, PostError, Poster, Roots, RootsError};
pub use sign::sign;
pub use target::{Origin, Refused, Target, TargetError, Targets};

use crate::random;

/// A new webhook's id: 32 hexadecimal digits.
pub fn new_id() -> String {
    format!("{:032x}", random::any::<u128>())
}

/// A new webhook's secret: 32 random bytes as 64 hexadecimal digits.
pub fn new_secret() -> String {
    format!("{:032x}{:032x}", random::any::<u128>(), random::any::<u128>())
}
