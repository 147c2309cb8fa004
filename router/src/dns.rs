//! Services by DNS: who is there, for those that know nothing but DNS.
//!
//! | name | types | what it tells |
//! |---|---|---|
//! | `payments.service.wardlock` | SRV, A, AAAA | up to 32 healthy instances of `payments`, drawn by weight anew for each question |
//! | `i-1.payments.service.wardlock` | SRV, A, AAAA | the instance `i-1`, however it fares |
//! | `7f000001.addr.wardlock` | A, AAAA | the address in the name: a target for instances whose id is no DNS label |
//!
//! An SRV record has the instance's weight and port. Its target is the instance's name, with the address beside it,
//! or the host name that the instance gave as its address. Such an instance has no address records: its host's
//! own zone has them.
//!
//! DNS does not tell `Payments` from `payments`, Wardlock does. A question is looked up in lower case, so a service or an
//! instance is found by DNS if it is registered in lower case, of letters, digits, hyphens and underscores, 63 at the
//! most. Others are not reachable by name here.
//!
//! # Promises
//! 1. What is answered is at most [`MAX_AGE`] old, and lives for a second at the most in whoever caches it.
//! 2. Only questions are answered, and only about the zone; whatever comes in, nothing panics, and nothing is
//!    allocated beyond the bounds of [`server`].
//! 3. No answer is larger than its asker takes: what does not fit is cut, and said to be cut.
//!
//! # Rooms
//! `question` takes a message apart, `zone` knows names, [`answer`](answer::answer) makes the reply, [`server`] owns the sockets,
//! `directory` asks the cluster. The message format is `hickory-proto`'s.

pub mod answer;
mod directory;
mod question;
pub mod server;
mod zone;

use std::time::Duration;

use wardlock_machine::Name;

pub use self::{
    server::{Listener, serve},
    zone::{Zone, ZoneError},
};
use crate::Error;

/// How old an answer may be when it is given.
pub const MAX_AGE: Duration = Duration::from_millis(500);
/// The most instances of one answer.
pub const INSTANCES: u32 = 32;
/// How long the cluster may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// An instance, as far as DNS tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its id.
    pub instance: String,
    /// An IP address or a host name.
    pub address: String,
    /// Its port.
    pub port: u16,
    /// Its share of what is asked for.
    pub weight: u16,
}

/// Where services are looked up.
pub trait Directory: Send + Sync + 'static {
    /// Up to [`INSTANCES`] healthy instances of a service, drawn by weight; `None` where it has no instance at all.
    fn service(&self, service: Name) -> impl Future<Output = Result<Option<Vec<Found>>, Error>> + Send;

    /// One instance of a service.
    fn instance(&self, service: Name, instance: Name) -> impl Future<Output = Result<Option<Found>, Error>> + Send;
}
