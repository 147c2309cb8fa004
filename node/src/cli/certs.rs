//! `wardlock certs`: the certificates of a cluster.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    str::FromStr,
    time::Duration,
};

use clap::Args;
use wardlock_placement::NodeId;

use super::{
    failure::{Failure, chain},
    output,
};
use crate::certs::{self, Authority, Holder};

const DAY: Duration = Duration::from_secs(86_400);
/// How long an authority's certificate holds.
const AUTHORITY_LIFE: Duration = DAY.saturating_mul(3650);
/// How long the others hold. To renew one, delete its two files and run the command again.
const LIFE: Duration = DAY.saturating_mul(825);

/// Make the certificates of a cluster.
///
/// Writes an authority (`ca.pem`, `ca.key`), and for each node and for clients a certificate and a key. A
/// directory that has an authority already keeps it, and gets what it lacks; nothing is ever overwritten.
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  wardlock certs --dir certs --node 1=wl1.example.net,10.0.0.1 --node 2=wl2.example.net --client")]
pub struct CertsArgs {
    /// The directory.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,

    /// A node, with the names and addresses by which HTTP clients reach it. May be repeated.
    #[arg(long, value_name = "NUMBER=HOST,…", required_unless_present = "client")]
    node: Vec<NodeHosts>,

    /// Also a certificate for clients and routers; with hosts, for a router that HTTPS clients reach by
    /// them.
    #[arg(long, value_name = "HOST,…", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    client: Option<Hosts>,
}

/// `host,10.0.0.1`; possibly none.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Hosts(Vec<String>);

impl FromStr for Hosts {
    type Err = String;

    fn from_str(text: &str) -> Result<Hosts, String> {
        let hosts: Vec<String> = text.split(',').filter(|host| !host.is_empty()).map(str::to_owned).collect();
        match hosts.iter().find(|host| host.contains(['/', ' ', '='])) {
            Some(odd) => Err(format!("{odd:?} is neither a name nor an address")),
            None => Ok(Hosts(hosts)),
        }
    }
}

/// `1=host,10.0.0.1`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct NodeHosts(NodeId, Hosts);

impl FromStr for NodeHosts {
    type Err = String;

    fn from_str(text: &str) -> Result<NodeHosts, String> {
        let (node, hosts) = text.split_once('=').unwrap_or((text, ""));
        let node: NodeId = node.parse().map_err(|_| format!("{node:?} is not a node's number"))?;
        if node.0 == 0 {
            return Err("nodes are numbered from 1".to_owned());
        }
        Ok(NodeHosts(node, hosts.parse()?))
    }
}

/// Runs the command.
pub fn run(args: &CertsArgs) -> Result<ExitCode, Failure> {
    let nodes = args.node.iter().map(|NodeHosts(node, hosts)| (Holder::Node(*node), hosts.0.clone()));
    let client = args.client.iter().map(|hosts| (Holder::Client, hosts.0.clone()));
    let wanted: Vec<_> = nodes.chain(client).collect();
    make(&args.dir, &wanted, Existing::Refuse).map_err(|e| Failure::error(chain(&e)))?;
    let dir = args.dir.display();
    let mut text = format!("in {dir}:\n");
    for (holder, _) in &wanted {
        let (name, goes) = match holder {
            Holder::Node(node) => (holder.file_name(), format!("node {node}")),
            Holder::Client => (holder.file_name(), "routers and whoever uses the command line".to_owned()),
        };
        text += &format!("  copy ca.pem {name}.pem {name}.key to {goes}\n");
    }
    text += "keep ca.key where nobody gets it: whoever has it can join the cluster\n";
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// What to do about a certificate that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Leave it.
    Keep,
    /// Fail, before anything is written.
    Refuse,
}

/// Makes the authority where there is none, and certificates by it.
///
/// # Errors
/// Where a file cannot be read or written, or is there and is not to be kept.
pub fn make(dir: &Path, wanted: &[(Holder, Vec<String>)], existing: Existing) -> Result<(), certs::Error> {
    let there = |holder: &Holder| dir.join(format!("{}.pem", holder.file_name()));
    if existing == Existing::Refuse
        && let Some((holder, _)) = wanted.iter().find(|(holder, _)| there(holder).exists())
    {
        return Err(certs::Error::Exists(there(holder)));
    }
    let missing: Vec<_> = wanted.iter().filter(|(holder, _)| !there(holder).exists()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let authority = match dir.join("ca.pem").exists() {
        true => Authority::from_dir(dir)?,
        false => {
            let authority = certs::make_ca("Wardlock", AUTHORITY_LIFE)?;
            certs::write_dir(dir, "ca", authority.issued(), false)?;
            authority
        }
    };
    for (holder, hosts) in missing {
        let issued = authority.issue(*holder, LIFE, hosts)?;
        certs::write_dir(dir, &holder.file_name(), &issued, false)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_overwritten_and_what_lacks_is_added() {
        let dir = tempfile::tempdir().unwrap();
        let one = (Holder::Node(NodeId(1)), vec!["localhost".to_owned()]);
        let two = (Holder::Node(NodeId(2)), Vec::new());
        make(dir.path(), std::slice::from_ref(&one), Existing::Refuse).unwrap();
        let read = |name: &str| std::fs::read(dir.path().join(name)).unwrap();
        let before = (read("ca.pem"), read("node-1.pem"), read("node-1.key"));

        let error = make(dir.path(), &[two.clone(), one.clone()], Existing::Refuse).unwrap_err();
        assert!(error.to_string().contains("node-1.pem"), "{error}");
        assert!(!dir.path().join("node-2.pem").exists(), "refused before anything is written");

        make(dir.path(), &[one, two], Existing::Keep).unwrap();
        assert_eq!(before, (read("ca.pem"), read("node-1.pem"), read("node-1.key")));
        assert!(dir.path().join("node-2.key").exists());
    }

    #[test]
    fn a_node_is_a_number_and_its_hosts() {
        let hosts = Hosts(vec!["a".to_owned(), "10.0.0.1".to_owned()]);
        assert_eq!("1=a,10.0.0.1".parse(), Ok(NodeHosts(NodeId(1), hosts)));
        for wrong in ["", "x=a", "0=a", "1=a b", "1=2=a"] {
            assert!(wrong.parse::<NodeHosts>().is_err(), "{wrong}");
        }
    }
}
