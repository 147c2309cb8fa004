//! Services: instances that are registered for as long as a session lives, and found by whoever asks.
//!
//! ```no_run
//! # async fn example(client: wardlock_router::Client) -> Result<(), Box<dyn std::error::Error>> {
//! let session = client.session("web-1").open().await?;
//! let registration = session.register("web", "web-1").address("10.0.0.7").port(8080).tag("eu").open().await?;
//! for instance in client.service("web").healthy().tag("eu").list().await? {
//!     println!("{} at {}:{}", instance.instance, instance.spec.address, instance.spec.port);
//! }
//! registration.deregister().await?;
//! # Ok(())
//! # }
//! ```

use std::{borrow::Cow, fmt, time::Duration};

use wardlock_machine::*;

use super::{Client, Session, SessionState, janitor::Chore, unexpected_answer};
use crate::{Error, random};

/// How long a call may take, where its caller does not say.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why an instance is not registered, or could not be changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// A text is no name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A bound is reached, or a field is outside its bounds.
    #[error("refused: a bound is reached: {0:?}")]
    Limit(Limit),
    /// The session has ended, or may have.
    #[error("the session is lost")]
    SessionLost,
    /// Nothing happened: it is not registered, or by another session meanwhile.
    #[error("the instance is not this session's any more")]
    Taken,
    /// The call failed; the error says whether anything may have happened.
    #[error(transparent)]
    Call(#[from] Error),
}

/// An instance to be registered.
#[derive(Clone, Debug)]
#[must_use = "an instance is registered by `open`"]
pub struct Registering<'a> {
    session: &'a Session,
    service: Cow<'a, str>,
    instance: Cow<'a, str>,
    spec: InstanceSpec,
    health: Health,
}

impl Session {
    /// The instance `instance` of `service`, to be registered for as long as this session lives. Whoever registers an
    /// id last has it.
    pub fn register<'a>(
        &'a self,
        service: impl Into<Cow<'a, str>>,
        instance: impl Into<Cow<'a, str>>,
    ) -> Registering<'a> {
        let (address, metadata) = (String::new(), Metadata::new());
        let spec = InstanceSpec { address, port: 0, tags: Vec::new(), weight: 1, metadata };
        let (service, instance) = (service.into(), instance.into());
        Registering { session: self, service, instance, spec, health: Health::Passing }
    }
}

impl Registering<'_> {
    /// Where it is: a host name or an IP address. Needed.
    pub fn address(mut self, address: impl Into<String>) -> Self {
        self.spec.address = address.into();
        self
    }

    /// On which port. Needed.
    pub fn port(mut self, port: u16) -> Self {
        self.spec.port = port;
        self
    }

    /// Adds a tag by which it can be chosen.
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        let tag = tag.into();
        if let Err(index) = self.spec.tags.binary_search(&tag) {
            self.spec.tags.insert(index, tag);
        }
        self
    }

    /// Its share of what is sampled, beside the others'; 1 without this. 0: only where nothing else is left.
    pub fn weight(mut self, weight: u16) -> Self {
        self.spec.weight = weight;
        self
    }

    /// Adds an entry that is shown to whoever looks.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.spec.metadata.insert(key.into(), value.into());
        self
    }

    /// How it fares; [`Health::Passing`] without this.
    pub fn health(mut self, health: Health) -> Self {
        self.health = health;
        self
    }

    /// Registers it.
    pub async fn open(self) -> Result<Registration, RegisterError> {
        let Registering { session, service, instance, spec, health } = self;
        let (key, instance) = (Key::service(Name::new(&service)?), Name::new(&instance)?);
        if session.state() == SessionState::Lost {
            return Err(RegisterError::SessionLost);
        }
        let ask = Register {
            request: random::any(),
            key: key.clone(),
            instance: instance.clone(),
            session: session.id(),
            private: false,
            spec,
            health,
        };
        // From here on a drop takes it off, also where the answer is lost or this future is dropped.
        let nothing = Registered { revision: Revision(0), registered: WallMs(0), replaced: None };
        let mut registration =
            Registration { session: session.clone(), key, instance, registered: nothing, is_there: true };
        let outcome = tokio::select! {
            biased;
            () = session.vital().lost().cancelled() => Err(RegisterError::SessionLost),
            outcome = session.client().write(Command::Register(ask), PATIENCE) => outcome.map_err(Into::into),
        };
        match outcome {
            Ok(Outcome::Registered(done)) => {
                registration.registered = done;
                Ok(registration)
            }
            Err(error @ (RegisterError::SessionLost | RegisterError::Call(Error::OutcomeUnknown))) => Err(error),
            Err(error) => {
                registration.is_there = false;
                Err(error)
            }
            Ok(other) => {
                registration.is_there = false;
                Err(session.not_registered(other))
            }
        }
    }
}

impl Session {
    fn not_registered(&self, outcome: Outcome) -> RegisterError {
        match outcome {
            Outcome::Limit(limit) => RegisterError::Limit(limit),
            Outcome::NoInstance | Outcome::ForeignInstance => RegisterError::Taken,
            // A shard heard so from the session's home.
            Outcome::Closing | Outcome::Ended | Outcome::UnknownSession => {
                self.vital().lose();
                RegisterError::SessionLost
            }
            Outcome::NotAttached | Outcome::Pending { .. } => {
                RegisterError::Call(Error::unavailable("the session's home could not be asked"))
            }
            other => RegisterError::Call(Error::Malformed(format!("the request came to {other:?}"))),
        }
    }
}

/// An instance that is registered. Dropping it takes it off in the background.
#[must_use = "a registration that is dropped takes its instance off"]
pub struct Registration {
    session: Session,
    key: Key,
    instance: Name,
    registered: Registered,
    /// A drop has something to take off.
    is_there: bool,
}

impl Registration {
    /// The service.
    pub fn service(&self) -> &str {
        self.key.name.as_str()
    }

    /// The instance's id.
    pub fn instance(&self) -> &str {
        self.instance.as_str()
    }

    /// When it was registered, and at which revision of its shard.
    pub fn registered(&self) -> Registered {
        self.registered
    }

    /// The session with which it goes.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Says how it fares. What is known already is not logged again.
    pub async fn report(&self, health: Health) -> Result<(), RegisterError> {
        let (request, session) = (random::any(), self.session.id());
        let (key, instance) = (self.key.clone(), self.instance.clone());
        let report = Command::ReportHealth { request, key, instance, session, health };
        match self.session.client().write(report, PATIENCE).await? {
            Outcome::HealthReported { .. } => Ok(()),
            other => Err(self.session.not_registered(other)),
        }
    }

    /// Takes it off, if it is still this session's.
    pub async fn deregister(mut self) -> Result<(), RegisterError> {
        let outcome = self.session.client().write(self.off(), PATIENCE).await?;
        self.is_there = false;
        match outcome {
            Outcome::Deregistered(_) => Ok(()),
            other => Err(self.session.not_registered(other)),
        }
    }

    fn off(&self) -> Command {
        let (request, session) = (random::any(), Some(self.session.id()));
        Command::Deregister { request, key: self.key.clone(), instance: self.instance.clone(), session }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if self.is_there {
            self.session.leave(Chore::Write { command: Box::new(self.off()) });
        }
    }
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Registration({:?} of {:?})", self.instance(), self.service())
    }
}

/// A service, to be looked at.
#[derive(Clone, Debug)]
#[must_use = "a service does nothing until it is looked at"]
pub struct Service<'a> {
    pub(super) client: &'a Client,
    pub(super) service: Cow<'a, str>,
    pub(super) healthy: bool,
    pub(super) tag: Option<String>,
    pub(super) patience: Duration,
}

impl Client {
    /// The service called `service`.
    pub fn service<'a>(&'a self, service: impl Into<Cow<'a, str>>) -> Service<'a> {
        Service { client: self, service: service.into(), healthy: false, tag: None, patience: PATIENCE }
    }
}

impl Service<'_> {
    /// Only healthy instances: those that are not critical.
    pub fn healthy(mut self) -> Self {
        self.healthy = true;
        self
    }

    /// Only instances with this tag.
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tag = Some(tag.into());
        self
    }

    /// How long a call may take; 5 seconds where this is not said.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Its instances, in the order of their ids. Of a service that nobody registered there are none.
    pub async fn list(&self) -> Result<Vec<InstanceView>, Error> {
        Ok(self.pages().await?.0)
    }

    /// A page of them: at most `limit`, after `after`.
    pub async fn page(&self, after: Option<&str>, limit: u32) -> Result<ServicePage, Error> {
        let (healthy, tag) = (self.healthy, self.tag.clone());
        let query = Query::Service { key: self.key()?, healthy, tag, after: after.map(str::to_owned), limit };
        match self.client.read(query, self.patience).await? {
            Answer::Service(page) => Ok(page),
            other => Err(unexpected_answer(other)),
        }
    }

    /// One of them, whatever it is and how it fares.
    pub async fn instance(&self, instance: &str) -> Result<Option<InstanceView>, Error> {
        let instance = Name::new(instance).map_err(|error| Error::Malformed(error.to_string()))?;
        match self.client.read(Query::Instance { key: self.key()?, instance }, self.patience).await? {
            Answer::Instance(found) => Ok(found),
            other => Err(unexpected_answer(other)),
        }
    }

    /// At most `count` healthy instances, drawn by weight, whatever their tags; [`limits::SAMPLE`] at the most.
    pub async fn sample(&self, count: usize) -> Result<Vec<InstanceView>, Error> {
        let (count, seed) = (count.min(limits::SAMPLE) as u32, random::any::<u64>());
        match self.client.read(Query::Sample { key: self.key()?, count, seed }, self.patience).await? {
            Answer::Sample(drawn) => Ok(drawn),
            other => Err(unexpected_answer(other)),
        }
    }

    /// All of them, page by page, and up to which revision no page has missed anything.
    pub(super) async fn pages(&self) -> Result<(Vec<InstanceView>, Revision), Error> {
        let page = self.page(None, limits::PAGE as u32).await?;
        let (mut all, mut more, revision) = (page.instances, page.more, page.revision);
        while let (true, Some(last)) = (more, all.last()) {
            let next = self.page(Some(last.instance.as_str()), limits::PAGE as u32).await?;
            more = next.more && !next.instances.is_empty();
            all.extend(next.instances);
        }
        Ok((all, revision))
    }

    fn key(&self) -> Result<Key, Error> {
        Name::new(&self.service).map(Key::service).map_err(|error| Error::Malformed(error.to_string()))
    }
}
