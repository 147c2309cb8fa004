//! What the kernel says of processes and of this machine, read from `/proc`.
//!
//! Everything here may be unknown (another system, another user's process): then it is `None` or empty, and
//! the figures made of it are left out.

use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use crate::report::Env;

/// Which sockets to look for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    /// QUIC's.
    Udp,
    /// Listening ones.
    Tcp,
}

/// The processes on this machine that listen on any of the addresses' ports, this process left out.
pub(crate) fn listeners<'a>(transport: Transport, addresses: impl Iterator<Item = &'a str>) -> Vec<u32> {
    let port = |address: &str| address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    let ports: BTreeSet<u16> = addresses.filter_map(port).collect();
    let tables = match transport {
        Transport::Udp => ["/proc/net/udp", "/proc/net/udp6"],
        Transport::Tcp => ["/proc/net/tcp", "/proc/net/tcp6"],
    };
    let tables = tables.into_iter().filter_map(|table| fs::read_to_string(table).ok());
    let inodes: BTreeSet<u64> = tables.flat_map(|table| inodes(&table, transport, &ports)).collect();
    match inodes.is_empty() {
        true => Vec::new(),
        false => pids().filter(|pid| *pid != std::process::id() && owns(*pid, &inodes)).collect(),
    }
}

/// The inodes of a socket table's lines whose local port is among `ports`.
fn inodes(table: &str, transport: Transport, ports: &BTreeSet<u16>) -> Vec<u64> {
    const LISTEN: &str = "0A";
    let line = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (_, port) = fields.get(1)?.rsplit_once(':')?;
        let ours = ports.contains(&u16::from_str_radix(port, 16).ok()?);
        let state = transport == Transport::Udp || *fields.get(3)? == LISTEN;
        fields.get(9)?.parse().ok().filter(|_| ours && state)
    };
    table.lines().skip(1).filter_map(line).collect()
}

fn pids() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Whether a process has one of these sockets open.
fn owns(pid: u32, inodes: &BTreeSet<u64>) -> bool {
    let inode = |path: &Path| {
        let link = fs::read_link(path).ok()?;
        link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse::<u64>().ok()
    };
    let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    open.filter_map(|entry| inode(&entry.path())).any(|inode| inodes.contains(&inode))
}

/// The CPU time, user and system, of these processes together; `None` where one cannot be read or there are
/// none.
pub(crate) fn cpu(pids: &[u32]) -> Option<Duration> {
    let tick = Duration::from_secs(1) / u32::try_from(rustix::param::clock_ticks_per_second()).ok()?;
    let ticks = pids.iter().map(|pid| cpu_ticks(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?));
    let ticks = ticks.sum::<Option<u64>>().filter(|_| !pids.is_empty())?;
    Some(tick.saturating_mul(u32::try_from(ticks).ok()?))
}

/// User and system time in a `stat` file, in ticks. The command's name may hold anything but ends with the
/// last parenthesis.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

/// The CPU time of this process, to the nanosecond.
pub(crate) fn own_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// The largest resident memory among these processes, bytes.
pub(crate) fn memory(pids: &[u32]) -> Option<u64> {
    pids.iter().filter_map(|pid| kib(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?, "VmRSS:")).max()
}

/// A field of `status` or `meminfo`, which are in KiB, in bytes.
fn kib(text: &str, field: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(field))?;
    Some(rest.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

/// This machine, and now.
pub(crate) fn env() -> Env {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let cpu = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    Env {
        started_at: humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        cpu: cpu.map_or_else(|| "unknown".to_owned(), |(_, name)| name.trim().to_owned()),
        cores: std::thread::available_parallelism().map_or(0, |cores| u32::try_from(cores.get()).unwrap_or(0)),
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        memory_bytes: kib(&read("/proc/meminfo"), "MemTotal:").unwrap_or(0),
        ..Env::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_table_leads_to_inodes() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             1: 0100007F:1CE9 00000000:0000 07 00000000:00000000 00:00000000 00000000  0 0 1234 2 0 0\n\
             2: 0100007F:1CEA 00000000:0000 07 00000000:00000000 00:00000000 00000000  0 0 5678 2 0 0\n\
             3: nonsense\n";
        assert_eq!(inodes(table, Transport::Udp, &BTreeSet::from([7401])), [1234]);
        assert_eq!(inodes(table, Transport::Tcp, &BTreeSet::from([7401])), [0_u64; 0], "it does not listen");
    }

    #[test]
    fn a_process_may_be_called_anything() {
        let stat = "42 (a) R (b) S 1 2 3 4 5 6 7 8 9 10 700 33 0 0 20 0 1 0 100 1 1 1";
        assert_eq!(cpu_ticks(stat), Some(733));
        assert_eq!(cpu_ticks("42 (a"), None);
    }

    #[test]
    fn this_process_is_seen_and_those_that_are_not_there_are_not() {
        let own = std::process::id();
        assert!(cpu(&[own]).is_some());
        assert!(memory(&[own]).is_some_and(|bytes| bytes > 0));
        assert_eq!((cpu(&[]), memory(&[])), (None, None));
        assert_eq!(cpu(&[own, u32::MAX]), None, "half a sum is none");
        assert!(env().cores > 0);
    }

    #[test]
    fn a_listener_is_found_by_its_port() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
        let address = socket.local_addr().expect("bound").to_string();
        let found = listeners(Transport::Udp, [address.as_str()].into_iter());
        assert!(found.is_empty(), "this process is left out: {found:?}");
        let port = socket.local_addr().expect("bound").port();
        let table = fs::read_to_string("/proc/net/udp").expect("there");
        let inodes = inodes(&table, Transport::Udp, &BTreeSet::from([port]));
        assert!(owns(std::process::id(), &inodes.into_iter().collect()));
    }
}
