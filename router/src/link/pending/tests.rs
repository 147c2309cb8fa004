use std::future::poll_fn;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn lost() -> Poll<Option<Answered>> {
    Poll::Ready(Some(Err(CallError::Lost)))
}

/// How a wait without a deadline stands.
fn look(waiting: &mut Waiting) -> Poll<Option<Answered>> {
    waiting.poll(&Context::from_waker(Waker::noop()), None)
}

async fn by(mut waiting: Waiting, deadline: Instant) -> Option<Answered> {
    poll_fn(|context| waiting.poll(context, Some(deadline))).await
}

fn held(pending: &Pending) -> usize {
    let table = pending.lock();
    table.slots.len() - table.free.len()
}

#[test]
fn forgotten_calls_free_their_slots() {
    let pending = Pending::new();
    let mut kept = pending.enter().expect("open");
    for _ in 0..10_000 {
        drop(pending.enter().expect("open"));
    }
    assert_eq!((held(&pending), pending.lock().slots.len()), (1, 2));
    assert!(look(&mut kept).is_pending());
    pending.end();
    assert_eq!(look(&mut kept), lost());
    assert!(pending.enter().is_err());
    drop(kept);
    assert_eq!(held(&pending), 0);
}

#[test]
fn the_table_is_bounded() {
    let pending = Pending::new();
    let kept: Vec<_> = (0..CALLS).map(|_| pending.enter().expect("room")).collect();
    assert!(matches!(pending.enter(), Err(CallError::NotSent(_))));
    drop(kept);
    assert!(pending.enter().is_ok());
}

#[test]
fn a_late_reply_to_a_freed_slot_is_nobodys() {
    let pending = Pending::new();
    let first = pending.enter().expect("open");
    let late = first.id();
    drop(first);
    pending.complete(late, Err(CallError::Lost));
    let mut second = pending.enter().expect("open");
    assert_eq!(second.id() % CALLS as u64, late % CALLS as u64, "the same slot");
    pending.complete(late, Err(CallError::Lost));
    assert!(look(&mut second).is_pending());
    pending.complete(second.id(), Err(CallError::NotSent("once".into())));
    pending.complete(second.id(), Err(CallError::Lost));
    assert_eq!(look(&mut second), Poll::Ready(Some(Err(CallError::NotSent("once".into())))), "the first reply counts");
    pending.complete(u64::MAX, Err(CallError::Lost));
    assert_eq!(held(&pending), 0);
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_ends_each_wait_at_its_own_deadline() {
    let pending = Pending::new();
    let start = Instant::now();
    // Shorter ones come after longer ones, and some are answered.
    let waits = [30_000, 1_500, 700, 1_500, 1_505, 3, 0].map(Duration::from_millis).map(|after| {
        let waiting = pending.enter().expect("open");
        async move {
            let ended = by(waiting, start + after).await;
            (ended, after, start.elapsed())
        }
    });
    let answered = pending.enter().expect("open");
    let id = answered.id();
    let answering = async {
        tokio::time::sleep(SECOND).await;
        pending.complete(id, Err(CallError::Lost));
    };
    let all = futures_util::future::join_all(waits);
    let (ended, answer, ()) = tokio::join!(all, by(answered, start + 2 * SECOND), answering);
    assert_eq!(answer, Some(Err(CallError::Lost)));
    for (ended, after, took) in ended {
        assert_eq!(ended, None);
        let late = took.checked_sub(after).expect("not before its deadline");
        assert!(late <= GRAIN + Duration::from_millis(2), "promise 5: {late:?} after {after:?}");
    }
    assert_eq!(held(&pending), 0);
    tokio::time::sleep(SECOND).await;
    assert!(!pending.lock().watched, "nothing has a deadline, so nobody watches");
    assert_eq!(by(pending.enter().expect("open"), Instant::now() + SECOND).await, None, "and somebody does again");
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_is_dropped_leaves_no_deadline() {
    let pending = Pending::new();
    let waiting = pending.enter().expect("open");
    let id = waiting.id();
    let dropped = tokio::time::timeout(SECOND, by(waiting, Instant::now() + 5 * SECOND)).await;
    assert!(dropped.is_err());
    assert_eq!(held(&pending), 0);
    pending.complete(id, Err(CallError::Lost));
    tokio::time::sleep(5 * SECOND).await;
    assert!(!pending.lock().watched);
}

#[test]
fn deadlines_outlive_the_runtime_that_watches_them() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let (first, second) = (runtime(), runtime());
    let pending = Pending::new();
    let until = Instant::now() + Duration::from_millis(300);
    let mut early = pending.enter().expect("open");
    first.block_on(poll_fn(|context| Poll::Ready(early.poll(context, Some(until)).is_pending())));
    assert!(pending.lock().watched);
    let waiting = pending.enter().expect("open");
    let ended = std::thread::spawn(move || second.block_on(by(waiting, until)));
    std::thread::sleep(Duration::from_millis(50));
    drop(first);
    assert_eq!(ended.join().expect("it ends"), None);
}
