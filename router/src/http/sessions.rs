//! Sessions: open, keep alive, look, list, close.

use std::time::Duration;

use http::StatusCode;
use serde::Serialize;
use tokio::time::Instant;
use utoipa::ToSchema;
use wardlock_machine::{
    Answer, Command, Holder, Millis, Outcome, Query, SERIAL, SessionGone, SessionId, SessionView, limits,
};
use wardlock_wire::KeptAlive;

use super::{
    Gateway,
    backend::Backend,
    call::Call,
    consistency::{Age, Consistency},
    openapi::shapes,
    outcome,
    path::PREFIX,
    problem::Problem,
    render::{SUCCESS, SessionDoc, Text},
    reply::Reply,
};

pub(super) mod spec;

const TTL: Millis = Millis(10_000);
/// How long a close waits for the session's shards before it answers 202.
const CLOSE_WAIT: Duration = Duration::from_secs(5);
const CLOSE_POLL_MIN: Duration = Duration::from_millis(10);
const CLOSE_POLL_MAX: Duration = Duration::from_millis(50);

impl<B: Backend> Gateway<B> {
    pub(super) async fn open_session(&self, mut call: Call<'_>) -> Result<Reply, Problem> {
        let fields = &mut call.fields;
        let client_id = fields.label("clientId")?;
        let ttl = fields.seconds("ttl", limits::SESSION_TTL_MIN, limits::SESSION_TTL_MAX)?.unwrap_or(TTL);
        let mut metadata = fields.metadata()?;
        if fields.flag("serial")? == Some(true) {
            metadata.insert(SERIAL.to_owned(), "true".to_owned());
        }
        let fresh = self.backend().new_session_id();
        // With a key, the retry must come to the same session: its id is made of the key.
        let session = match call.keyed("open_session", &[client_id.as_bytes()]) {
            Some(key) => SessionId::new(fresh.incarnation(), key),
            None => fresh,
        };
        call.fields.finish()?;
        let holder = Holder { client_id: client_id.clone(), ttl, metadata: metadata.clone() };
        match self.backend().write(Command::OpenSession { session, holder }, call.patience).await? {
            Outcome::Opened { created } => {
                let view =
                    SessionView { session, client_id, ttl, created, metadata, shards: Vec::new(), closing: false };
                let reply = Reply::json(StatusCode::CREATED, &SessionDoc::new(&view, Some(created)))?;
                Ok(reply.at(format!("{PREFIX}/sessions/{session}")))
            }
            other => Err(outcome::refusal(other)),
        }
    }

    pub(super) async fn keep_alive(&self, session: SessionId, call: Call<'_>) -> Result<Reply, Problem> {
        call.fields.finish()?;
        match self.backend().keep_alive(session, call.patience).await? {
            KeptAlive::Alive => Reply::ok(&Kept { success: true, session_id: Text(session) }),
            KeptAlive::Ended => Err(Problem::session_ended()),
            KeptAlive::Unknown => Err(Problem::unknown_session()),
        }
    }

    pub(super) async fn session(&self, session: SessionId, call: Call<'_>) -> Result<Reply, Problem> {
        let mut params = call.params()?;
        let consistency = params.consistency()?;
        params.finish()?;
        let ((answer, heard), age) = match consistency {
            Consistency::Linearizable => (self.backend().session_view(session, call.patience).await?, Age::Current),
            // When it was last heard of is its home's leader's memory.
            stale => {
                let (answer, age) = self.ask(Query::Session { session }, stale, call.patience).await?;
                ((answer, None), age)
            }
        };
        age.on(match answer {
            Answer::Session(Ok(view)) => Reply::ok(&SessionDoc::new(&view, heard)),
            Answer::Session(Err(SessionGone::Ended)) => Err(Problem::session_ended()),
            Answer::Session(Err(SessionGone::Unknown)) => Err(Problem::unknown_session()),
            _ => Err(Problem::internal("the cluster answered another question")),
        })
    }

    pub(super) async fn sessions(&self, call: Call<'_>) -> Result<Reply, Problem> {
        let mut params = call.params()?;
        let after = params.take("after")?.map(|text| text.parse::<SessionId>()).transpose();
        let after = after.map_err(|e| Problem::field("after", format!("after: {e}")))?;
        let limit = params.limit()?;
        let consistency = params.consistency()?;
        params.finish()?;
        match self.ask(Query::Sessions { after, limit }, consistency, call.patience).await? {
            (Answer::Sessions(views), age) => {
                let next = (views.len() >= limit as usize).then(|| views.last().map(|v| Text(v.session))).flatten();
                let sessions = views.iter().map(|v| SessionDoc::new(v, None)).collect();
                age.on(Reply::ok(&Sessions { sessions, next }))
            }
            _ => Err(Problem::internal("the cluster answered another question")),
        }
    }

    /// Answers when every shard has released what the session held there; 202 where that takes too long.
    /// Closing what has ended is done already.
    pub(super) async fn close_session(&self, session: SessionId, call: Call<'_>) -> Result<Reply, Problem> {
        call.params()?.finish()?;
        match self.backend().write(Command::CloseSession { session }, call.patience).await? {
            Outcome::Closing => {}
            Outcome::Done | Outcome::Ended => return Reply::ok(&SUCCESS),
            other => return Err(outcome::refusal(other)),
        }
        let deadline = Instant::now() + CLOSE_WAIT;
        let mut pause = CLOSE_POLL_MIN;
        loop {
            let left = deadline.duration_since(Instant::now());
            if left.is_zero() {
                return Reply::json(StatusCode::ACCEPTED, &Accepted { success: true, state: "closing" });
            }
            // Trouble on the way is no answer: the session is closing, and the next look may tell.
            if let Ok((Answer::Session(Err(_)), _)) = self.backend().session_view(session, left).await {
                return Reply::ok(&SUCCESS);
            }
            tokio::time::sleep(pause.min(left)).await;
            pause = (pause * 2).min(CLOSE_POLL_MAX);
        }
    }
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Kept {
    success: bool,
    #[schema(value_type = shapes::SessionId)]
    session_id: Text<SessionId>,
}

#[derive(Serialize, ToSchema)]
struct Accepted {
    success: bool,
    state: &'static str,
}

#[derive(Serialize, ToSchema)]
struct Sessions<'a> {
    sessions: Vec<SessionDoc<'a>>,
    /// Where the next page starts: ask again with `after` this. Null on the last page.
    #[schema(required, value_type = Option<shapes::SessionId>)]
    next: Option<Text<SessionId>>,
}
