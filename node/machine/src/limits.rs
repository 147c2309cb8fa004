//! Every bound of the machine, in one place. Shells check them before they allocate; the machine
//! checks again when it applies, so that no replica can be made to hold more.

use crate::ids::Millis;

/// The longest name, in bytes.
pub const NAME_BYTES: usize = 1024;
/// The longest client id, candidate id or reason, in bytes.
pub const LABEL_BYTES: usize = 256;
/// All metadata of a session or a grant together, in bytes of keys and values.
pub const METADATA_BYTES: usize = 4096;
/// The most metadata entries.
pub const METADATA_ENTRIES: usize = 32;
/// The shortest session TTL.
pub const SESSION_TTL_MIN: Millis = Millis(1_000);
/// The longest session TTL.
pub const SESSION_TTL_MAX: Millis = Millis(24 * 3_600_000);
/// The shortest lease of a lock.
pub const LEASE_MIN: Millis = Millis(100);
/// The longest lease of a lock, lock-delay or wait.
pub const LEASE_MAX: Millis = Millis(30 * 24 * 3_600_000);
/// The most holders of one lock, and so the most permits of a semaphore.
pub const HOLDERS: usize = 10_000;
/// The most waiters of one lock.
pub const WAITERS: usize = 20_000;
/// The most grants, waiters and instances of one session in one shard.
pub const GRANTS_PER_SESSION: usize = 10_000;
/// The most sessions that one shard is home of.
pub const SESSIONS: usize = 200_000;
/// The most sessions that are attached to one shard or pending.
pub const ATTACHMENTS: usize = 200_000;
/// How many holders a refusal shows, and how many holders and waiters an object shows in a list.
pub const SHOWN: usize = 8;
/// The most answers kept for one session's native requests.
pub const ANSWERS_PER_SESSION: usize = 4_096;
/// The most keyed answers kept for one session.
pub const KEYS_PER_SESSION: usize = 256;
/// The most keyed answers kept in one shard; beyond it the oldest go first.
pub const KEYS_PER_SHARD: usize = 50_000;
/// The largest value of a configuration, in bytes.
pub const CONFIG_VALUE_BYTES: usize = 1 << 20;
/// The most paths that have a value in one shard.
pub const CONFIGS: usize = 100_000;
/// The most bytes of the values, paths and content types of one shard's configurations, with
/// [`CONFIG_ENTRY_BYTES`] for each.
pub const CONFIG_BYTES: usize = 64 << 20;
/// What a version of a configuration counts for beside its texts.
pub const CONFIG_ENTRY_BYTES: usize = 256;
/// How many versions of a path are kept that were replaced or deleted.
pub const CONFIG_OLD: usize = 32;
/// The most bytes of these in one shard; beyond it the oldest go first.
pub const CONFIG_OLD_BYTES: usize = 32 << 20;
/// How many events of locks a shard keeps for those who watch.
pub const LOCK_EVENTS: usize = 4_096;
/// The most bytes of these, with [`EVENT_FIXED_BYTES`] for each.
pub const LOCK_EVENT_BYTES: usize = 1 << 20;
/// How many events of all else a shard keeps.
pub const EVENTS: usize = 16_384;
/// The most bytes of these.
pub const EVENT_BYTES: usize = 4 << 20;
/// What an event counts for beside its texts.
pub const EVENT_FIXED_BYTES: usize = 128;
/// The longest value of a configuration that is told with its event; a longer one is to be read.
pub const EVENT_VALUE_BYTES: usize = 16 << 10;
/// The most patterns of one question for events.
pub const PATTERNS: usize = 64;
/// The longest address of an instance, in bytes: of a host name.
pub const ADDRESS_BYTES: usize = 255;
/// The most tags of an instance; each has at most [`LABEL_BYTES`].
pub const TAGS: usize = 32;
/// The most instances of one shard's services.
pub const INSTANCES: usize = 100_000;
/// The most bytes of their texts, with [`INSTANCE_FIXED_BYTES`] for each.
pub const INSTANCE_BYTES: usize = 64 << 20;
/// What an instance counts for beside its texts.
pub const INSTANCE_FIXED_BYTES: usize = 256;
/// The most instances of one sample.
pub const SAMPLE: usize = 32;
/// The most webhooks of one shard.
pub const HOOKS: usize = 1_000;
/// The most bytes of their texts and cursors, with [`HOOK_FIXED_BYTES`] for each.
pub const HOOK_BYTES: usize = 16 << 20;
/// What a webhook counts for beside its texts.
pub const HOOK_FIXED_BYTES: usize = 512;
/// The longest target of a webhook, in bytes.
pub const HOOK_URL_BYTES: usize = 2_048;
/// The shortest secret of a webhook, in bytes: what can be guessed signs nothing.
pub const HOOK_SECRET_BYTES_MIN: usize = 16;
/// The longest.
pub const HOOK_SECRET_BYTES: usize = 256;
/// The most shards that a webhook's cursor may speak of.
pub const HOOK_SHARDS: usize = 1_024;
/// How many webhooks one list shows.
pub const HOOK_PAGE: usize = 200;
/// The most dead letters of one webhook; beyond it the oldest go first.
pub const DEAD_LETTERS: usize = 256;
/// The most bytes of these, with [`DEAD_FIXED_BYTES`] for each.
pub const DEAD_BYTES: usize = 1 << 20;
/// The most bytes of all dead letters of one shard.
pub const DEAD_BYTES_PER_SHARD: usize = 16 << 20;
/// What a dead letter counts for beside its texts.
pub const DEAD_FIXED_BYTES: usize = 128;
/// How many holders a waiter is said to wait for, where deadlocks are looked for.
pub const BLOCKERS: usize = 1_000;
/// How many waits of a deadlock's circle are named.
pub const CIRCLE: usize = 64;
/// How long a keyed answer is kept.
pub const KEY_LIFE: Millis = Millis(600_000);
/// How many released lock ids are remembered for one session in one shard.
pub const RELEASED_PER_SESSION: usize = 64;
/// How many ended sessions a shard remembers, to answer 410 rather than 404.
pub const ENDED_SESSIONS: usize = 10_000;
/// How much one `Tick`, one `Drop` or one list does at the most; the rest comes in the next.
pub const PAGE: usize = 1_000;
/// How many bytes the texts of one answer may have in all. What shows more holders, waiters or sessions shows the
/// first of them, and of the others of a list the first holder alone, without metadata: so an answer fits its frame.
pub const ANSWER_BYTES: usize = 3 << 19;
/// How many checks one fence request may carry.
pub const FENCE_CHECKS: usize = 128;
/// The most commands in one log entry.
pub const BATCH_COMMANDS: usize = 4_096;
/// Tokens stay below this, so that JSON numbers carry them whole.
pub const TOKEN_END: u64 = 1 << 53;
