//! Services: instances, registered for as long as a session lives, found by whoever asks.
//!
//! An instance goes with a session of its caller's (`sessionId`), or has a `ttl` of its own. For the second the gateway
//! opens a session for that instance alone, which the instance's heartbeats keep alive and which is closed with it: so
//! there is one kind of deadline, and a heartbeat costs what a session's sign of life does.
//!
//! `PUT` says all of an instance and may be repeated at will: what is known already changes nothing, and a session of
//! its own that is alive and of the same `ttl` is kept. The last to register an id has it.

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use wardlock_machine::{
    Answer, Command, Deregistered, EndReason, Health, Holder, InstanceSpec, InstanceView, Key, Metadata, Millis, Name,
    Outcome, Query, Register, Registered, Revision, SessionId, What, limits,
};
use wardlock_wire::KeptAlive;

use super::{
    Gateway,
    backend::Backend,
    call::Call,
    config::flag,
    input::{self, Fields},
    openapi::shapes,
    outcome,
    problem::Problem,
    render::{Rfc3339, Seconds, Text},
    reply::Reply,
};
use crate::client::WatchToken;

pub(super) mod spec;

/// How long the closing of a session that nobody needs any more is tried; it runs out by itself anyway.
const CLOSING: Duration = Duration::from_secs(2);

impl<B: Backend> Gateway<B> {
    pub(super) async fn services(&self, call: Call<'_>) -> Result<Reply, Problem> {
        let mut params = call.params()?;
        let prefix = params.take("prefix")?.unwrap_or_default();
        let after = params.take("after")?;
        let limit = params.limit()?;
        let consistency = params.consistency()?;
        params.finish()?;
        let query = Query::Services { prefix, after, limit };
        let (answer, age, token) = self.ask_list(query, consistency, call.patience).await?;
        let Answer::Services(found) = answer else { return Err(other()) };
        let next = (found.len() >= limit as usize).then(|| found.last().map(|last| &last.service)).flatten();
        let services =
            found.iter().map(|of| ServiceDoc { service: &of.service, total: of.total, healthy: of.healthy }).collect();
        age.on(Reply::ok(&ServiceList { services, next, token }))
    }

    pub(super) async fn service(&self, service: Name, call: Call<'_>) -> Result<Reply, Problem> {
        let mut params = call.params()?;
        let healthy = flag(&mut params, "healthy")?;
        let tag = params.take_long("tag", limits::LABEL_BYTES)?;
        if tag.as_ref().is_some_and(String::is_empty) {
            return Err(Problem::field("tag", "tag must not be empty: no instance has such a tag"));
        }
        let after = params.take("after")?;
        let limit = params.limit()?;
        let consistency = params.consistency()?;
        params.finish()?;
        let query = Query::Service { key: Key::service(service.clone()), healthy, tag, after, limit };
        let (answer, age, token) = self.ask_list(query, consistency, call.patience).await?;
        let Answer::Service(page) = answer else { return Err(other()) };
        let next = page.instances.last().filter(|_| page.more).map(|last| &last.instance);
        age.on(Reply::ok(&Page {
            service: ServiceDoc { service: &service, total: page.total, healthy: page.healthy },
            instances: page.instances.iter().map(|view| InstanceDoc::new(&service, view)).collect(),
            next,
            revision: page.revision,
            token,
        }))
    }

    pub(super) async fn instance(&self, service: Name, id: Name, call: Call<'_>) -> Result<Reply, Problem> {
        let mut params = call.params()?;
        let consistency = params.consistency()?;
        params.finish()?;
        let query = Query::Instance { key: Key::service(service.clone()), instance: id };
        let (answer, age) = self.ask(query, consistency, call.patience).await?;
        let Answer::Instance(found) = answer else { return Err(other()) };
        age.on(match found {
            Some(view) => Reply::ok(&InstanceDoc::new(&service, &view)),
            None => Err(missing()),
        })
    }

    async fn look(&self, service: &Name, id: &Name, call: &Call<'_>) -> Result<Option<InstanceView>, Problem> {
        let query = Query::Instance { key: Key::service(service.clone()), instance: id.clone() };
        match self.backend().read(query, call.patience).await? {
            Answer::Instance(found) => Ok(found),
            _ => Err(other()),
        }
    }

    pub(super) async fn put_instance(&self, service: Name, id: Name, mut call: Call<'_>) -> Result<Reply, Problem> {
        call.params()?.finish()?;
        let fields = &mut call.fields;
        let spec = spec(fields)?;
        let health = health(fields)?.unwrap_or_default();
        let session = fields.session_if_any()?;
        let ttl = fields.seconds("ttl", limits::SESSION_TTL_MIN, limits::SESSION_TTL_MAX)?;
        std::mem::take(fields).finish()?;
        check_id(&id)?;
        let key = Key::service(service);
        let about = [key.name.as_str().as_bytes(), id.as_str().as_bytes()];
        let request = call.keyed("put-instance", &about).unwrap_or_else(|| self.backend().random_key());
        let ask = |session, private| {
            let (key, instance, spec) = (key.clone(), id.clone(), spec.clone());
            Command::Register(Register { request, key, instance, session, private, spec, health })
        };
        let (session, done) = match (session, ttl) {
            (Some(session), None) => match self.backend().write(ask(session, false), call.patience).await? {
                Outcome::Registered(done) => (session, done),
                other => return Err(outcome::refusal(other)),
            },
            (None, Some(ttl)) => self.register_for(ttl, &key.name, &id, &call, |session| ask(session, true)).await?,
            (None, None) => {
                let detail = "sessionId or ttl is needed: a session to go with, or a time to live of its own";
                return Err(Problem::invalid("missing-field", detail).with("field", "ttl"));
            }
            (Some(_), Some(_)) => return Err(Problem::field("ttl", "sessionId and ttl exclude each other")),
        };
        if let Some(replaced) = done.replaced {
            self.close(replaced).await;
        }
        let (private, registered, revision) = (ttl.is_some(), done.registered, done.revision);
        let view = InstanceView {
            instance: id,
            spec,
            session,
            private,
            ttl: ttl.unwrap_or_default(),
            health,
            registered,
            revision,
        };
        let instance = InstanceDoc { ttl: ttl.map(Seconds), ..InstanceDoc::new(&key.name, &view) };
        Reply::ok(&Done { success: true, instance })
    }

    /// Registers an instance with a session of its own: the one that it has, if that is alive and of this TTL, or a
    /// new one.
    async fn register_for(
        &self,
        ttl: Millis,
        service: &Name,
        id: &Name,
        call: &Call<'_>,
        ask: impl Fn(SessionId) -> Command,
    ) -> Result<(SessionId, Registered), Problem> {
        let present = self.look(service, id, call).await?.filter(|present| present.private && present.ttl == ttl);
        if let Some(InstanceView { session, .. }) = present
            && self.backend().keep_alive(session, call.patience).await? == KeptAlive::Alive
        {
            match self.backend().write(ask(session), call.patience).await? {
                Outcome::Registered(done) => return Ok((session, done)),
                // It was closed meanwhile, by whoever took the instance off.
                Outcome::NotAttached | Outcome::Closing | Outcome::Ended | Outcome::UnknownSession => {}
                other => return Err(outcome::refusal(other)),
            }
        }
        let session = self.open_for(ttl, service, id, call).await?;
        // Where the answer is lost it may be registered with it: a repeat learns whether, and else the session runs out.
        match self.backend().write(ask(session), call.patience).await? {
            Outcome::Registered(done) => Ok((session, done)),
            other => {
                self.close(session).await;
                Err(outcome::refusal(other))
            }
        }
    }

    async fn open_for(&self, ttl: Millis, service: &Name, id: &Name, call: &Call<'_>) -> Result<SessionId, Problem> {
        let fresh = self.backend().new_session_id();
        // With a key, the retry must come to the same session: its id is made of the key.
        let about = [service.as_str().as_bytes(), id.as_str().as_bytes()];
        let session = match call.keyed("instance-session", &about) {
            Some(key) => SessionId::new(fresh.incarnation(), key),
            None => fresh,
        };
        let holder = Holder { client_id: client_id(service, id), ttl, metadata: about_instance(service, id) };
        match self.backend().write(Command::OpenSession { session, holder }, call.patience).await? {
            Outcome::Opened { .. } => Ok(session),
            other => Err(outcome::refusal(other)),
        }
    }

    /// Closes a session of an instance's own. Where that fails it runs out.
    async fn close(&self, session: SessionId) {
        if let Err(error) = self.backend().write(Command::CloseSession { session }, CLOSING).await {
            tracing::debug!(%session, %error, "an instance's session is left to run out");
        }
    }

    /// An instance's sign of life. How it fares is logged only where it is new.
    pub(super) async fn heartbeat(&self, service: Name, id: Name, mut call: Call<'_>) -> Result<Reply, Problem> {
        let reported = health(&mut call.fields)?;
        std::mem::take(&mut call.fields).finish()?;
        let Some(view) = self.look(&service, &id, &call).await? else { return Err(missing()) };
        if !view.private {
            let detail = "it goes with its session: keep that alive, and say by PUT how the instance fares";
            let problem = Problem::conflict("session-bound", "The instance has no time to live of its own", detail);
            return Err(problem.with("sessionId", view.session.to_string()));
        }
        if self.backend().keep_alive(view.session, call.patience).await? != KeptAlive::Alive {
            return Err(Problem::gone(
                "instance-ended",
                "The instance has ended",
                "its time ran out: register it anew",
            ));
        }
        let (mut health, mut revision) = (view.health, view.revision);
        if let Some(new) = reported.filter(|new| *new != health) {
            let about = [service.as_str().as_bytes(), id.as_str().as_bytes(), new.name().as_bytes()];
            let request = call.keyed("heartbeat", &about).unwrap_or_else(|| self.backend().random_key());
            let (key, instance, session) = (Key::service(service.clone()), id.clone(), view.session);
            let report = Command::ReportHealth { request, key, instance, session, health: new };
            match self.backend().write(report, call.patience).await? {
                Outcome::HealthReported { revision: at } => (health, revision) = (new, at),
                other => return Err(outcome::refusal(other)),
            }
        }
        Reply::ok(&Beat {
            success: true,
            service: &service,
            instance_id: &id,
            session_id: Text(view.session),
            ttl: Seconds(view.ttl),
            health: health.name(),
            revision,
        })
    }

    pub(super) async fn delete_instance(&self, service: Name, id: Name, call: Call<'_>) -> Result<Reply, Problem> {
        let mut params = call.params()?;
        let session = params.take("sessionId")?.map(|text| text.parse::<SessionId>()).transpose();
        let session = session.map_err(|e| Problem::field("sessionId", format!("sessionId: {e}")))?;
        params.finish()?;
        check_id(&id)?;
        let about = [service.as_str().as_bytes(), id.as_str().as_bytes()];
        let request = call.keyed("delete-instance", &about).unwrap_or_else(|| self.backend().random_key());
        let (key, instance) = (Key::service(service.clone()), id.clone());
        match self.backend().write(Command::Deregister { request, key, instance, session }, call.patience).await? {
            Outcome::Deregistered(Deregistered { revision, private }) => {
                if let Some(private) = private {
                    self.close(private).await;
                }
                Reply::ok(&Gone { success: true, service: &service, instance_id: &id, revision })
            }
            other => Err(outcome::refusal(other)),
        }
    }
}

fn other() -> Problem {
    Problem::internal("the cluster answered another question")
}

fn missing() -> Problem {
    outcome::refusal(Outcome::NoInstance)
}

/// How an instance's own session calls itself: `service/instance`, as far as there is room.
fn client_id(service: &Name, id: &Name) -> String {
    let mut text = format!("{service}/{id}");
    let end = (0..=limits::LABEL_BYTES).rev().find(|at| text.is_char_boundary(*at));
    text.truncate(end.unwrap_or_default());
    text
}

/// What the metadata of an instance's own session say.
fn about_instance(service: &Name, id: &Name) -> Metadata {
    [("opened-for", "instance"), ("service", service.as_str()), ("instance", id.as_str())]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}

fn check_id(id: &Name) -> Result<(), Problem> {
    let (most, is) = (limits::LABEL_BYTES, id.as_str().len());
    if is <= most {
        return Ok(());
    }
    Err(Problem::invalid("invalid-name", format!("an instance's id has at most {most} bytes, not {is}")))
}

fn health(fields: &mut Fields) -> Result<Option<Health>, Problem> {
    let Some(text) = fields.text("health")? else { return Ok(None) };
    let known = Health::ALL.into_iter().find(|health| health.name() == text);
    let detail = "health must be \"passing\", \"warning\" or \"critical\"";
    known.map(Some).ok_or_else(|| Problem::field("health", detail))
}

/// What an instance says of itself.
fn spec(fields: &mut Fields) -> Result<InstanceSpec, Problem> {
    let address = fields.text("address")?.ok_or_else(|| input::missing("address"))?;
    if !InstanceSpec::is_address(&address) {
        let detail = "address must be a host name or an IP address, without a port";
        return Err(Problem::field("address", detail));
    }
    let port = fields.integer("port", 1, u16::MAX.into())?.ok_or_else(|| input::missing("port"))?;
    let weight = fields.integer("weight", 0, u16::MAX.into())?.unwrap_or(1);
    Ok(InstanceSpec {
        address,
        port: port as u16,
        tags: tags(fields)?,
        weight: weight as u16,
        metadata: fields.metadata()?,
    })
}

/// In order, each once.
fn tags(fields: &mut Fields) -> Result<Vec<String>, Problem> {
    let mut tags = Vec::new();
    for tag in fields.list_if_any("tags", limits::TAGS)?.unwrap_or_default() {
        match tag {
            Value::String(tag) if (1..=limits::LABEL_BYTES).contains(&tag.len()) => tags.push(tag),
            _ => {
                let detail = format!("tags: each must be a string of 1 to {} bytes", limits::LABEL_BYTES);
                return Err(Problem::field("tags", detail));
            }
        }
    }
    tags.sort_unstable();
    tags.dedup();
    Ok(tags)
}

/// A service and how many instances it has.
#[derive(Serialize, ToSchema)]
#[schema(as = Service)]
pub(super) struct ServiceDoc<'a> {
    #[schema(value_type = shapes::Name)]
    pub(super) service: &'a Name,
    pub(super) total: u32,
    /// Those that are not critical.
    pub(super) healthy: u32,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Services)]
struct ServiceList<'a> {
    services: Vec<ServiceDoc<'a>>,
    /// Where the next page starts: ask again with `after` this. Null on the last page.
    #[schema(required, value_type = Option<shapes::Name>)]
    next: Option<&'a Name>,
    /// From where to watch so as to miss nothing that happens behind this page. Absent where the page is stale.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = shapes::WatchToken)]
    token: Option<Text<WatchToken>>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = ServicePage)]
struct Page<'a> {
    #[serde(flatten)]
    service: ServiceDoc<'a>,
    instances: Vec<InstanceDoc<'a>>,
    /// Where the next page starts: ask again with `after` this. Null on the last page.
    #[schema(required, value_type = Option<shapes::InstanceId>)]
    next: Option<&'a Name>,
    #[schema(value_type = shapes::Revision)]
    revision: Revision,
    /// From where to watch so as to miss nothing that happens behind this page. Absent where the page is stale.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = shapes::WatchToken)]
    token: Option<Text<WatchToken>>,
}

/// An instance.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Instance)]
pub(super) struct InstanceDoc<'a> {
    #[schema(value_type = shapes::Name)]
    service: &'a Name,
    #[schema(value_type = shapes::InstanceId)]
    instance_id: &'a Name,
    #[schema(value_type = shapes::Address)]
    address: &'a str,
    #[schema(value_type = shapes::Port)]
    port: u16,
    #[schema(value_type = shapes::Tags)]
    tags: &'a [String],
    #[schema(value_type = shapes::Weight)]
    weight: u16,
    #[schema(value_type = shapes::Metadata)]
    metadata: &'a Metadata,
    #[schema(value_type = shapes::InstanceHealth)]
    health: &'static str,
    #[schema(value_type = shapes::SessionId)]
    session_id: Text<SessionId>,
    /// What keeps it: a session of its client's, or its own time to live.
    #[schema(value_type = BoundTo)]
    bound_to: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<Seconds>,
    registered_at: Rfc3339,
    #[schema(value_type = shapes::Revision)]
    revision: Revision,
}

/// What keeps an instance.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(dead_code, reason = "a shape")]
enum BoundTo {
    /// A session of its client's.
    Session,
    /// Its own time to live.
    Ttl,
}

impl<'a> InstanceDoc<'a> {
    /// Of an instance of `service`.
    pub(super) fn new(service: &'a Name, view: &'a InstanceView) -> InstanceDoc<'a> {
        let InstanceSpec { address, port, tags, weight, metadata } = &view.spec;
        InstanceDoc {
            service,
            instance_id: &view.instance,
            address,
            port: *port,
            tags,
            weight: *weight,
            metadata,
            health: view.health.name(),
            session_id: Text(view.session),
            bound_to: if view.private { "ttl" } else { "session" },
            ttl: Some(Seconds(view.ttl)),
            registered_at: Rfc3339(view.registered),
            revision: view.revision,
        }
    }
}

/// The answer to a registration.
#[derive(Serialize, ToSchema)]
#[schema(as = Registered)]
struct Done<'a> {
    success: bool,
    #[serde(flatten)]
    instance: InstanceDoc<'a>,
}

/// The answer to a heartbeat.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Heartbeat)]
struct Beat<'a> {
    success: bool,
    #[schema(value_type = shapes::Name)]
    service: &'a Name,
    #[schema(value_type = shapes::InstanceId)]
    instance_id: &'a Name,
    #[schema(value_type = shapes::SessionId)]
    session_id: Text<SessionId>,
    ttl: Seconds,
    #[schema(value_type = shapes::InstanceHealth)]
    health: &'static str,
    #[schema(value_type = shapes::Revision)]
    revision: Revision,
}

/// The answer to a deregistration.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Deregistered)]
struct Gone<'a> {
    success: bool,
    #[schema(value_type = shapes::Name)]
    service: &'a Name,
    #[schema(value_type = shapes::InstanceId)]
    instance_id: &'a Name,
    #[schema(value_type = shapes::Revision)]
    revision: Revision,
}

/// What an event says of an instance.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EventInstance<'a> {
    instance_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tags: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    weight: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    health: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_id: Option<Text<SessionId>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

impl<'a> EventInstance<'a> {
    /// Of an event that is about one.
    pub(super) fn of(what: &'a What) -> Option<EventInstance<'a>> {
        let view = |instance: &'a Name| EventInstance {
            instance_id: instance.as_str(),
            address: None,
            port: None,
            tags: None,
            weight: None,
            health: None,
            session_id: None,
            reason: None,
        };
        match what {
            What::Registered { instance, session, address, port, tags, weight, health } => Some(EventInstance {
                address: Some(address),
                port: Some(*port),
                tags: Some(tags),
                weight: Some(*weight),
                health: Some(health.name()),
                session_id: Some(Text(*session)),
                ..view(instance)
            }),
            What::Deregistered { instance, reason } => {
                let reason = match reason {
                    EndReason::Released => "deregistered",
                    other => other.name(),
                };
                Some(EventInstance { reason: Some(reason), ..view(instance) })
            }
            What::Health { instance, health } => Some(EventInstance { health: Some(health.name()), ..view(instance) }),
            What::Granted { .. }
            | What::Ended { .. }
            | What::Configured { .. }
            | What::Proclaimed { .. }
            | What::Enrolled { .. } => None,
        }
    }
}
