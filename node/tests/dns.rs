//! Services by DNS over a whole cluster on one thread: whoever lives is found, whoever has died is gone.

mod log_support;
mod thread_support;

use std::time::Duration;

use hickory_proto::{
    op::{Message, MessageType, OpCode, Query},
    rr::{Name as DnsName, RecordType},
};
use thread_support::{Cluster, PATIENCE, open, paused};
use tokio::time::Instant;
use wardlock_machine::{Command, Health, InstanceSpec, Key, Metadata, Name, Outcome, Register, SessionId};
use wardlock_router::{
    Client,
    dns::{
        Zone,
        answer::{Over, answer},
    },
};

const TTL_MS: u64 = 3_000;

async fn register(client: &Client, session: SessionId, id: usize) {
    let spec = InstanceSpec {
        address: format!("10.0.0.{id}"),
        port: 8_000 + id as u16,
        tags: Vec::new(),
        weight: 10,
        metadata: Metadata::new(),
    };
    let register = Register {
        request: wardlock_router::random::any(),
        key: Key::service(Name::new("payments").expect("a name")),
        instance: Name::new(&format!("i-{id}")).expect("a name"),
        session,
        private: false,
        spec,
        health: Health::Passing,
    };
    let outcome = client.write(Command::Register(register), PATIENCE).await;
    assert!(matches!(outcome, Ok(Outcome::Registered(_))), "{outcome:?}");
}

/// The answers' data, sorted, and whether the name is there.
async fn dig(client: &Client, name: &str, kind: RecordType) -> (Vec<String>, bool) {
    let mut message = Message::new(1, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(DnsName::from_ascii(name).expect("a name"), kind));
    let zone = Zone::new("wardlock", 0).expect("a zone");
    let bytes = message.to_vec().expect("it encodes");
    let reply = answer(&zone, client, &bytes, Over::Tcp).await.expect("an answer");
    let reply = Message::from_vec(&reply).expect("it decodes");
    let mut told: Vec<String> = reply.answers.iter().map(|record| record.data.to_string()).collect();
    told.sort_unstable();
    (told, reply.metadata.response_code == hickory_proto::op::ResponseCode::NoError)
}

#[test]
fn a_dead_instance_is_gone_within_its_ttl_and_a_second() {
    paused(async {
        let cluster = Cluster::start().await;
        let client = cluster.client().await;
        let (living, dying) = (open(&client, 600_000).await, open(&client, TTL_MS).await);
        register(&client, living, 1).await;
        register(&client, dying, 2).await;
        let died = Instant::now();
        tokio::time::sleep(Duration::from_millis(600)).await;
        let (all, _) = dig(&client, "payments.service.wardlock.", RecordType::SRV).await;
        let srv = |id: usize| format!("0 10 800{id} i-{id}.payments.service.wardlock.");
        assert_eq!(all, [srv(1), srv(2)]);
        assert_eq!(dig(&client, "payments.service.wardlock.", RecordType::A).await.0, ["10.0.0.1", "10.0.0.2"]);
        assert_eq!(dig(&client, "i-2.payments.service.wardlock.", RecordType::A).await.0, ["10.0.0.2"]);
        assert!(!dig(&client, "i-3.payments.service.wardlock.", RecordType::A).await.1);
        assert!(!dig(&client, "nobody.service.wardlock.", RecordType::SRV).await.1);
        while dig(&client, "i-2.payments.service.wardlock.", RecordType::A).await.1 {
            assert!(died.elapsed() < Duration::from_millis(TTL_MS + 1_000), "{:?} after it died", died.elapsed());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(died.elapsed() >= Duration::from_millis(TTL_MS - 100), "gone after {:?}", died.elapsed());
        tokio::time::sleep(Duration::from_millis(600)).await;
        assert_eq!(dig(&client, "payments.service.wardlock.", RecordType::SRV).await.0, [srv(1)]);
    });
}
