//! Webhooks: what happens, told to a URL.
//!
//! `POST /webhooks` says what by the names of `/watch`'s parameters (`lock`, `election`, `config`, `service`, `prefix`
//! with `kind`), each a text or a list, and from where on by `since`, a watch's token; without one from now on. It answers the
//! webhook's `secret`, once: by it the target knows a delivery (see [`webhook`](crate::webhook)). With an
//! `Idempotency-Key` the secret is the caller's to give, so that a repeat is answered the same one.
//!
//! Whether a target is allowed is for those to say who deliver, the nodes. A gateway that knows of none refuses all:
//! webhooks are off where nobody has allowed them.

use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;
use wardlock_machine::{
    Answer, Command, Cursor, DeadLetter, HookView, Key, Name, Outcome, Pattern, Query, Secret, SetHook, SettleDead,
    WallMs, limits,
};
use wardlock_placement::GroupId;

use super::{
    Gateway,
    backend::Backend,
    call::{Call, Params},
    documents,
    input::missing,
    openapi::shapes,
    outcome,
    path::PREFIX,
    problem::Problem,
    render::{Rfc3339, SUCCESS, Text},
    reply::Reply,
    watch::{self, Events},
};
use crate::{
    client::{WatchToken, Watched},
    webhook::Refused,
};

pub(super) mod spec;

/// What says which events are meant.
const WATCHED: [&str; 6] = ["lock", "election", "config", "service", "kind", "prefix"];

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Problem {
        let detail = refused.to_string();
        match refused {
            Refused::Off => {
                let title = "Webhooks are off here";
                Problem::new(StatusCode::FORBIDDEN, "webhooks-off", title, detail)
            }
            Refused::NotAllowed(_) => {
                let title = "The target is not allowed";
                Problem::new(StatusCode::FORBIDDEN, "target-not-allowed", title, detail)
            }
            Refused::Malformed(_) => Problem::field("url", format!("url: {detail}")),
        }
    }
}

impl<B: Backend> Gateway<B> {
    pub(super) async fn add_webhook(&self, mut call: Call<'_>) -> Result<Reply, Problem> {
        let fields = &mut call.fields;
        let url = fields.text("url")?.ok_or_else(|| missing("url"))?;
        let given = fields.text("secret")?;
        let since = fields.text("since")?;
        let mut params = Params::of(fields, &WATCHED)?;
        std::mem::take(fields).finish()?;
        let patterns = watch::patterns(&mut params)?;
        params.finish()?;
        self.targets().check(&url)?;
        let secret = match given {
            Some(secret) => {
                let (min, max) = (limits::HOOK_SECRET_BYTES_MIN, limits::HOOK_SECRET_BYTES);
                if !(min..=max).contains(&secret.len()) {
                    return Err(Problem::field("secret", format!("secret has {min} to {max} bytes")));
                }
                secret
            }
            None if call.has_key() => {
                let detail = "with an Idempotency-Key give the secret: a repeat could not be answered the same one";
                return Err(Problem::invalid("missing-field", detail).with("field", "secret"));
            }
            None => format!("{:032x}{:032x}", self.backend().random_key(), self.backend().random_key()),
        };
        let since = since.map(|text| match text.len() <= watch::TOKEN_BYTES {
            true => watch::token("since", &text),
            false => Err(Problem::field("since", "since is longer than any token")),
        });
        // By a watch that is opened: so its patterns and its token are known to be good, and where now is.
        let mut opened = self.backend().watch(patterns.clone(), since.transpose()?, call.patience).await?;
        let cursor = Cursor::from(&opened.token());
        drop(opened);
        let request = call.keyed("add-webhook", &[]).unwrap_or_else(|| self.backend().random_key());
        let id = format!("{request:032x}");
        let name = Name::new(&id).map_err(|error| Problem::internal(error.to_string()))?;
        let key = Key::hook(name.clone());
        let ask = SetHook { request, key, url, patterns, secret: Secret::new(secret.clone()), cursor };
        let made = Command::SetHook(ask.clone());
        match self.backend().write(made, call.patience).await? {
            Outcome::HookChanged { .. } => {
                let made = Made { webhook_id: &name, url: &ask.url, patterns: views(&ask.patterns), secret: &secret };
                Ok(Reply::json(StatusCode::CREATED, &made)?.at(format!("{PREFIX}/webhooks/{id}")))
            }
            other => Err(outcome::refusal(other)),
        }
    }

    pub(super) async fn webhooks(&self, call: Call<'_>) -> Result<Reply, Problem> {
        let mut params = call.params()?;
        let after = params.take("after")?;
        let limit = params.limit()?.min(limits::HOOK_PAGE as u32);
        params.finish()?;
        let Answer::Hooks(found) = self.backend().read(Query::Hooks { after, limit }, call.patience).await? else {
            return Err(other());
        };
        let next = (found.len() >= limit as usize).then(|| found.last().map(|last| &last.name)).flatten();
        Reply::ok(&Listing { webhooks: found.iter().map(HookDoc::from).collect(), next })
    }

    pub(super) async fn webhook(&self, id: Name, call: Call<'_>) -> Result<Reply, Problem> {
        call.params()?.finish()?;
        match self.backend().read(Query::Hook { key: Key::hook(id) }, call.patience).await? {
            Answer::Hook(Some(view)) => Reply::ok(&HookDoc::from(&view)),
            Answer::Hook(None) => Err(outcome::refusal(Outcome::NoHook)),
            _ => Err(other()),
        }
    }

    pub(super) async fn drop_webhook(&self, id: Name, call: Call<'_>) -> Result<Reply, Problem> {
        call.params()?.finish()?;
        let request = self.hook_request("drop-webhook", &id, &call);
        match self.backend().write(Command::DropHook { request, key: Key::hook(id) }, call.patience).await? {
            Outcome::HookChanged { .. } => Reply::ok(&SUCCESS),
            other => Err(outcome::refusal(other)),
        }
    }

    pub(super) async fn dead_letters(&self, id: Name, call: Call<'_>) -> Result<Reply, Problem> {
        call.params()?.finish()?;
        match self.backend().read(Query::DeadLetters { key: Key::hook(id) }, call.patience).await? {
            Answer::DeadLetters(Some(letters)) => {
                Reply::ok(&DeadLetters { dead_letters: letters.iter().map(LetterDoc::from).collect() })
            }
            Answer::DeadLetters(None) => Err(outcome::refusal(Outcome::NoHook)),
            _ => Err(other()),
        }
    }

    pub(super) async fn settle_dead(&self, id: Name, redeliver: bool, call: Call<'_>) -> Result<Reply, Problem> {
        call.params()?.finish()?;
        let op = if redeliver { "redrive" } else { "forget-dead" };
        let request = self.hook_request(op, &id, &call);
        call.fields.finish()?;
        let ask = SettleDead { request, key: Key::hook(id), redeliver };
        match self.backend().write(Command::SettleDead(ask), call.patience).await? {
            Outcome::HookChanged { letters, .. } => Reply::ok(&Settled { success: true, dead_letters: letters }),
            other => Err(outcome::refusal(other)),
        }
    }

    fn hook_request(&self, op: &str, id: &Name, call: &Call<'_>) -> u128 {
        call.keyed(op, &[id.as_str().as_bytes()]).unwrap_or_else(|| self.backend().random_key())
    }
}

fn other() -> Problem {
    Problem::internal("the cluster answered another question")
}

/// The answer to a new webhook: the only one that has its secret.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = NewWebhook)]
struct Made<'a> {
    #[schema(value_type = shapes::WebhookId)]
    webhook_id: &'a Name,
    #[schema(value_type = shapes::Url)]
    url: &'a str,
    patterns: Vec<PatternDoc<'a>>,
    #[schema(value_type = shapes::Secret)]
    secret: &'a str,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Webhooks)]
struct Listing<'a> {
    webhooks: Vec<HookDoc<'a>>,
    /// Where the next page starts: ask again with `after` this. Null on the last page.
    #[schema(required, value_type = Option<shapes::WebhookId>)]
    next: Option<&'a Name>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct DeadLetters {
    dead_letters: Vec<LetterDoc>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = SettledDeadLetters)]
struct Settled {
    success: bool,
    /// How many it was about.
    dead_letters: u32,
}

/// What a webhook is told.
#[derive(Serialize, ToSchema)]
#[schema(as = WebhookPattern)]
struct PatternDoc<'a> {
    #[schema(value_type = watch::spec::Kind)]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<shapes::Name>)]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<shapes::Prefix>)]
    prefix: Option<&'a str>,
}

fn views(patterns: &[Pattern]) -> Vec<PatternDoc<'_>> {
    fn view(pattern: &Pattern) -> PatternDoc<'_> {
        let name = Some(pattern.name.as_str());
        let kind = pattern.kind.name();
        match pattern.prefix {
            true => PatternDoc { kind, name: None, prefix: name },
            false => PatternDoc { kind, name, prefix: None },
        }
    }
    patterns.iter().map(view).collect()
}

/// A webhook, without its secret.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Webhook)]
pub(super) struct HookDoc<'a> {
    #[schema(value_type = shapes::WebhookId)]
    webhook_id: &'a Name,
    #[schema(value_type = shapes::Url)]
    url: &'a str,
    patterns: Vec<PatternDoc<'a>>,
    created_at: Rfc3339,
    /// `delivering`, or `failing` where the last attempt failed.
    #[schema(value_type = spec::Status)]
    status: &'static str,
    #[schema(required)]
    last_error: Option<&'a str>,
    #[schema(value_type = shapes::Count)]
    delivered: u64,
    #[schema(value_type = shapes::Count)]
    failed_attempts: u64,
    dead_letters: u32,
    /// Dead letters that are being delivered once more.
    redriven: u32,
    /// Dead letters that were not kept, for want of room.
    #[schema(value_type = shapes::Count)]
    lost_dead_letters: u64,
    /// Up to where everything is delivered or dead: a watch's token.
    #[schema(required, value_type = Option<shapes::WatchToken>)]
    token: Option<Text<WatchToken>>,
}

impl<'a> From<&'a HookView> for HookDoc<'a> {
    fn from(view: &'a HookView) -> HookDoc<'a> {
        HookDoc {
            webhook_id: &view.name,
            url: &view.url,
            patterns: views(&view.patterns),
            created_at: Rfc3339(view.created),
            status: if view.error.is_some() { "failing" } else { "delivering" },
            last_error: view.error.as_deref(),
            delivered: view.delivered,
            failed_attempts: view.failed,
            dead_letters: view.dead,
            redriven: view.again,
            lost_dead_letters: view.lost,
            token: (!view.cursor.positions.is_empty()).then(|| Text(WatchToken::from(&view.cursor))),
        }
    }
}

/// A dead letter.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = DeadLetter)]
pub(super) struct LetterDoc {
    delivery_id: String,
    attempts: u32,
    error: String,
    #[schema(required)]
    died_at: Option<Rfc3339>,
    /// As a watch tells it; or `{"event": "compacted"}`: some of what happened is no longer kept.
    #[schema(value_type = serde_json::Map<String, serde_json::Value>)]
    event: serde_json::Value,
}

impl From<&DeadLetter> for LetterDoc {
    fn from(letter: &DeadLetter) -> LetterDoc {
        LetterDoc {
            delivery_id: documents::delivery_id(letter),
            attempts: letter.attempts,
            error: letter.error.clone(),
            died_at: Some(letter.died).filter(|died| *died > WallMs(0)).map(Rfc3339),
            event: match &letter.event {
                Some(event) => {
                    documents::event(&Watched { shard: GroupId(letter.shard.0), event: event.clone().into() })
                }
                None => documents::gap(),
            },
        }
    }
}
