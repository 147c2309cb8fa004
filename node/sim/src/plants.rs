//! The mistakes on purpose that stand in the product's code, and which layer of its tests catches each.
//!
//! A mistake is made only in a build with `--cfg wardlock_planted`, in a target directory of its own
//! ([`mod@wardlock_machine::planted`]). `.ci/planted` makes each in turn and shows that its layer fails:
//!
//! | layer | the command that must fail |
//! |---|---|
//! | [`Layer::Machine`] | `cargo test -p wardlock-machine --test model --test scripts`, with `WARDLOCK_PLANT=NAME` |
//! | [`Layer::Log`] | `wardlock-sim crash --plant NAME` |
//! | [`Layer::Node`] | `cargo test -p wardlock -p wardlock-router --lib --test hostile`, with `WARDLOCK_PLANT=NAME` |
//! | [`Layer::Cluster`] | `wardlock-sim --plant NAME` |
//! | [`Layer::Decoders`] | `node/wire/fuzz/run --plant NAME`, which succeeds where it shows that |

use std::fmt::Write;

/// Which tests catch a mistake first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Layer {
    /// The state machine's golden scripts and its reference model.
    Machine,
    /// Crashes, failures and damage under the log.
    Log,
    /// The tests of a node's parts.
    Node,
    /// The cluster in one thread.
    Cluster,
    /// Fuzzing.
    Decoders,
}

impl Layer {
    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Layer::Machine => "machine",
            Layer::Log => "log",
            Layer::Node => "node",
            Layer::Cluster => "cluster",
            Layer::Decoders => "decoders",
        }
    }
}

/// Name, layer, and what goes wrong.
pub const ALL: &[(&str, Layer, &str)] = &[
    ("attachment-forgotten-at-home", Layer::Machine, "a session's home forgets where it is attached"),
    ("candidates-enroll-unheard", Layer::Machine, "who comes to wait for the lead of an election is told to no watch"),
    ("clock-goes-back", Layer::Machine, "the shard's clock follows a stamp back"),
    ("config-expected-ignored", Layer::Machine, "a path is changed whatever version was expected"),
    ("config-no-dedup", Layer::Machine, "a change of the configuration that is repeated is made twice"),
    ("config-refusals-forgotten", Layer::Machine, "a change that was refused is made when its repeat comes late"),
    ("config-versions-restart", Layer::Machine, "a path that was deleted counts from 1 again"),
    ("dedup-not-in-snapshot", Layer::Machine, "answers that are kept for repeats are not in the snapshot"),
    ("drop-leaves-the-attempt", Layer::Machine, "a session that ends leaves its unfinished attachment"),
    ("drop-leaves-the-seat", Layer::Machine, "a session that ends stays known in its shards"),
    ("ended-session-reopens", Layer::Machine, "a repeat of its opening revives a session that has ended"),
    ("epoch-once-a-batch", Layer::Machine, "the range's epoch is looked at once for a whole entry"),
    ("events-forgotten-by-a-restore", Layer::Machine, "a restored shard has no events and does not say so"),
    ("expiry-in-any-term", Layer::Machine, "an expiry is applied whatever leader's watch it comes from"),
    ("followers-keep-no-answer", Layer::Machine, "only the leader keeps answers for repeats"),
    ("handoffs-are-no-events", Layer::Machine, "who is granted a lock out of its queue is told to no watch"),
    ("hook-cursor-goes-back", Layer::Machine, "progress of a webhook may take its cursor back"),
    ("hook-cursor-passes-undelivered", Layer::Node, "a webhook's cursor passes what is not delivered"),
    ("hook-epoch-ignored", Layer::Machine, "progress of a webhook is taken from whoever knows an earlier one"),
    ("hook-no-dedup", Layer::Machine, "a change of a webhook that is repeated is made twice"),
    ("hook-private-addresses", Layer::Node, "a webhook may go to any address that its target's name resolves to"),
    ("hook-two-of-a-key", Layer::Node, "two deliveries of one key are under way at once"),
    ("keep-alive-reopens", Layer::Machine, "a sign of life revives a session that is closing"),
    ("late-proclamation-repeats", Layer::Machine, "a repeat of an earlier proclamation takes back the later one"),
    ("lease-counts-from-the-request", Layer::Machine, "a lease runs while its request still queues"),
    ("lease-ends-early", Layer::Machine, "a lease ends before its length"),
    ("lock-delay-after-release", Layer::Machine, "a lock stays closed after it was given back"),
    ("lock-delay-ignored", Layer::Machine, "a lock opens at once after it was lost"),
    ("newcomers-overtake", Layer::Machine, "who comes now is served before those who wait"),
    ("no-native-dedup", Layer::Machine, "no answers are kept: a repeat runs again"),
    ("old-requests-run-again", Layer::Machine, "a repeat whose answer was let go runs again"),
    ("one-permit-too-many", Layer::Machine, "a semaphore has one holder more than it permits"),
    (
        "place-keeps-its-age",
        Layer::Machine,
        "who takes over a place in the queue counts as having waited since the first",
    ),
    ("priority-ignored", Layer::Machine, "the queue knows no priorities"),
    ("proclamations-are-no-events", Layer::Machine, "what a leader proclaims is told to no watch"),
    ("queue-order-lost-on-restore", Layer::Machine, "a restored queue has another order"),
    ("release-without-handoff", Layer::Machine, "a release does not serve the next in line"),
    ("renewal-counts-from-the-grant", Layer::Machine, "a renewed lease counts from its beginning"),
    ("shared-beside-exclusive", Layer::Machine, "a shared holder comes beside an exclusive one"),
    ("stale-epoch-accepted", Layer::Machine, "a request for a range that has moved is served"),
    ("strangers-release", Layer::Machine, "anybody gives back anybody's lock"),
    ("timed-out-waiter-stays", Layer::Machine, "who gave up waiting is granted the lock later"),
    ("tokens-from-what-is-held", Layer::Machine, "a restore begins with the highest token that is held"),
    ("tokens-stay-after-a-lost-history", Layer::Machine, "tokens go on where a shard has lost its history"),
    ("two-grants-in-one-batch", Layer::Machine, "two requests of one entry are both granted"),
    ("ack-before-sync", Layer::Log, "a row is acknowledged before the disk has it"),
    ("committed-over-truncated", Layer::Log, "a truncated entry counts as committed"),
    ("journal-cleared-early", Layer::Log, "the journal is cleared before its rows are in the database"),
    ("journal-damage-ignored", Layer::Log, "a damaged record of the journal reads as its end"),
    ("reset-without-tail", Layer::Log, "a group's move leaves its latest entries behind"),
    ("round-unchecked", Layer::Log, "records of an older round of the journal are taken for new ones"),
    ("row-checksum-ignored", Layer::Log, "a damaged row is read"),
    ("snapshot-not-durable", Layer::Log, "the log is cut before its snapshot is on disk"),
    ("vote-not-durable", Layer::Log, "a vote is given before the disk has it"),
    ("vote-with-row", Layer::Log, "a vote goes with the row that it stands in"),
    ("ack-before-commit", Layer::Cluster, "a follower acknowledges entries that it has not saved"),
    ("audience-hears-no-proclamation", Layer::Cluster, "an election's audience is not told what its leader proclaims"),
    ("barrier-skipped", Layer::Cluster, "reads are answered without asking whether the leader still leads"),
    ("barrier-without-quorum", Layer::Cluster, "a leader's own word is enough for a read"),
    (
        "expiring-session-kept-alive",
        Layer::Node,
        "a keep-alive is acknowledged while the session's expiry is under way",
    ),
    ("later-votes-confirm", Layer::Cluster, "a replica that has voted for a later leader confirms the old one"),
    ("leads-before-its-first-entry", Layer::Cluster, "a leader serves before its term's first entry is applied"),
    ("lease-reckoned-from-the-answer", Layer::Cluster, "a client counts its lease from when it heard of it"),
    ("new-leader-gives-a-quarter", Layer::Cluster, "a new leader gives sessions a quarter of their TTL"),
    ("no-pre-vote", Layer::Cluster, "a node that was cut off deposes the leaders when it comes back"),
    ("session-early-end", Layer::Cluster, "a keep-alive gives half a TTL"),
    ("session-reckoned-from-the-answer", Layer::Cluster, "a client counts its session's TTL from the answer"),
    ("skip-fsync", Layer::Cluster, "a log whose rows are only written, not synced"),
    ("stale-age-from-the-answer", Layer::Node, "a stale read's age counts from when the proof came"),
    ("stale-proof-before-applied", Layer::Node, "a proof of freshness counts before its index is applied"),
    ("wall-time-in-stamp", Layer::Cluster, "the shard's clock is the leader's wall clock"),
    ("watch-takes-the-feed-for-all", Layer::Cluster, "a watch does not read what came before it was served"),
    ("dedup-off", Layer::Machine, "no answer is found again: a repeat runs anew"),
    ("empty-host-indexed", Layer::Decoders, "the first byte of a host is read where there is none"),
    ("entry-count-trusted", Layer::Decoders, "memory is taken for as many entries as a row claims"),
    ("frame-length-unbounded", Layer::Decoders, "a frame may claim any length"),
    ("lease-length-unchecked", Layer::Decoders, "a lease may have any length"),
    ("name-one-too-long", Layer::Decoders, "a name may be a byte longer than the limit"),
    ("node-name-loose", Layer::Decoders, "a certificate's name need not be a node's to the letter"),
    ("path-bytes-unwrapped", Layer::Decoders, "a path that is not UTF-8 panics"),
    ("peer-listed-twice", Layer::Decoders, "a node may be configured twice, with two addresses"),
    ("requests-unbounded", Layer::Node, "a request may have any size"),
    ("restored-token-unchecked", Layer::Decoders, "a snapshot may hold a token that was never granted"),
    ("trailing-bytes-ignored", Layer::Decoders, "bytes behind a message are dropped"),
    (
        "equal-health-is-an-event",
        Layer::Machine,
        "an instance that fares as before makes an event each time it says so",
    ),
    ("instance-outlives-its-session", Layer::Machine, "a session that ends leaves its instances registered"),
    ("late-registration-runs-again", Layer::Machine, "a repeat brings an instance back that was taken off meanwhile"),
    ("replaced-instance-stays-indexed", Layer::Machine, "an instance goes with the session that had its id before"),
    ("sample-ignores-health", Layer::Machine, "a sample has instances that are not to be used"),
    ("any-waiter-is-the-victim", Layer::Machine, "a deadlock that is over takes a later waiter out of its queue"),
    ("one-look-shows-a-deadlock", Layer::Node, "a circle that never was at one moment counts as a deadlock"),
    ("threads-count-as-stuck", Layer::Node, "a session that does many things at a time counts as stuck while it waits"),
    ("deadlocks-stand", Layer::Cluster, "nobody ends a deadlock"),
    ("strangers-report-health", Layer::Machine, "anybody says how anybody's instance fares"),
];

/// A line for each: name, layer, and what goes wrong, with tabs between.
pub fn list() -> String {
    let mut all = String::new();
    for (name, layer, what) in ALL {
        // Writing to a string fails never.
        let _ = writeln!(all, "{name}\t{}\t{what}", layer.name());
    }
    all
}

/// Switches one on, or says why that cannot be.
pub fn plant(name: &str) -> Result<(), String> {
    if !ALL.iter().any(|(known, ..)| *known == name) {
        return Err(format!("there is no mistake `{name}`: --list-planted prints them"));
    }
    match wardlock_machine::planted::plant(name) {
        true => Ok(()),
        false => Err("this build has no mistakes to switch on: .ci/planted makes one that has".into()),
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use super::*;

    /// Every name that the sources below a directory ask for.
    fn asked_in(dir: &Path, names: &mut BTreeSet<String>) {
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() && !path.ends_with("target") {
                asked_in(&path, names);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let asked = text.split("planted!(\"").skip(1).filter_map(|rest| rest.split_once("\")"));
                names.extend(asked.map(|(name, _)| name.to_owned()));
            }
        }
    }

    #[test]
    fn every_mistake_in_the_sources_is_in_the_list_and_none_else() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut asked = BTreeSet::new();
        for dir in ["node/src", "node/machine/src", "node/wire/src", "placement/src", "router/src", "loadtest/src"] {
            asked_in(&root.join(dir), &mut asked);
        }
        asked.remove("name");
        let listed: BTreeSet<String> = ALL.iter().map(|(name, ..)| (*name).to_owned()).collect();
        assert_eq!(asked, listed);
        assert_eq!(listed.len(), ALL.len(), "one of them is listed twice");
    }

    #[test]
    fn this_build_has_none() {
        if !cfg!(wardlock_planted) {
            assert!(plant("barrier-skipped").is_err());
        }
        assert!(plant("no-such-mistake").is_err());
    }
}
