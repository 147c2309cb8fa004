//! A history as people read it.

use std::fmt::Write;

use super::{History, Object, Session, What};

/// The most operations that are shown.
const LINES: usize = 40;

/// These operations cannot all have been answered so.
pub(super) fn text<W: Object>(history: &History<W>) -> String {
    let mut text = format!("{} {}: no order of these operations is possible\n", W::KIND, history.name);
    for op in history.ops.iter().take(LINES) {
        let returned = match op.returned {
            Some(at) => format!("{:>12.6}", at.as_secs_f64()),
            None => format!("{:>12}", "…"),
        };
        let invoked = op.invoked.as_secs_f64();
        let _ = writeln!(
            text,
            "  {invoked:>12.6} to {returned} s  session {}  {}",
            name(op.session),
            op.what.words(op.returned.is_some())
        );
    }
    if history.ops.len() > LINES {
        let _ = writeln!(text, "  and {} more", history.ops.len() - LINES);
    }
    let mut sessions: Vec<Session> = history.ops.iter().map(|op| op.session).collect();
    sessions.sort_unstable();
    sessions.dedup();
    for session in sessions.into_iter().take(LINES) {
        if let Some(until) = history.sessions.get(&session) {
            let _ = writeln!(text, "  session {} cannot end before {:.6} s", name(session), until.as_secs_f64());
        }
    }
    text
}

/// Enough of a session's id to tell it from others.
fn name(session: Session) -> String {
    format!("{:08x}", session as u32)
}

/// What a lock was asked and answered.
pub(super) fn of_lock(what: &What, known: bool) -> String {
    let lease = |lease: &Option<std::time::Duration>| lease.map_or_else(String::new, |lease| format!(" for {lease:?}"));
    let known = if known { "" } else { " (perhaps)" };
    match what {
        What::Granted { token, lease: own } => format!("acquire: granted token {token}{}{known}", lease(own)),
        What::Asked => "acquire: outcome unknown".to_owned(),
        What::Refused { by: Some(token) } => format!("acquire: refused, token {token} holds it"),
        What::Refused { by: None } => "acquire: refused, others hold it".to_owned(),
        What::Holds { token } => format!("acquire: already held, token {token}"),
        What::Renewed { token, lease: own } => format!("renew token {token}: done{}", lease(own)),
        What::Released { token } => format!("release token {token}: done{known}"),
        What::Lost { token } => format!("renew or release token {token}: no longer held"),
        What::Read { held: Some((session, token)) } => format!("read: session {} by token {token}", name(*session)),
        What::Read { held: None } => "read: nobody".to_owned(),
    }
}
