//! The state machine of one shard.
//!
//! A [`Machine`] is a function of the batches applied to it. It starts no task, reads no clock and draws
//! no random number: each [`Batch`] carries the time at which its leader proposed it, so every replica
//! ends the same lease at the same log index.
//!
//! ```
//! use wardlock_machine::*;
//!
//! let mut machine = Machine::new();
//! let mut apply = |at, commands| {
//!     let batch = Batch { at: Stamp(at), wall: WallMs(at), epoch: RangeEpoch(1), commands };
//!     let (mut outcomes, mut effects) = (Vec::new(), Effects::default());
//!     machine.apply(Term(1), batch, &mut outcomes, &mut effects);
//!     outcomes
//! };
//! let session = SessionId::new(Incarnation(1), 7);
//! let holder = Holder { client_id: "worker-7".into(), ttl: Millis(10_000), metadata: Metadata::new() };
//! let key = Key::lock(Name::new("orders/42").unwrap());
//!
//! apply(0, vec![Command::SetRange { first: 0, last: u64::MAX, epoch: RangeEpoch(1), incarnation: Incarnation(1) }]);
//! let Outcome::Pending { nonce } = apply(1, vec![Command::Pend { session }])[0] else { panic!() };
//! apply(2, vec![Command::Confirm { session, nonce, holder }]);
//! let outcomes = apply(3, vec![Command::Acquire(Acquire {
//!     session,
//!     request: RequestId::Native { seq: 1, low: 1 },
//!     key: key.clone(),
//!     mode: Mode::Exclusive,
//!     lease: Some(Millis(30_000)),
//!     wait: Millis(0),
//!     priority: 0,
//!     lock_delay: Millis(0),
//!     metadata: Metadata::new(),
//!     value: None,
//! })]);
//! let Outcome::Granted(grant) = &outcomes[0] else { panic!() };
//! assert_eq!(grant.lock_id.token, Token(1));
//! assert_eq!(machine.next_deadline(), Some(Stamp(30_003)));
//! assert_eq!(Machine::restore(&machine.snapshot()), Ok(machine));
//! ```
//!
//! # Invariants
//!
//! 1. A lock has at most one exclusive holder, and then no other; a semaphore no more than its permits.
//! 2. Each token granted exceeds every token granted before it in this shard, and stays below 2⁵³.
//! 3. The clock never goes back, and a lease ends by an applied `Tick` at or after its deadline only.
//! 4. Waiters are granted in the order of their places: higher priorities first, FIFO within one.
//! 5. Whoever holds or waits is attached.
//! 6. The indexes say what the locks, seats and sessions say.
//! 7. A session id that has ended is not opened again while that is remembered.
//! 8. What is idle is not stored.
//! 9. A request that was answered is not run again while its answer is kept, and a native one not after.
//! 10. A version of a configuration never means two values: versions rise by one, and a path that comes anew starts
//!     above every path that was forgotten.
//! 11. Every revision is one event, and events come in the order of revisions. Whoever asks for what happened after a
//!     revision is given all of it that it asked for, or told that some is no longer kept.
//! 12. Whoever comes to wait for the lead of an election is an event, and a proclamation changes the election's value
//!     and nothing else: the leader, its token and its lease stay.
//! 13. Whoever has registered an instance of a service is attached, and the instance goes with the attachment.
//! 14. A sample of a service is of healthy instances, each once, and of weight 0 only where all others are in it.
//! 15. A webhook's cursor goes forward only, and by none but one who knows the webhook's last change.
//!
//! # What it costs
//!
//! A command looks its session's seat and its lock up once each, in O(1), and then goes by their places;
//! what is ordered (names, deadlines) is a B-tree, touched where a name is new or a lease changes. A seat
//! takes some 300 bytes, a held lock some 400, indexes and all. `examples/apply.rs` measures it by kind.
//!
//! # What is not done here
//!
//! Names are not hashed: the leader checks that they are in the range, and `apply` that the range has not
//! changed since. Sessions' deadlines are not kept: keep-alives are not logged, the home's leader watches
//! them. Wall time decides nothing.

#![forbid(unsafe_code)]

mod blob;
pub mod command;
mod config;
mod deadlines;
mod effects;
mod events;
mod fields;
mod holders;
mod hooks;
pub mod ids;
mod instance;
mod ledger;
pub mod limits;
mod links;
mod lock;
mod locks;
mod machine;
pub mod planted;
pub mod query;
mod queue;
mod rare;
mod requests;
mod seat;
mod secret;
mod services;
mod session;
mod snapshot;
mod table;
mod view;
mod waits;

pub use blob::Blob;
pub use command::*;
pub use hooks::HookWork;
pub use ids::*;
pub use instance::*;
pub use machine::{Attachment, Machine};
pub use query::*;
pub use secret::Secret;
pub use snapshot::RestoreError;
pub use waits::*;
