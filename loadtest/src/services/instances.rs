//! A process of its own with instances: what `services` kills.
//!
//! It registers its share of them, each bound to one of its sessions, says `registered` on stdout, and keeps its sessions
//! alive until stdin ends.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Context;
use clap::Args;
use futures_util::{StreamExt, TryStreamExt, stream};
use wardlock_router::Client;

use crate::run::some_length;

/// How many instances share a session.
const PER_SESSION: usize = 50;
/// How many are registered at once.
const AT_ONCE: usize = 32;

/// Registers instances and keeps them.
#[derive(Args, Debug)]
pub(crate) struct Options {
    #[arg(long)]
    server: String,
    #[arg(long)]
    certs: PathBuf,
    #[arg(long, value_parser = some_length)]
    ttl: Duration,
    #[arg(long)]
    services: u32,
    #[arg(long)]
    from: u32,
    #[arg(long)]
    to: u32,
}

/// The command.
pub(crate) async fn command(options: &Options) -> anyhow::Result<ExitCode> {
    let client = Client::at(&options.server, Some(&options.certs)).await?;
    let all: Vec<u32> = (options.from..options.to).collect();
    let mut kept = Vec::new();
    for (number, some) in all.chunks(PER_SESSION).enumerate() {
        let client_id = format!("instances-{}-{number}", options.from);
        let session = client.session(client_id).ttl(options.ttl).open().await.context("no session")?;
        let registering = stream::iter(some).map(|instance| {
            let (service, id) = super::called(*instance, options.services);
            let octets = instance.to_be_bytes();
            let address = format!("10.{}.{}.{}", octets[1], octets[2], octets[3]);
            let session = &session;
            async move { session.register(service, id).address(address).port(8_080).open().await }
        });
        let registered: Vec<_> = registering.buffer_unordered(AT_ONCE).try_collect().await?;
        kept.extend(registered);
    }
    println!("registered");
    let (tell, told) = tokio::sync::oneshot::channel::<()>();
    std::thread::Builder::new().name("stdin".to_owned()).spawn(move || {
        // Whatever is said, the end of it is what counts.
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        drop(tell);
    })?;
    let _ = told.await;
    // Their sessions end by themselves; this process is not to wait for it.
    std::mem::forget(kept);
    Ok(ExitCode::SUCCESS)
}
