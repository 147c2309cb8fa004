//! Messages as bytes on a stream: a length, then the message.
//!
//! ```text
//! frame = length (u32, little-endian) ‖ message (postcard, exactly `length` bytes)
//! ```
//!
//! # Promises
//! 1. A length beyond the lane's bound is refused as soon as its four bytes are there: nothing is set
//!    aside for a frame that only claims to come.
//! 2. Whatever the bytes, [`Decoder::next`] returns a message, asks for more, or returns an error. It
//!    never panics.
//! 3. A message fills its frame: bytes after it are an error, not slack.
//! 4. [`encode`] writes nothing that a decoder of the same bound would refuse, and leaves the buffer as
//!    it was where it refuses itself.

use bytes::{Buf, BytesMut};
use postcard::ser_flavors::Flavor;
use serde::Serialize;

use crate::message::{Body, Lane, Message};

/// The bytes of a frame's length.
const HEAD: usize = 4;

impl Lane {
    /// The longest message that this lane carries, in bytes. The sum of these is what one peer can make
    /// a connection hold before it has said anything complete.
    pub const fn frame_bytes(self) -> usize {
        match self {
            Lane::Urgent => 64 << 10,
            Lane::Append => 8 << 20,
            // The largest is a transaction or a page of a list, 4 MiB, and what surrounds it.
            Lane::Client => (4 << 20) + (64 << 10),
            // Twice the planned memory of a whole node: a snapshot is of one shard. Nodes only.
            Lane::Bulk => 512 << 20,
        }
    }
}

impl Lane {
    /// The longest call that this lane carries from a client, in bytes: the largest value of a configuration and
    /// what surrounds it. What is decoded from other calls can be a hundred times as large as its bytes; they are
    /// decoded one at a time on each thread, and weighed before they wait.
    pub const fn call_bytes(self) -> usize {
        match self {
            Lane::Client => (1 << 20) + (128 << 10),
            other => other.frame_bytes(),
        }
    }
}

/// Why bytes are not a frame, or a message does not fit one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length is beyond the bound.
    #[error("a frame of {length} bytes exceeds this lane's bound of {limit}")]
    TooLong {
        /// What was claimed, or at least needed.
        length: usize,
        /// What is allowed.
        limit: usize,
    },
    /// The bytes are no message.
    #[error("not a message: {0}")]
    Garbage(postcard::Error),
    /// A message, and then something.
    #[error("{0} bytes follow the message in its frame")]
    Trailing(usize),
}

/// Takes frames off the front of a buffer.
#[derive(Clone, Copy, Debug)]
pub struct Decoder {
    limit: usize,
}

impl Decoder {
    /// A decoder that accepts messages of up to `limit` bytes.
    pub const fn new(limit: usize) -> Decoder {
        Decoder { limit }
    }

    /// The next message, or `None` until more bytes are there. After an error the stream is lost: where
    /// the next frame begins is no longer known.
    pub fn next(&self, buffer: &mut BytesMut) -> Result<Option<Message>, FrameError> {
        let Some(head) = buffer.first_chunk::<HEAD>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*head) as usize;
        if length > self.limit && !wardlock_machine::planted!("frame-length-unbounded") {
            return Err(FrameError::TooLong { length, limit: self.limit });
        }
        let Some(content) = buffer.get(HEAD..HEAD + length) else {
            return Ok(None);
        };
        let (message, rest) = postcard::take_from_bytes::<Message>(content).map_err(FrameError::Garbage)?;
        if !rest.is_empty() && !wardlock_machine::planted!("trailing-bytes-ignored") {
            return Err(FrameError::Trailing(rest.len()));
        }
        buffer.advance(HEAD + length);
        Ok(Some(message))
    }
}

/// Appends the message's frame to the buffer, in place.
pub fn encode(message: &Message, limit: usize, buffer: &mut BytesMut) -> Result<(), FrameError> {
    append(message, limit, buffer)
}

/// The same as [`encode`] of a [`Message::Call`], for a body that stays with the caller.
pub fn encode_call(id: u64, body: &Body, limit: usize, buffer: &mut BytesMut) -> Result<(), FrameError> {
    // A variant is written as its number and then its fields.
    const CALL: u32 = 1;
    append(&(CALL, id, body), limit, buffer)
}

fn append(message: &impl Serialize, limit: usize, buffer: &mut BytesMut) -> Result<(), FrameError> {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; HEAD]);
    let end = start + HEAD + limit;
    match postcard::serialize_with_flavor(message, Tail { buffer, end }) {
        Ok(()) => {
            let length = buffer.len() - start - HEAD;
            let head = u32::try_from(length).map_err(|_| FrameError::TooLong { length, limit })?;
            buffer[start..start + HEAD].copy_from_slice(&head.to_le_bytes());
            Ok(())
        }
        Err(error) => {
            buffer.truncate(start);
            Err(match error {
                postcard::Error::SerializeBufferFull => FrameError::TooLong { length: limit + 1, limit },
                other => FrameError::Garbage(other),
            })
        }
    }
}

/// The end of a buffer, as somewhere to serialize to: whole slices at a time, up to a bound.
struct Tail<'a> {
    buffer: &'a mut BytesMut,
    end: usize,
}

impl Flavor for Tail<'_> {
    type Output = ();

    fn try_extend(&mut self, data: &[u8]) -> postcard::Result<()> {
        if self.end - self.buffer.len() < data.len() {
            return Err(postcard::Error::SerializeBufferFull);
        }
        self.buffer.extend_from_slice(data);
        Ok(())
    }

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.try_extend(&[byte])
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use wardlock_placement::{GroupId, NodeId, ReplicaId};

    use super::*;
    use crate::{
        message::{Hello, Refusal, Response},
        raft::{Entry, LogPos, Payload, RaftReply, RaftRequest, Vote},
    };

    const LIMIT: usize = Lane::Urgent.frame_bytes();

    fn entry() -> impl Strategy<Value = Entry> {
        let payload = prop_oneof![
            Just(Payload::Blank),
            prop::collection::vec(any::<u8>(), 0..200).prop_map(|b| Payload::Data(Bytes::from(b)))
        ];
        (any::<u64>(), any::<u64>(), payload)
            .prop_map(|(term, index, payload)| Entry { pos: LogPos { term, index }, payload })
    }

    fn message() -> impl Strategy<Value = Message> {
        let append =
            (any::<u64>(), any::<u32>(), prop::collection::vec(entry(), 0..20)).prop_map(|(id, group, entries)| {
                let vote = Vote { term: id, replica: ReplicaId(7), committed: true };
                let request =
                    RaftRequest::Append { vote, prev: None, commit: Some(LogPos { term: 1, index: id }), entries };
                let body = Body::Raft { group: GroupId(group), from: ReplicaId(7), to: ReplicaId(8), request };
                Message::Call { id, body }
            });
        let hello = (".{0,40}", any::<Option<u32>>(), any::<u64>()).prop_map(|(cluster, node, boot)| {
            Message::Hello(Hello { version: crate::VERSION, cluster, node: node.map(NodeId), boot })
        });
        let reply = (any::<u64>(), ".{0,40}")
            .prop_map(|(id, why)| Message::Reply { id, result: Err(Refusal::NotAllowed(why)) });
        let done =
            any::<u64>().prop_map(|id| Message::Reply { id, result: Ok(Response::Raft(RaftReply::AppendedTo(None))) });
        prop_oneof![append, hello, reply, done]
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(messages in prop::collection::vec(message(), 0..6), cut in 1usize..64) {
            let mut sent = BytesMut::new();
            for message in &messages {
                encode(message, LIMIT, &mut sent).unwrap();
            }
            // However the stream is cut into reads.
            let mut arrived = BytesMut::new();
            let mut decoded = Vec::new();
            for piece in sent.chunks(cut) {
                arrived.extend_from_slice(piece);
                while let Some(message) = Decoder::new(LIMIT).next(&mut arrived).unwrap() {
                    decoded.push(message);
                }
            }
            prop_assert!(arrived.is_empty());
            prop_assert_eq!(decoded, messages);
        }

        #[test]
        fn a_call_is_written_the_same_from_a_body_that_stays(message in message()) {
            if let Message::Call { id, body } = &message {
                let (mut whole, mut parts) = (BytesMut::new(), BytesMut::new());
                encode(&message, LIMIT, &mut whole).unwrap();
                encode_call(*id, body, LIMIT, &mut parts).unwrap();
                prop_assert_eq!(whole, parts);
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..2_000)) {
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = Decoder::new(LIMIT).next(&mut buffer) {}
        }

        #[test]
        fn arbitrary_content_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..2_000)) {
            let mut buffer = BytesMut::from(&(bytes.len() as u32).to_le_bytes()[..]);
            buffer.extend_from_slice(&bytes);
            let _ = Decoder::new(LIMIT).next(&mut buffer);
        }

        #[test]
        fn flipped_bytes_never_panic(message in message(), at in any::<prop::sample::Index>(), flip in 1u8..) {
            let mut buffer = BytesMut::new();
            encode(&message, LIMIT, &mut buffer).unwrap();
            let at = at.index(buffer.len());
            buffer[at] ^= flip;
            while let Ok(Some(_)) = Decoder::new(LIMIT).next(&mut buffer) {}
        }

        #[test]
        fn a_truncated_frame_waits(message in message(), at in any::<prop::sample::Index>()) {
            let mut buffer = BytesMut::new();
            encode(&message, LIMIT, &mut buffer).unwrap();
            buffer.truncate(at.index(buffer.len()));
            prop_assert_eq!(Decoder::new(LIMIT).next(&mut buffer), Ok(None));
        }
    }

    #[test]
    fn a_long_length_is_refused_before_its_content() {
        let mut buffer = BytesMut::from(&(LIMIT as u32 + 1).to_le_bytes()[..]);
        let refused = Decoder::new(LIMIT).next(&mut buffer);
        assert_eq!(refused, Err(FrameError::TooLong { length: LIMIT + 1, limit: LIMIT }));
        let mut buffer = BytesMut::from(&u32::MAX.to_le_bytes()[..]);
        assert!(Decoder::new(Lane::Bulk.frame_bytes()).next(&mut buffer).is_err());
    }

    #[test]
    fn trailing_bytes_are_refused() {
        let mut buffer = BytesMut::new();
        encode(&Message::Call { id: 1, body: Body::Status }, LIMIT, &mut buffer).unwrap();
        let length = buffer.len() - HEAD + 1;
        buffer.extend_from_slice(&[0]);
        buffer[..HEAD].copy_from_slice(&(length as u32).to_le_bytes());
        assert_eq!(Decoder::new(LIMIT).next(&mut buffer), Err(FrameError::Trailing(1)));
    }

    #[test]
    fn what_does_not_fit_leaves_no_trace() {
        let mut buffer = BytesMut::new();
        let small = Message::Call { id: 1, body: Body::Status };
        encode(&small, LIMIT, &mut buffer).unwrap();
        let before = buffer.clone();
        let large = Message::Reply { id: 2, result: Err(Refusal::Malformed("x".repeat(LIMIT))) };
        assert!(matches!(encode(&large, LIMIT, &mut buffer), Err(FrameError::TooLong { .. })));
        assert_eq!(buffer, before);
    }
}
