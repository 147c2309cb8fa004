//! A disk of its own for each node, that can be made full or slow, or lose its power: a file system in a file.
//!
//! It takes root, a loop device, `mkfs.ext4` and `perl`; where those are missing the faults of disks are not to be
//! had, and [`Disks::mount`] says so. A full disk is one on which a file takes nearly all room. A slow one is frozen
//! again and again (`fsfreeze`): whoever writes waits, as for a disk that stalls. One that loses its power is told
//! to forget what was written and not synced: ext4 has a request for just that, which drops its journal's tail and
//! all that waits in memory. What a killed process has written would otherwise outlive it, synced or not.

use std::{
    collections::BTreeMap,
    fs::File,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, bail};
use tokio::time::{Instant, sleep};

use crate::workload::Dice;

/// How large each is. It takes as much real room as is written to it.
const SIZE: u64 = 1 << 30;
/// What a full one has left: less than any node's mark for a disk that is nearly full.
const LEFT: u64 = 24 << 20;

/// How often a mount is tried again.
const TRIES: u32 = 20;

/// The disks, taken down at the end.
#[derive(Debug, Default)]
pub(super) struct Disks(BTreeMap<u32, Disk>);

#[derive(Debug)]
struct Disk {
    image: PathBuf,
    at: PathBuf,
}

/// `EXT4_IOC_SHUTDOWN` with `EXT4_GOING_FLAGS_NOLOGFLUSH`. Requests to a device driver are unsafe, and not for this
/// program to make.
const SHUT_DOWN: &str =
    r#"open(my $at, "<", $ARGV[0]) or die $!; my $how = pack("L", 2); ioctl($at, 0x8004587d, $how) or die $!;"#;

impl Disks {
    /// One for each node, where it keeps its data.
    ///
    /// # Errors
    /// Where this machine does not allow it, with the reason.
    pub(super) fn mount(dirs: &BTreeMap<u32, PathBuf>) -> anyhow::Result<Disks> {
        let mut disks = Disks::default();
        for (node, at) in dirs {
            let image = at.with_extension("disk");
            File::create(&image)?.set_len(SIZE)?;
            std::fs::create_dir_all(at)?;
            run(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&image))?;
            let disk = Disk { image, at: at.clone() };
            disk.mount()?;
            disks.0.insert(*node, disk);
        }
        for disk in disks.0.values() {
            // Where files can be mounted they cannot always be frozen or told to forget.
            run(Command::new("fsfreeze").arg("-f").arg(&disk.at))?;
            run(Command::new("fsfreeze").arg("-u").arg(&disk.at))?;
            disk.cut_power()?;
        }
        Ok(disks)
    }

    fn disk(&self, node: u32) -> anyhow::Result<&Disk> {
        self.0.get(&node).with_context(|| format!("node {node} has no disk of its own"))
    }

    fn of(&self, node: u32) -> anyhow::Result<&Path> {
        Ok(&self.disk(node)?.at)
    }

    /// Loses what was not synced. Nobody may have a file open there.
    pub(super) fn cut_power(&self, node: u32) -> anyhow::Result<()> {
        self.disk(node)?.cut_power().with_context(|| format!("the power of node {node}'s disk"))
    }

    /// Takes nearly all room.
    pub(super) fn fill(&self, node: u32) -> anyhow::Result<()> {
        let at = self.of(node)?;
        let stat = rustix::fs::statvfs(at)?;
        let free = stat.f_bavail * stat.f_frsize;
        let file = File::create(at.join("filler"))?;
        let take = free.checked_sub(LEFT).context("the disk is full already")?;
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, take)?;
        Ok(())
    }

    /// Gives it back.
    pub(super) fn empty(&self, node: u32) -> anyhow::Result<()> {
        std::fs::remove_file(self.of(node)?.join("filler")).context("the filler cannot be removed")
    }

    /// Lets it write only now and then, for so long.
    pub(super) async fn slow(&self, node: u32, length: Duration, dice: &mut Dice) -> anyhow::Result<()> {
        let at = self.of(node)?.to_owned();
        let until = Instant::now() + length;
        let _thaw = Thaw(at.clone());
        while Instant::now() < until {
            freeze("-f", &at).await?;
            sleep(Duration::from_millis(100 + dice.below(700))).await;
            freeze("-u", &at).await?;
            sleep(Duration::from_millis(20 + dice.below(130))).await;
        }
        Ok(())
    }
}

async fn freeze(how: &str, at: &Path) -> anyhow::Result<()> {
    let status = tokio::process::Command::new("fsfreeze").arg(how).arg(at).status().await?;
    if !status.success() {
        bail!("fsfreeze {how} {}: {status}", at.display());
    }
    Ok(())
}

/// Nobody who writes can be killed while the disk is frozen.
struct Thaw(PathBuf);

impl Drop for Thaw {
    fn drop(&mut self) {
        // It is thawed already where all went well.
        let _ = run(Command::new("fsfreeze").arg("-u").arg(&self.0));
    }
}

impl Disk {
    fn mount(&self) -> anyhow::Result<()> {
        let mut tries = 0;
        loop {
            match run(Command::new("mount").args(["-o", "loop"]).arg(&self.image).arg(&self.at)) {
                // Another program may have taken the device that was free just now.
                Err(_) if tries < TRIES => tries += 1,
                mounted => return mounted,
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn cut_power(&self) -> anyhow::Result<()> {
        run(Command::new("perl").args(["-e", SHUT_DOWN]).arg(&self.at))?;
        run(Command::new("umount").arg(&self.at))?;
        self.mount()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Err(error) = run(Command::new("umount").arg("-l").arg(&self.at)) {
            eprintln!("wardlock-loadtest: {error:#}");
        }
    }
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("{program} cannot be run"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{program}: {}", said.trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[tokio::test]
    async fn a_disk_is_filled_and_slowed_loses_its_power_and_is_taken_down_where_the_machine_allows_it() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("node-1");
        let disks = match Disks::mount(&[(1, at.clone())].into()) {
            Ok(disks) => disks,
            // Without root there is a reason.
            Err(error) => return assert!(!format!("{error:#}").is_empty()),
        };
        disks.fill(1).unwrap();
        let stat = rustix::fs::statvfs(&at).unwrap();
        assert!(stat.f_bavail * stat.f_frsize <= LEFT + (1 << 20));
        disks.empty(1).unwrap();

        std::fs::write(at.join("synced"), "kept").unwrap();
        File::open(at.join("synced")).unwrap().sync_all().unwrap();
        std::fs::write(at.join("not-synced"), "lost").unwrap();
        disks.cut_power(1).unwrap();
        assert_eq!(std::fs::read(at.join("synced")).unwrap(), b"kept");
        assert!(!at.join("not-synced").exists(), "it was only in memory");

        let file = at.join("written");
        let mut file = File::create(file).unwrap();
        let began = Instant::now();
        let writing = tokio::task::spawn_blocking(move || {
            let mut worst = Duration::ZERO;
            while began.elapsed() < Duration::from_millis(900) {
                let from = Instant::now();
                file.write_all(b"x").and_then(|()| file.sync_all()).unwrap();
                worst = worst.max(from.elapsed());
            }
            worst
        });
        disks.slow(1, Duration::from_millis(900), &mut Dice::new(1)).await.unwrap();
        assert!(writing.await.unwrap() >= Duration::from_millis(90), "no write had to wait");
        drop(disks);
        assert!(std::fs::read_dir(&at).unwrap().next().is_none(), "it is still mounted");
    }
}
