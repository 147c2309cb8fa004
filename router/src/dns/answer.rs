//! From a message to its answer.

use std::net::IpAddr;

use hickory_proto::{
    op::{Edns, Message, OpCode, ResponseCode},
    rr::{
        DNSClass, Name, RData, Record, RecordType,
        rdata::{A, AAAA, SOA, SRV},
    },
};
use metrics::counter;

use super::{
    Directory, Found,
    question::{self, Came, Question},
    zone::{Meant, Zone},
};
use crate::Error;

/// The most bytes of an answer by UDP, whatever its asker takes: no more than any network carries whole.
pub const UDP_BYTES: usize = 1_232;
/// The same where the asker does not speak EDNS.
const PLAIN_UDP_BYTES: usize = 512;
/// The most bytes of any message.
const TCP_BYTES: usize = 65_535;

/// What a question came by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// Answers may be cut.
    Udp,
    /// Answers are whole.
    Tcp,
}

/// What is said about a name.
#[derive(Default)]
struct Told {
    code: Option<ResponseCode>,
    answers: Vec<Record>,
    additionals: Vec<Record>,
}

/// The answer to a message, if it takes one.
pub async fn answer<D: Directory>(zone: &Zone, directory: &D, bytes: &[u8], over: Over) -> Option<Vec<u8>> {
    let question = match question::parse(bytes) {
        Came::Nothing => {
            count("invalid", "ignored");
            return None;
        }
        Came::Wrong(message) => {
            count("invalid", code_name(message.metadata.response_code));
            return message.to_vec().ok();
        }
        Came::Question(question) => question,
    };
    let told = tell(zone, directory, &question).await;
    let message = write(zone, &question, told);
    count(type_name(question.query.query_type()), code_name(message.metadata.response_code));
    let most = match (over, question.payload) {
        (Over::Tcp, _) => TCP_BYTES,
        (Over::Udp, None) => PLAIN_UDP_BYTES,
        (Over::Udp, Some(payload)) => usize::from(payload).clamp(PLAIN_UDP_BYTES, UDP_BYTES),
    };
    fit(message, most)
}

async fn tell<D: Directory>(zone: &Zone, directory: &D, question: &Question) -> Told {
    let refused = |code| Told { code: Some(code), ..Told::default() };
    let (name, kind) = (question.query.name(), question.query.query_type());
    let meant = zone.meant(name);
    if meant == Meant::Foreign || question.query.query_class() != DNSClass::IN {
        return refused(ResponseCode::Refused);
    }
    match kind {
        RecordType::AXFR | RecordType::IXFR => return refused(ResponseCode::Refused),
        // All that there is would be much for a small question with somebody else's address on it.
        RecordType::ANY => return refused(ResponseCode::NotImp),
        _ => {}
    }
    let told = match meant {
        Meant::Foreign | Meant::Nothing => Ok(None),
        Meant::Apex | Meant::Branch => Ok(Some(Told {
            answers: soa(zone).filter(|_| meant == Meant::Apex && kind == RecordType::SOA).into_iter().collect(),
            ..Told::default()
        })),
        Meant::Address(at) => {
            Ok(Some(Told { answers: address(zone, name, at, kind).into_iter().collect(), ..Told::default() }))
        }
        Meant::Service(service) => look_up_service(zone, directory, question, &service).await,
        Meant::Instance { service, instance } => look_up_instance(zone, directory, question, &service, &instance).await,
    };
    match told {
        Ok(Some(told)) => told,
        Ok(None) => refused(ResponseCode::NXDomain),
        Err(error) => {
            tracing::debug!("{name} cannot be looked up: {error}");
            refused(ResponseCode::ServFail)
        }
    }
}

async fn look_up_service<D: Directory>(
    zone: &Zone,
    directory: &D,
    question: &Question,
    service: &str,
) -> Result<Option<Told>, Error> {
    let Ok(key) = wardlock_machine::Name::new(service) else { return Ok(None) };
    let Some(found) = directory.service(key).await? else { return Ok(None) };
    Ok(Some(records(zone, question, service, &found)))
}

async fn look_up_instance<D: Directory>(
    zone: &Zone,
    directory: &D,
    question: &Question,
    service: &str,
    instance: &str,
) -> Result<Option<Told>, Error> {
    let (Ok(key), Ok(id)) = (wardlock_machine::Name::new(service), wardlock_machine::Name::new(instance)) else {
        return Ok(None);
    };
    let Some(found) = directory.instance(key, id).await? else { return Ok(None) };
    Ok(Some(records(zone, question, service, &[found])))
}

/// The records of instances that were found.
fn records(zone: &Zone, question: &Question, service: &str, found: &[Found]) -> Told {
    let (name, kind) = (question.query.name(), question.query.query_type());
    let mut told = Told::default();
    for found in found {
        let Some((target, at)) = zone.target(service, found) else { continue };
        if kind == RecordType::SRV {
            let srv = SRV::new(0, found.weight, found.port, target.clone());
            told.answers.push(Record::from_rdata(name.clone(), zone.ttl(), RData::SRV(srv)));
            told.additionals.extend(at.map(|at| Record::from_rdata(target, zone.ttl(), data(at))));
        } else if let Some(at) = at {
            // Instances on one host have one address.
            let record = address(zone, name, at, kind).filter(|record| !told.answers.contains(record));
            told.answers.extend(record);
        }
    }
    told
}

/// An address, if it is of the type that is asked for.
fn address(zone: &Zone, name: &Name, at: IpAddr, kind: RecordType) -> Option<Record> {
    let record = Record::from_rdata(name.clone(), zone.ttl(), data(at));
    (record.record_type() == kind).then_some(record)
}

fn data(at: IpAddr) -> RData {
    match at {
        IpAddr::V4(v4) => RData::A(A(v4)),
        IpAddr::V6(v6) => RData::AAAA(AAAA(v6)),
    }
}

/// Says for how long it may be remembered that something is not there: not at all, for it may come.
fn soa(zone: &Zone) -> Option<Record> {
    let (primary, person) = (zone.child("ns")?, zone.child("hostmaster")?);
    let soa = SOA::new(primary, person, 1, 3_600, 600, 86_400, 0);
    Some(Record::from_rdata(zone.origin().clone(), zone.ttl(), RData::SOA(soa)))
}

fn write(zone: &Zone, question: &Question, told: Told) -> Message {
    let mut message = Message::response(question.id, OpCode::Query);
    let code = told.code.unwrap_or(ResponseCode::NoError);
    message.metadata.recursion_desired = question.recursion_desired;
    message.metadata.response_code = code;
    message.add_query(question.query.clone());
    let ours = matches!(code, ResponseCode::NoError | ResponseCode::NXDomain);
    message.metadata.authoritative = ours;
    if ours && told.answers.is_empty() {
        message.authorities.extend(soa(zone));
    }
    message.answers = told.answers;
    message.additionals = told.additionals;
    if question.payload.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(UDP_BYTES as u16);
        message.set_edns(edns);
    }
    message
}

/// Cuts a message to what its asker takes. The addresses beside are the first to go: they can be asked for.
fn fit(mut message: Message, most: usize) -> Option<Vec<u8>> {
    loop {
        let bytes = message.to_vec().ok()?;
        if bytes.len() <= most {
            return Some(bytes);
        }
        if !message.additionals.is_empty() {
            message.additionals.clear();
        } else if message.answers.is_empty() {
            // A name and a header fit into anything.
            return None;
        } else {
            message.metadata.truncation = true;
            message.answers.truncate(message.answers.len() / 2);
        }
    }
}

fn count(kind: &'static str, code: &'static str) {
    counter!("wardlock_dns_queries_total", "type" => kind, "code" => code).increment(1);
}

fn type_name(kind: RecordType) -> &'static str {
    match kind {
        RecordType::A => "A",
        RecordType::AAAA => "AAAA",
        RecordType::SRV => "SRV",
        RecordType::SOA => "SOA",
        RecordType::NS => "NS",
        RecordType::ANY => "ANY",
        _ => "other",
    }
}

fn code_name(code: ResponseCode) -> &'static str {
    match code {
        ResponseCode::NoError => "NOERROR",
        ResponseCode::FormErr => "FORMERR",
        ResponseCode::ServFail => "SERVFAIL",
        ResponseCode::NXDomain => "NXDOMAIN",
        ResponseCode::NotImp => "NOTIMP",
        ResponseCode::Refused => "REFUSED",
        ResponseCode::BADVERS => "BADVERS",
        _ => "other",
    }
}
