//! What comes in: taken apart, or refused before anything is allocated for it.

use hickory_proto::op::{Edns, Message, OpCode, Query, ResponseCode};

/// A header without anything.
const HEADER: usize = 12;
/// The most additional records: the one of EDNS, and some leeway.
const ADDITIONAL: u16 = 4;
/// The version of EDNS that is spoken here.
const EDNS: u8 = 0;

/// A message.
pub(super) enum Came {
    /// No question: an answer, which must not be answered, or less than a header.
    Nothing,
    /// A question that is answered with this code.
    Wrong(Box<Message>),
    /// A question about one name.
    Question(Box<Question>),
}

/// A question about one name.
pub(super) struct Question {
    pub(super) id: u16,
    pub(super) recursion_desired: bool,
    pub(super) query: Query,
    /// How large an answer may be by UDP; `None` where EDNS is not spoken.
    pub(super) payload: Option<u16>,
}

/// Takes a message apart.
pub(super) fn parse(bytes: &[u8]) -> Came {
    if bytes.len() < HEADER || bytes[2] & 0x80 != 0 {
        return Came::Nothing;
    }
    let word = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    let (id, op_code) = (word(0), OpCode::from_u8((bytes[2] >> 3) & 0xf));
    let wrong = |code| Came::Wrong(Box::new(Message::error_msg(id, op_code, code)));
    if op_code != OpCode::Query {
        return wrong(ResponseCode::NotImp);
    }
    // Before they are decoded: the library takes memory for as many as are claimed.
    let [questions, answers, authorities, additionals] = [4, 6, 8, 10].map(word);
    if questions != 1 || answers != 0 || authorities != 0 || additionals > ADDITIONAL {
        return wrong(ResponseCode::FormErr);
    }
    let Ok(mut message) = Message::from_vec(bytes) else { return wrong(ResponseCode::FormErr) };
    let Some(query) = message.queries.pop() else { return wrong(ResponseCode::FormErr) };
    if message.version() > EDNS {
        let mut answer = Message::error_msg(id, op_code, ResponseCode::BADVERS);
        answer.set_edns(Edns::new());
        return Came::Wrong(Box::new(answer));
    }
    Came::Question(Box::new(Question {
        id,
        recursion_desired: message.metadata.recursion_desired,
        query,
        payload: message.edns.as_ref().map(|_| message.max_payload()),
    }))
}
