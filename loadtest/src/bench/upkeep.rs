//! What goes on beside the load: signs of life of all sessions, renewals of all leases.
//!
//! One task, whatever their number. Signs of life go out at a third of the TTL, a little earlier at random, so
//! that sessions opened together do not stay together; one is under way per session at a time.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::{client::Load, recorder::Times};
use crate::workload::Dice;

/// How often the task looks.
const LOOK: Duration = Duration::from_millis(20);

/// Keeps all alive, for as long as it is polled. Must run within a tokio runtime.
pub(crate) async fn keep(load: Arc<Load>, sessions: u32, ttl: Duration, lease: Option<Duration>) {
    let mut dice = Dice::new(0x6b65_6570);
    let now = Instant::now();
    let first = (0..sessions).map(|session| Reverse((now + (ttl / 3).mul_f64(dice.unit()), session)));
    let due: Arc<Mutex<BinaryHeap<_>>> = Arc::new(Mutex::new(first.collect()));
    let pop = |now| {
        let mut due = due.lock().unwrap_or_else(PoisonError::into_inner);
        let first = due.peek().filter(|Reverse((at, _))| *at <= now).copied()?;
        due.pop();
        Some(first)
    };
    loop {
        let now = Instant::now();
        while let Some(Reverse((at, session))) = pop(now) {
            let (load, due) = (load.clone(), due.clone());
            let rest = ttl.mul_f64(0.28 + 0.053 * dice.unit());
            tokio::spawn(async move {
                let sent = Instant::now();
                let next = match load.keep_alive(session, sent, sent, false).await {
                    Ok(_) => at.max(now) + rest,
                    // It has already had the patience of the target.
                    Err(_) => Instant::now() + rest / 10,
                };
                due.lock().unwrap_or_else(PoisonError::into_inner).push(Reverse((next, session)));
            });
        }
        if let Some(lease) = lease {
            renew(&load, lease, now);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Renews what is due.
fn renew(load: &Arc<Load>, lease: Duration, now: Instant) {
    loop {
        let next = load.book().holds.next_renewal(now);
        let Some((id, holding)) = next else { return };
        let load = load.clone();
        tokio::spawn(async move {
            let sent = Instant::now();
            let renewed = load.target.renew(holding.session, holding.name, holding.grant, lease).await;
            let times = Times { due: sent, sent, done: Instant::now() };
            match renewed {
                Ok(held) => load.book().renewed(id, holding, lease, held, times),
                Err(failure) => {
                    let mut book = load.book();
                    book.failed(Some(holding.name), &failure, times);
                    book.holds.renew_at(id, times.done + lease / 20);
                }
            }
        });
    }
}
