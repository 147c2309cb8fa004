//! The cluster as a directory: stale reads from any replica, of bounded age.

use wardlock_machine::{Answer, InstanceView, Key, Name, Query};

use super::{Directory, Found, INSTANCES, MAX_AGE, PATIENCE};
use crate::{Client, Error, random};

impl Directory for Client {
    async fn service(&self, service: Name) -> Result<Option<Vec<Found>>, Error> {
        let key = Key::service(service);
        // Another seed for each question: whoever takes the first of an answer takes each by its weight.
        let sample = Query::Sample { key: key.clone(), count: INSTANCES, seed: random::any() };
        let Answer::Sample(drawn) = self.look(sample).await? else { return Err(other()) };
        if !drawn.is_empty() {
            return Ok(Some(drawn.into_iter().map(Found::from).collect()));
        }
        let all = Query::Service { key, healthy: false, tag: None, after: None, limit: 1 };
        let Answer::Service(page) = self.look(all).await? else { return Err(other()) };
        Ok((page.total > 0).then(Vec::new))
    }

    async fn instance(&self, service: Name, instance: Name) -> Result<Option<Found>, Error> {
        let query = Query::Instance { key: Key::service(service), instance };
        let Answer::Instance(found) = self.look(query).await? else { return Err(other()) };
        Ok(found.map(Found::from))
    }
}

impl Client {
    async fn look(&self, query: Query) -> Result<Answer, Error> {
        self.read_stale(query, Some(MAX_AGE), PATIENCE).await.map(|(answer, _)| answer)
    }
}

impl From<InstanceView> for Found {
    fn from(view: InstanceView) -> Found {
        let (instance, spec) = (view.instance.as_str().to_owned(), view.spec);
        Found { instance, address: spec.address, port: spec.port, weight: spec.weight }
    }
}

fn other() -> Error {
    Error::Malformed("the cluster answered another question".into())
}
