//! Three ZooKeeper members, as they come.
//!
//! The jars are those of Debian's package `zookeeper`, 3.8.0. Defaults but for: a heap of 1 GB, no bound on the
//! connections of one address, no administration server, `srvr` allowed (readiness is asked with it), and
//! warnings alone in the log. `forceSync` stays at its default: every transaction is fsynced before it is
//! acknowledged. Connections are plain.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, ensure};

use super::{Member, clear, probe, program};

pub(super) const SYSTEM: &str = "zookeeper";
pub(super) const MEMBERS: usize = 3;
/// Its manifest names all the others but the log's.
const JAR: &str = "/usr/share/java/zookeeper.jar";
const LOG_JAR: &str = "/usr/share/java/slf4j-simple.jar";

fn client_port(number: u32) -> u16 {
    21_810 + number as u16
}

fn quorum_port(number: u32) -> u16 {
    21_820 + number as u16
}

fn election_port(number: u32) -> u16 {
    21_830 + number as u16
}

/// All that they listen on.
pub(super) fn ports() -> impl Iterator<Item = u16> {
    (1..=MEMBERS as u32).flat_map(|number| [client_port(number), quorum_port(number), election_port(number)])
}

/// The three, to be started.
pub(super) fn members(dir: &Path) -> anyhow::Result<Vec<Member>> {
    ensure!(
        Path::new(JAR).is_file() && Path::new(LOG_JAR).is_file(),
        "{JAR} is missing: apt-get install --no-install-recommends zookeeper"
    );
    let java = program("java")
        .context("ZooKeeper needs Java: apt-get install --no-install-recommends default-jre-headless")?;
    (1..=MEMBERS as u32)
        .map(|number| {
            let data = clear(dir, SYSTEM, number)?;
            let configuration = data.join("zoo.cfg");
            fs::write(data.join("myid"), number.to_string())
                .and_then(|()| fs::write(&configuration, settings(&data, number)))
                .with_context(|| format!("{} cannot be written", data.display()))?;
            let mut command = Command::new(&java);
            command
                .args(["-Xmx1g", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"])
                .args(["-cp", &format!("{JAR}:{LOG_JAR}")])
                .arg("org.apache.zookeeper.server.quorum.QuorumPeerMain")
                .arg(&configuration);
            let address = format!("127.0.0.1:{}", client_port(number));
            Ok(Member { system: SYSTEM, number, address, command, ready })
        })
        .collect()
}

fn settings(data: &Path, number: u32) -> String {
    let mut text = format!(
        "tickTime=2000\ninitLimit=10\nsyncLimit=5\ndataDir={}\nclientPortAddress=127.0.0.1\nclientPort={}\n\
         maxClientCnxns=0\nadmin.enableServer=false\n4lw.commands.whitelist=srvr\n",
        data.display(),
        client_port(number)
    );
    for other in 1..=MEMBERS as u32 {
        text += &format!("server.{other}=127.0.0.1:{}:{}\n", quorum_port(other), election_port(other));
    }
    text
}

fn ready(address: &str) -> bool {
    let answer = probe::ask(address, "srvr", "Node count");
    answer.is_some_and(|answer| answer.contains("Mode: leader") || answer.contains("Mode: follower"))
}
