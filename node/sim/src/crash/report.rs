//! What a search for losses has looked at, in numbers, and whether that was enough.

use std::{fmt, time::Duration};

use super::{
    record::{Point, Recording, Tally},
    walk::Images,
};

/// What was recorded, and what was started from.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    recordings: u64,
    one_phase: Images,
    two_phase: Images,
    tally: Tally,
    took: Duration,
}

impl Report {
    pub(super) fn of(recording: &Recording, images: Images) -> Report {
        let (one_phase, two_phase) =
            if recording.plan.two_phase { (Images::default(), images) } else { (images, Images::default()) };
        Report { recordings: 1, one_phase, two_phase, tally: recording.tally, took: Duration::ZERO }
    }

    pub(super) fn lasting(self, took: Duration) -> Report {
        Report { took, ..self }
    }

    pub(super) fn add(&mut self, other: &Report) {
        self.recordings += other.recordings;
        self.one_phase.add(&other.one_phase);
        self.two_phase.add(&other.two_phase);
        self.tally.add(&other.tally);
    }

    /// Images that a start was made from, those of cut recoveries too.
    pub fn images(&self) -> u64 {
        let both = self.both();
        both.all() + both.cut_again
    }

    fn both(&self) -> Images {
        let mut both = self.one_phase;
        both.add(&self.two_phase);
        both
    }

    /// What there was too little of, in a campaign of so many images.
    pub fn missing(&self, wanted: u64) -> Vec<String> {
        let (both, tally) = (self.both(), &self.tally);
        let mut missing = Vec::new();
        let mut need = |what: &str, found: u64, least: u64| {
            if found < least {
                missing.push(format!("{what}: {found}, not {least}"));
            }
        };
        need("images", self.images(), wanted);
        for point in Point::ALL {
            // Files grow and shrink rarely.
            let share = if point == Point::DatabaseLength { 20_000 } else { 500 };
            need(&format!("images after a {}", point.name()), both.at[point as usize], (wanted / share).max(1));
        }
        need("recoveries cut again", both.cut_again, wanted / 100);
        need("images written on", both.went_on, wanted / 2_000);
        if self.recordings >= 8 {
            need("images of two-phase commits", self.two_phase.all(), wanted / 5);
            need("images of one-phase commits", self.one_phase.all(), wanted / 5);
        }
        let runs = self.recordings;
        need("commits in the journal", tally.journal_commits, 3 * runs);
        need("commits in the database", tally.database_commits, 8 * runs);
        need("votes", tally.did.votes, runs);
        need("appends", tally.did.appends, 15 * runs);
        need("truncations", tally.did.truncations, 3 * runs);
        need("purges", tally.did.purges, 2 * runs);
        need("snapshots installed past the end", tally.did.installs, runs / 8);
        need("committed positions", tally.did.commits, 3 * runs);
        need("snapshots saved", tally.did.snapshots, 2 * runs);
        need("calls amid a commit", tally.did.amid, 2 * runs);
        need("groups moved", tally.moves, runs / 2);
        need("clean stops", tally.stops, runs / 4);
        need("power cuts", tally.cuts, runs / 2);
        need("power cuts in a recovery", tally.cuts_in_recovery, runs / 8);
        missing
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (both, tally, did) = (self.both(), &self.tally, &self.tally.did);
        writeln!(
            f,
            "{} recordings: {} commits in the journal, {} in the database, {} clean stops, {} power cuts, {} of them \
             in a recovery",
            self.recordings,
            tally.journal_commits,
            tally.database_commits,
            tally.stops,
            tally.cuts,
            tally.cuts_in_recovery
        )?;
        writeln!(
            f,
            "{} appends, {} votes, {} truncations, {} purges, {} installs, {} committed positions, {} snapshots, {} \
             groups moved; {} calls amid a commit",
            did.appends,
            did.votes,
            did.truncations,
            did.purges,
            did.installs,
            did.commits,
            did.snapshots,
            tally.moves,
            did.amid
        )?;
        writeln!(f, "{:>24} {:>10} {:>10}", "images after a", "one phase", "two phases")?;
        for point in Point::ALL {
            let at = point as usize;
            writeln!(f, "{:>24} {:>10} {:>10}", point.name(), self.one_phase.at[at], self.two_phase.at[at])?;
        }
        writeln!(f, "{:>24} {:>10} {:>10}", "recovery cut again", self.one_phase.cut_again, self.two_phase.cut_again)?;
        let rate = self.images() as f64 / self.took.as_secs_f64().max(0.001);
        write!(
            f,
            "{} images before {} calls, {} of them written on; {:.1} s, {rate:.0} images/s; nothing acknowledged was lost",
            self.images(),
            both.calls,
            both.went_on,
            self.took.as_secs_f64(),
        )
    }
}
