//! Faults of the kinds that happen: nodes down, strangers at the door, a full disk. What cannot be done is
//! refused and left undone; what was acknowledged stays; what is mended works again.

mod support;

use std::{
    collections::BTreeMap,
    io::Write,
    net::{TcpStream, UdpSocket},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use rustix::fs::statvfs;
use serde_json::json;
use support::{Answer, Dev, alone};
use wardlock::certs::{Holder, make_ca};
use wardlock_router::{Client, tls::Identity};

const SHARDS: u64 = 6;

/// How many shards each node leads, once every shard has a leader.
fn leaders(answer: &Answer) -> Option<BTreeMap<u64, u64>> {
    let mut led = BTreeMap::from([(1, 0), (2, 0), (3, 0)]);
    for shard in answer.json()["shards"].as_array()? {
        *led.get_mut(&shard["leader"].as_u64()?)? += 1;
    }
    Some(led)
}

fn all_led(dev: &Dev) {
    dev.until("/cluster/shards", Duration::from_secs(60), |shown| leaders(shown).is_some());
}

/// Leaders end up spread evenly, the placement group's included or not.
fn evenly_led(dev: &Dev) {
    dev.until("/cluster/shards", Duration::from_secs(20), |shown| {
        leaders(shown).is_some_and(|led| led.values().max().unwrap() - led.values().min().unwrap() <= 1)
    });
}

/// One of everything, on names of its own, none of which may fail.
fn everything_works(dev: &Dev, tag: &str) {
    let session = dev.open(tag, 600.0);
    for n in 0..3 * SHARDS {
        let name = format!("{tag}/{n}");
        let granted = dev.acquire(&name, &session);
        assert_eq!(granted.status, 200, "{granted:?}");
        assert_eq!(dev.get(&format!("/locks/{name}")).text("lockId"), granted.text("lockId"));
        assert_eq!(dev.release(&name, &granted.text("lockId")).status, 200);
    }
    let won = dev.post(&format!("/leader/election/{tag}"), &json!({"candidateId": "c", "sessionId": session}));
    assert_eq!(won.json()["isLeader"], json!(true), "{won:?}");
    assert_eq!(dev.get(&format!("/leader/{tag}")).status, 200);
    assert_eq!(dev.get(&format!("/locks?prefix={tag}/")).json()["locks"], json!([]));
    assert_eq!(dev.post(&format!("/sessions/{session}/keepalive"), &json!({})).status, 200);
    assert_eq!(dev.call("DELETE", &format!("/sessions/{session}"), "", &[]).status, 200);
}

#[test]
fn one_node_down_is_nothing_two_down_is_a_refusal_and_all_returns() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let mut dev = Dev::start(dir.path(), &["--processes", "--shards", &SHARDS.to_string()]);
    evenly_led(&dev);
    // A client whose map and connections are from before all of this.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let old = runtime.block_on(Client::builder().cluster("dev").certs(dir.path().join("certs")).connect(dev.seeds()));
    let old = old.unwrap();
    let session = dev.open("holder", 3600.0);
    let held: Vec<String> =
        (0..2 * SHARDS).map(|n| dev.acquire(&format!("held/{n}"), &session).text("lockId")).collect();

    dev.kill(3);
    all_led(&dev);
    everything_works(&dev, "one-down");

    dev.kill(2);
    let outage = Instant::now();
    let soon = [("x-wardlock-timeout", "1"), ("content-type", "application/json")];
    let body = json!({"sessionId": session}).to_string();
    let (mut untouched, mut unknown) = (Vec::new(), 0);
    for n in 0..SHARDS {
        let read = dev.call("GET", &format!("/locks/held/{n}"), "", &soon);
        assert_eq!((read.status, read.problem().as_str()), (503, "unavailable"), "without a quorum: {read:?}");
        assert!(read.header("retry-after").is_some_and(|after| after.parse::<u64>().is_ok()), "{read:?}");
        let name = format!("outage/{n}");
        let write = dev.call("POST", &format!("/locks/{name}/acquire"), &body, &soon);
        match (write.status, write.problem().as_str()) {
            (503, "unavailable") => {
                assert!(write.header("retry-after").is_some(), "{write:?}");
                untouched.push(name);
            }
            (504, "outcome-unknown") => unknown += 1,
            _ => panic!("without a quorum: {write:?}"),
        }
    }
    let late = dev.call("GET", "/locks?prefix=held/", "", &soon);
    assert_eq!((late.status, late.problem().as_str()), (503, "unavailable"), "{late:?}");
    let opened = dev.call("POST", "/sessions", r#"{"clientId":"late"}"#, &soon);
    assert!(matches!(opened.status, 503 | 504), "{opened:?}");
    let kept = dev.call("POST", &format!("/sessions/{session}/keepalive"), "", &soon);
    assert_eq!(kept.status, 503, "{kept:?}");
    assert_eq!(dev.get("/livez").status, 200);
    println!("{:?} of outage: {} refused, {unknown} of unknown outcome", outage.elapsed(), untouched.len());
    assert!(!untouched.is_empty(), "a leader without a quorum knows it after a while");

    dev.restart(2);
    all_led(&dev);
    for (n, lock_id) in held.iter().enumerate() {
        assert_eq!(&dev.get(&format!("/locks/held/{n}")).text("lockId"), lock_id);
    }
    for name in &untouched {
        let shown = dev.get(&format!("/locks/{name}"));
        assert_eq!(shown.status, 404, "{name} was refused, and is held: {shown:?}");
    }
    everything_works(&dev, "two-up");
    dev.restart(3);
    evenly_led(&dev);
    dev.kill(1);
    all_led(&dev);
    everything_works(&dev, "another-down");
    dev.restart(1);
    evenly_led(&dev);
    everything_works(&dev, "all-up");
    runtime.block_on(async {
        let session = old.session("old").open().await.unwrap();
        for n in 0..2 * SHARDS {
            session.lock(&format!("old/{n}")).acquire().await.unwrap().release().await.unwrap();
        }
        session.close().await.unwrap();
    });
    drop(old);
    assert!(dev.stop().success());
}

#[test]
fn garbage_and_strangers_do_no_harm() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let dev = Dev::start(dir.path(), &["--processes", "--shards", "4"]);
    let pids: Vec<u32> = dev.nodes.values().map(|(pid, _)| *pid).collect();
    let session = dev.open("holder", 600.0);
    let held = dev.acquire("held", &session).text("lockId");

    // Datagrams of every shape, among them some that begin as QUIC's own do.
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    for n in 0..3_000_u64 {
        let length = (random() % 1_500) as usize;
        let mut bytes: Vec<u8> = (0..length).map(|_| random() as u8).collect();
        let starts: [&[u8]; 4] = [&[], &[0xc3, 0, 0, 0, 1, 8], &[0xc0, 0, 0, 0, 0, 20], &[0x40]];
        let start = starts[(n % 4) as usize];
        let shared = start.len().min(length);
        bytes[..shared].copy_from_slice(&start[..shared]);
        socket.send_to(&bytes, &dev.seeds()[(n % 3) as usize]).unwrap();
    }
    // The gateway's port hears no HTTP.
    for n in 0..20 {
        let mut stream = TcpStream::connect(("127.0.0.1", dev.port)).unwrap();
        let bytes: Vec<u8> = (0..n * 500).map(|_| random() as u8).collect();
        // It may hang up in the middle.
        let _ = stream.write_all(&bytes);
    }

    // A client with good certificates, of another authority; and one of this authority that wants another cluster.
    let day = Duration::from_secs(86_400);
    let ca = make_ca("another", day).unwrap();
    let issued = ca.issue(Holder::Client, day, &[]).unwrap();
    let foreign = |authority: &[u8]| {
        Identity::from_pem(authority, issued.certificate.as_bytes(), issued.key().as_bytes()).unwrap()
    };
    let ours = std::fs::read(dir.path().join("certs/ca.pem")).unwrap();
    let own = Identity::from_dir(&dir.path().join("certs"), "client").unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let strangers = [
        ("dev", foreign(ca.issued().certificate.as_bytes()), "it trusts another authority"),
        ("dev", foreign(&ours), "it is of another authority"),
        ("another", own, "it wants another cluster"),
    ];
    for (cluster, identity, why) in strangers {
        let builder = Client::builder().cluster(cluster).identity(identity).patience(Duration::from_secs(3));
        let connected = runtime.block_on(builder.connect(dev.seeds()));
        assert!(connected.is_err(), "a client was let in although {why}");
    }

    assert!(pids.iter().all(|pid| support::runs(*pid)), "a node died of it");
    assert_eq!(dev.get("/locks/held").text("lockId"), held);
    everything_works(&dev, "after");
    assert!(dev.stop().success());
}

/// A file system of a size of our own, taken down at the end.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path, mib: u64) -> Option<SmallDisk> {
        let size = format!("size={mib}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at).output();
        match mounted {
            Ok(output) if output.status.success() => Some(SmallDisk(at.to_owned())),
            other => {
                println!("skipped: no file system may be mounted here: {other:?}");
                None
            }
        }
    }

    fn free(&self) -> u64 {
        let stat = statvfs(&self.0).unwrap();
        stat.f_bavail * stat.f_frsize
    }

    /// Leaves so much room.
    fn fill(&self, leave: u64) {
        let mut file = std::fs::File::options().create(true).append(true).open(self.0.join("filler")).unwrap();
        let block = [0; 64 << 10];
        // The last piece of the last room is smaller.
        while self.free() > leave && file.write_all(&block).is_ok() {}
    }

    fn make_room(&self) {
        std::fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_refuses_grants_takes_releases_and_loses_nothing() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(dir.path(), 320) else { return };
    let dev = Dev::start(&dir.path().join("data"), &["--shards", "4"]);
    let port = dev.port;
    let session = dev.open("holder", 86_400.0);
    let take = |dev: &Dev, name: &str| dev.acquire(name, &session);
    let mut held: BTreeMap<String, String> =
        (0..20).map(|n| format!("kept/{n}")).map(|name| (name.clone(), take(&dev, &name).text("lockId"))).collect();

    disk.fill(40 << 20);
    let (mut granted, until) = (0, Instant::now() + Duration::from_secs(30));
    loop {
        let name = format!("filling/{granted}");
        let answer = take(&dev, &name);
        match answer.status {
            200 => drop(held.insert(name, answer.text("lockId"))),
            _ => break assert_eq!(answer.problem(), "disk-full", "{answer:?}"),
        }
        granted += 1;
        assert!(Instant::now() < until, "the disk is full, and locks are granted still");
        std::thread::sleep(Duration::from_millis(200));
    }
    // Every node looks for itself, within seconds.
    std::thread::sleep(Duration::from_secs(6));
    for n in 0..12 {
        let refused = take(&dev, &format!("refused/{n}"));
        assert_eq!((refused.status, refused.problem().as_str()), (503, "disk-full"), "{refused:?}");
        assert!(refused.header("retry-after").is_some(), "{refused:?}");
    }
    let opened = dev.post("/sessions", &json!({"clientId": "new"}));
    assert_eq!((opened.status, opened.problem().as_str()), (503, "disk-full"), "{opened:?}");
    for n in 0..10 {
        let lock_id = held.remove(&format!("kept/{n}")).unwrap();
        let released = dev.release(&format!("kept/{n}"), &lock_id);
        assert_eq!(released.status, 200, "{released:?}");
    }
    assert_eq!(dev.post(&format!("/sessions/{session}/keepalive"), &json!({})).status, 200);
    let all_there = |dev: &Dev, held: &BTreeMap<String, String>| {
        for (name, lock_id) in held {
            assert_eq!(&dev.get(&format!("/locks/{name}")).text("lockId"), lock_id, "{name} was granted");
        }
        for n in 0..10 {
            assert_eq!(dev.get(&format!("/locks/kept/{n}")).status, 404, "kept/{n} was released");
        }
        for n in 0..12 {
            assert_eq!(dev.get(&format!("/locks/refused/{n}")).status, 404, "refused/{n} was refused");
        }
    };
    all_there(&dev, &held);

    // It starts on a disk without any room as well: that is what the reserve is for.
    assert!(dev.stop().success());
    disk.fill(0);
    assert_eq!(disk.free(), 0);
    let data = dir.path().join("data");
    let dev = Dev::at(port, &["--data-dir", data.to_str().unwrap(), "--shards", "4"]);
    let dev = dev.unwrap_or_else(|(status, said)| panic!("{status}: {said}"));
    all_there(&dev, &held);
    let refused = take(&dev, "refused/0");
    assert_eq!((refused.status, refused.problem().as_str()), (503, "disk-full"), "{refused:?}");
    let lock_id = held.remove("kept/19").unwrap();
    assert_eq!(dev.release("kept/19", &lock_id).status, 200);

    disk.make_room();
    support::wait_until("grants come back", Duration::from_secs(30), || {
        (0..12).all(|n| {
            let answer = take(&dev, &format!("back/{n}"));
            matches!(answer.status, 200) || answer.problem() == "already-held"
        })
    });
    all_there(&dev, &held);
    assert_eq!(dev.get("/locks/kept/19").status, 404);
    assert!(dev.stop().success());
}
