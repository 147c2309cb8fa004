//! `elections`: who is in office, and how soon the next is.
//!
//! Candidates stand in many elections of a cluster of this machine, several in each, in processes of their own
//! ([`candidates`]). A process is killed (SIGKILL), and with it the sessions of all the leaders in it say nothing more;
//! or leaders resign. Whoever stood in line takes over. What all of them tell, with the time of one clock, is judged as a
//! whole ([`Offices`]), and so is what a watch of all elections is told ([`Told`]).
//!
//! # A run fails
//! 1. where two are in office at once, by what they were told themselves, or by what the watch was told;
//! 2. where a term of office, which is a fencing token, does not rise;
//! 3. where nobody takes over within the TTL and [`GRACE`] of a kill, or within [`GRACE`] of a resignation;
//! 4. where fewer changes of office came about than asked for.

pub(crate) mod candidates;
mod offices;
mod process;

use std::{
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use clap::Args;
use serde_json::json;
use tokio::{sync::mpsc, time::timeout};
use wardlock_machine::{Kind, What};
use wardlock_router::{Client, Watch};

use self::{
    offices::{How, Offices},
    process::{Process, Said},
};
use crate::{
    cluster::{Cluster, health, interrupt::interruptible},
    faults::Spread,
    progress::Progress,
    run::some_length,
    told::{News, Told},
    trial::{Trial, Verdict},
};

/// How much later than the TTL the next may be in office after a kill, and how much later than the moment after a
/// resignation.
pub(crate) const GRACE: Duration = Duration::from_secs(1);
/// How long everybody may take to be in place, and how long a change of office is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// How many resign at once.
const RESIGN: usize = 10;
/// What the names of all elections start with.
const PREFIX: &str = "elections/";

const EXAMPLES: &str = "\
Examples:
  wardlock-loadtest elections --elections 100 --candidates 3
  wardlock-loadtest elections --elections 20 --clients 4 --ttl 2s --shards 4 --json elections.json";

/// Shows that no two are ever in office, and how soon the next is.
///
/// Starts a cluster on this machine. Exit status: 0, or 1 where two were in office at once, a token did not rise, or
/// nobody took over in time.
#[derive(Args, Clone, Debug)]
#[group(id = "campaigns")]
#[command(after_help = EXAMPLES)]
pub(crate) struct Options {
    /// How many elections, over all shards.
    #[arg(long, value_name = "COUNT", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    elections: u32,
    /// How many stand in each.
    #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = clap::value_parser!(u32).range(2..=16))]
    candidates: u32,
    /// How many processes they are in, each with one session. Each is killed once, one after the other.
    #[arg(long, value_name = "COUNT", default_value_t = 8, value_parser = clap::value_parser!(u32).range(2..=64))]
    clients: u32,
    /// The sessions' TTL.
    #[arg(long, value_name = "LENGTH", default_value = "3s", value_parser = some_length)]
    ttl: Duration,
    #[command(flatten)]
    trial: Trial,
}

/// The command.
pub(crate) async fn command(options: &Options) -> anyhow::Result<ExitCode> {
    let mut cluster = options.trial.cluster().await?;
    let judged = interruptible(run(options, &mut cluster)).await;
    cluster.end().await;
    let (offices, mut failures) = judged?;
    let [killed, resigned, lost] = [How::Killed, How::Resigned, How::Lost].map(|how| offices.handoffs(how));
    let (kills, resignations) = (options.ttl + GRACE, GRACE);
    failures.extend(late("kill", &killed, kills, options.elections as usize));
    failures.extend(late("resignation", &resigned, resignations, options.elections as usize));
    let ms = |seconds: Option<f64>| seconds.map_or_else(|| "-".to_owned(), |seconds| format!("{:.1}", seconds * 1e3));
    let mut text = format!(
        "{} elections, {} candidates each, in {} processes\n",
        options.elections, options.candidates, options.clients
    );
    for (what, spread) in [("a kill", &killed), ("a resignation", &resigned), ("a loss", &lost)] {
        text += &format!(
            "after {what:<14} {:>5} times  the next was in office after p50 {} ms, p99 {} ms, worst {} ms\n",
            spread.count,
            ms(spread.median),
            ms(spread.p99),
            ms(spread.max)
        );
    }
    if failures.is_empty() {
        text += &format!("never two in office, and every term above the last: {} terms\n", offices.terms());
    }
    let figures = json!({
        "elections": options.elections, "candidates": options.candidates, "clients": options.clients,
        "ttlS": options.ttl.as_secs_f64(), "terms": offices.terms(), "afterKillS": killed,
        "afterResignationS": resigned, "afterLossS": lost, "failures": failures,
    });
    options.trial.tell(&Verdict { text, figures: figures.to_string(), failures })
}

/// Why changes of office are too late, or too few.
fn late(what: &str, spread: &Spread, most: Duration, least: usize) -> Vec<String> {
    let mut failures = Vec::new();
    if let Some(max) = spread.max.filter(|max| *max > most.as_secs_f64()) {
        failures.push(format!("after a {what} the next was in office after {max:.2} s, which is more than {most:?}"));
    }
    // Leaders wander: not each is in the process that is killed. Most are.
    if spread.count * 2 < least {
        failures.push(format!("only {} changes of office after a {what}", spread.count));
    }
    failures
}

/// Who stands in an election: processes in a row, so that each has as many.
fn stands(options: &Options, election: u32, process: u32) -> bool {
    let candidates = options.candidates.min(options.clients);
    (process + options.clients - election % options.clients) % options.clients < candidates
}

/// All that happens.
struct Campaign<'a> {
    options: &'a Options,
    server: String,
    certs: PathBuf,
    processes: Vec<Process>,
    said: mpsc::Receiver<Said>,
    say: mpsc::Sender<Said>,
    offices: Offices,
}

async fn run(options: &Options, cluster: &mut Cluster) -> anyhow::Result<(Offices, Vec<String>)> {
    let client = cluster.client().await?;
    health::well(&client, PATIENCE).await?;
    let mut watched = Told::new(1);
    let watch = client.watch().prefix(Kind::Election, PREFIX).patience(PATIENCE).open().await?;
    let (say, said) = mpsc::channel(10_000);
    let mut campaign = Campaign {
        options,
        server: cluster.server().to_owned(),
        certs: cluster.certs(),
        processes: Vec::new(),
        said,
        say,
        offices: Offices::default(),
    };
    {
        let watching = listen(watch, &mut watched);
        tokio::pin!(watching);
        tokio::select! {
            done = campaign.run() => done?,
            ended = &mut watching => ended?,
        }
        // The last of it is told a moment later.
        let _ = timeout(GRACE * 2, watching).await;
    }
    let mut failures = campaign.offices.judge();
    for (name, terms) in campaign.offices.by_election() {
        terms.for_each(|token| watched.acknowledged(Kind::Election, name, token, None));
        watched.close(Kind::Election, name);
    }
    watched.end();
    failures.extend(watched.sum().examples.iter().cloned());
    if watched.sum().events == 0 || watched.sum().gaps > 0 {
        failures.push(format!("the watch was told {} events and {} gaps", watched.sum().events, watched.sum().gaps));
    }
    Ok((campaign.offices, failures))
}

/// What the servers tell of all elections.
async fn listen(mut watch: Watch, told: &mut Told) -> anyhow::Result<()> {
    loop {
        let watched = watch.next().await.context("the watch")?;
        let event = &watched.event;
        let news = match &event.what {
            What::Granted { lock_id, .. } => News::Made(lock_id.token.0, Some(lock_id.session.0)),
            What::Ended { lock_id, .. } => News::Ended(lock_id.token.0),
            _ => continue,
        };
        told.told(0, (watched.shard.0, event.revision.0), (event.key.kind, event.key.name.as_str()), news);
    }
}

impl Campaign<'_> {
    async fn run(&mut self) -> anyhow::Result<()> {
        let Options { elections, clients, .. } = *self.options;
        for number in 0..clients {
            let process = self.start(number).await?;
            self.processes.push(process);
        }
        // The first to stand is elected: so leaders are in all processes.
        for election in 0..elections {
            self.processes[(election % clients) as usize].stand(&name(election)).await?;
        }
        self.until_all_are_led().await?;
        for election in 0..elections {
            for process in (0..clients).filter(|process| *process != election % clients) {
                if stands(self.options, election, process) {
                    self.processes[process as usize].stand(&name(election)).await?;
                }
            }
        }
        let mut progress = Progress::new("processes killed", clients.into());
        for number in 0..clients {
            self.settle().await?;
            let led = self.offices.led_by(number);
            progress.say(&format!("process {number}, which led {} elections, is killed", led.len()));
            let at = self.processes[number as usize].kill().await?;
            self.offices.killed(number, at);
            self.until_all_are_led().await?;
            self.processes[number as usize] = self.start(number).await?;
            for election in (0..elections).filter(|election| stands(self.options, *election, number)) {
                self.processes[number as usize].stand(&name(election)).await?;
            }
            progress.at(u64::from(number) + 1);
        }
        progress.end();
        let mut progress = Progress::new("resignations", elections.into());
        let all: Vec<String> = (0..elections).map(name).collect();
        for some in all.chunks(RESIGN) {
            self.settle().await?;
            let before = self.offices.terms();
            for name in some {
                let Some(leader) = self.offices.leader(name) else { bail!("nobody leads {name}") };
                self.processes[leader as usize].resign(name).await?;
            }
            let resigned = async {
                while self.offices.terms() < before + some.len() {
                    self.hear().await?;
                }
                anyhow::Ok(())
            };
            timeout(PATIENCE, resigned).await.context("nobody took over from who resigned")??;
            progress.at(progress_of(&all, some));
        }
        progress.end();
        self.settle().await
    }

    /// Starts a process and waits until it has its session.
    async fn start(&mut self, number: u32) -> anyhow::Result<Process> {
        let Campaign { server, certs, options, .. } = self;
        let process = Process::start(number, server, certs, options.ttl, self.say.clone())?;
        let ready = async {
            loop {
                if self.hear().await? == Some(number) {
                    return anyhow::Ok(());
                }
            }
        };
        timeout(PATIENCE, ready).await.with_context(|| format!("process {number} does not get ready"))??;
        Ok(process)
    }

    /// Hears one thing; which process has got ready, if that was it.
    async fn hear(&mut self) -> anyhow::Result<Option<u32>> {
        let said = self.said.recv().await.context("nobody says anything any more")?;
        match said {
            Said::Ready { process } => return Ok(Some(process)),
            Said::Leads { process, name, token, at } => self.offices.leads(process, &name, token, at),
            Said::Left { name, token, at, how, .. } => self.offices.left(&name, token, at, how),
            Said::Failed { process, why } => bail!("process {process} cannot go on: {why}"),
        }
        Ok(None)
    }

    async fn until_all_are_led(&mut self) -> anyhow::Result<()> {
        let elections = self.options.elections as usize;
        let led = async {
            while self.offices.led() < elections {
                self.hear().await?;
            }
            anyhow::Ok(())
        };
        let done = timeout(PATIENCE, led).await;
        done.with_context(|| format!("only {} elections have a leader", self.offices.led()))?
    }

    /// Hears whatever is on its way; all stand in line then.
    async fn settle(&mut self) -> anyhow::Result<()> {
        let until = Instant::now() + Duration::from_millis(500);
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            match timeout(left, self.hear()).await {
                Ok(heard) => drop(heard?),
                Err(_) => break,
            }
        }
        self.until_all_are_led().await
    }
}

/// How many of all these and those before are.
fn progress_of(all: &[String], some: &[String]) -> u64 {
    all.iter().position(|name| Some(name) == some.last()).map_or(0, |last| last as u64 + 1)
}

fn name(election: u32) -> String {
    format!("{PREFIX}{election}")
}

/// A client of the cluster, for whoever has only its address.
async fn client(server: &str, certs: &std::path::Path) -> anyhow::Result<Client> {
    Ok(Client::at(server, Some(certs)).await?)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    #[test]
    fn in_each_election_as_many_stand_and_the_first_is_among_them() {
        let options = Line::parse_from(["", "--clients", "5", "--candidates", "3"]).options;
        for election in 0..20 {
            let standing: Vec<u32> = (0..5).filter(|process| stands(&options, election, *process)).collect();
            assert!(standing.len() == 3 && standing.contains(&(election % 5)), "{election}: {standing:?}");
        }
    }

    #[test]
    fn changes_of_office_that_are_late_or_missing_fail_a_run() {
        let spread = |all: &[f64]| Spread::of(all.to_vec());
        let second = Duration::from_secs(1);
        assert!(late("kill", &spread(&[0.5, 0.9]), second, 2).is_empty());
        assert_eq!(late("kill", &spread(&[0.5, 1.1]), second, 2).len(), 1);
        assert_eq!(late("kill", &spread(&[]), second, 2).len(), 1);
    }
}
