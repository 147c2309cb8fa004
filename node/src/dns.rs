//! The DNS listener of a process: what is configured, and the thread that serves it.
//!
//! Its clients have no certificates, so it listens on loopback only, unless it is said in so many words that it may be
//! heard beyond.

use std::{io, net::SocketAddr, sync::mpsc};

use tokio_util::sync::{CancellationToken, DropGuard};
use wardlock_router::{
    Client,
    dns::{self, Listener, Zone, ZoneError},
};

/// The zone, where nothing is said.
pub const ZONE: &str = "wardlock";

/// What is to be served.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where.
    pub listen: SocketAddr,
    /// What.
    pub zone: Zone,
}

/// Why that cannot be served. Each variant is of one field.
#[derive(Debug, thiserror::Error)]
pub enum Wrong {
    /// The address.
    #[error("{0} is not a loopback address, and DNS knows no certificates: dns_beyond_loopback = true allows it")]
    Beyond(SocketAddr),
    /// The zone or the TTL.
    #[error(transparent)]
    Zone(#[from] ZoneError),
}

impl Wrong {
    /// The field's name, as in the configuration file.
    pub fn field(&self) -> &'static str {
        match self {
            Wrong::Beyond(_) => "dns_listen",
            Wrong::Zone(ZoneError::Name(_)) => "dns_zone",
            Wrong::Zone(ZoneError::Ttl(_)) => "dns_ttl",
        }
    }
}

impl Settings {
    /// Checks what people wrote.
    ///
    /// # Errors
    /// [`Wrong`].
    pub fn new(listen: SocketAddr, zone: &str, ttl: u32, beyond_loopback: bool) -> Result<Settings, Wrong> {
        if !listen.ip().is_loopback() && !beyond_loopback {
            return Err(Wrong::Beyond(listen));
        }
        Ok(Settings { listen, zone: Zone::new(zone, ttl)? })
    }
}

/// A listener on a thread of its own: questions must not delay heartbeats. It ends with its handle.
pub struct DnsThread {
    address: SocketAddr,
    _stop: DropGuard,
}

impl DnsThread {
    /// Listens and serves.
    ///
    /// # Errors
    /// Where the address cannot be had, or there is no thread.
    pub fn start(settings: Settings, client: Client) -> io::Result<DnsThread> {
        let (tell, bound) = mpsc::channel();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        // All of it there: a runtime must not be dropped where another one runs.
        let serve = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let served = runtime.and_then(|runtime| {
                runtime.block_on(async {
                    let listener = Listener::bind(settings.listen).await?;
                    // Whoever started it waits.
                    let _ = tell.send(Ok(listener.local_addr()?));
                    stopped.run_until_cancelled(dns::serve(listener, settings.zone, client)).await;
                    Ok(())
                })
            });
            if let Err(error) = served {
                // The same: nothing fails once it serves.
                let _ = tell.send(Err(error));
            }
        };
        std::thread::Builder::new().name("dns".to_owned()).spawn(serve)?;
        let address = bound.recv().unwrap_or_else(|_| Err(io::Error::other("the listener's thread has ended")))?;
        tracing::info!("DNS at {address}");
        Ok(DnsThread { address, _stop: stop.drop_guard() })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_loopback_it_takes_a_word() {
        let settings = |at: [u8; 4], beyond| Settings::new(SocketAddr::from((at, 53)), ZONE, 0, beyond);
        assert!(settings([127, 0, 0, 1], false).is_ok());
        assert!(matches!(settings([0, 0, 0, 0], false), Err(Wrong::Beyond(_))));
        assert!(settings([0, 0, 0, 0], true).is_ok());
        assert!(matches!(Settings::new(SocketAddr::from(([127, 0, 0, 1], 53)), "a b", 0, false), Err(Wrong::Zone(_))));
    }
}
