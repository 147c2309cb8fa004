//! Instances by their own names, over DNS, as `dig i-17.payments-3.service.wardlock` asks.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use futures_util::future::try_join_all;
use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, RecordType},
};
use tokio::{net::UdpSocket, time::timeout};

/// How many questions are on their way at once.
const AT_ONCE: usize = 16;
/// How often a question is asked, and how long each time: datagrams are lost.
const TRIES: u32 = 10;
const PATIENCE: Duration = Duration::from_secs(1);
/// The largest answer to a question without EDNS.
const ANSWER_BYTES: usize = 512;

/// Who asks.
pub(super) struct Resolver {
    server: SocketAddr,
    services: u32,
}

impl Resolver {
    pub(super) fn new(server: SocketAddr, services: u32) -> Resolver {
        Resolver { server, services }
    }

    /// Which of these have a name that is answered with an address.
    ///
    /// # Errors
    /// Where a question has no answer, or another than an address or that there is no such name.
    pub(super) async fn found(&self, asked: &[u32]) -> anyhow::Result<BTreeSet<u32>> {
        let parts = asked.chunks(asked.len().div_ceil(AT_ONCE).max(1)).map(|part| async move {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.context("no socket")?;
            socket.connect(self.server).await.context("DNS cannot be reached")?;
            let mut found = Vec::new();
            for instance in part {
                if self.is_found(&socket, *instance).await? {
                    found.push(*instance);
                }
            }
            anyhow::Ok(found)
        });
        Ok(try_join_all(parts).await?.into_iter().flatten().collect())
    }

    async fn is_found(&self, socket: &UdpSocket, instance: u32) -> anyhow::Result<bool> {
        let (service, id) = super::called(instance, self.services);
        let name = Name::from_ascii(format!("{id}.{service}.service.wardlock."))?;
        let mut last = "no answer".to_owned();
        for _ in 0..TRIES {
            let mut question = Message::new(rand::random(), MessageType::Query, OpCode::Query);
            question.add_query(Query::query(name.clone(), RecordType::A));
            socket.send(&question.to_vec()?).await?;
            match timeout(PATIENCE, answered(socket, &question)).await {
                Err(_) => {}
                Ok(Ok(answer)) => match answer.metadata.response_code {
                    ResponseCode::NXDomain => return Ok(false),
                    ResponseCode::NoError => {
                        ensure!(answer.answers.len() == 1, "{name} has {} addresses", answer.answers.len());
                        return Ok(true);
                    }
                    // Its replica may have been without a leader for a moment.
                    other => last = other.to_string(),
                },
                // Nobody listens, for now.
                Ok(Err(error)) => last = error.to_string(),
            }
        }
        bail!("{name} was asked for {TRIES} times: {last}")
    }
}

/// The answer to this question, and to no earlier one.
async fn answered(socket: &UdpSocket, question: &Message) -> anyhow::Result<Message> {
    let mut bytes = [0; ANSWER_BYTES];
    loop {
        let length = socket.recv(&mut bytes).await?;
        let answer = Message::from_vec(&bytes[..length])?;
        if answer.metadata.id == question.metadata.id && answer.queries == question.queries {
            return Ok(answer);
        }
    }
}
