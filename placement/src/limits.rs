//! Every bound of the map, in one place.

/// The most shards.
pub const SHARDS: usize = 1024;
/// The most replicas of a group.
pub const REPLICAS: usize = 7;
/// The most replicas that the placement group is founded with.
pub const FOUNDERS: usize = 5;
/// The most nodes that may ever register.
pub const NODES: usize = 1024;
/// The longest address or failure domain, in bytes.
pub const ADDRESS_BYTES: usize = 255;
/// Versions and replica ids stay below this: no arithmetic on them overflows.
pub const COUNTER_END: u64 = 1 << 48;
/// The longest encoded change. The largest that is valid, [`SHARDS`] lists of [`REPLICAS`] nodes, is 36 KiB.
pub const CHANGE_BYTES: usize = 64 * 1024;
/// The longest snapshot. The largest map within the other bounds takes 940 KB.
pub const SNAPSHOT_BYTES: usize = 1024 * 1024;
