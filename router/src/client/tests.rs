//! The client against a cluster that misbehaves as each test tells it, on a paused clock.

mod calls;
mod elections;
mod fake;
mod guards;
mod services;
mod sessions;
mod watches;
