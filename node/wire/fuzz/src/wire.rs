//! What comes over the network: frames, messages, Raft's own among them.

use bytes::BytesMut;
use wardlock::raft::types;
use wardlock_wire::{
    Lane, Message,
    frame::{Decoder, FrameError, encode, encode_call},
    raft::{Payload, RaftReply, RaftRequest},
};

use crate::{random::Random, within};

/// What decoding so many bytes may hold: values are larger than their bytes, up to so many times, and a
/// vector's first room, of a megabyte at the most in each of a few layers, goes by the length that it claims.
pub fn ample(length: usize) -> usize {
    200 * length + (6 << 20)
}

/// How a stream was left.
#[derive(Debug, PartialEq)]
enum End {
    /// So many bytes wait for more.
    Waits(usize),
    Refused(FrameError),
}

/// Frames in a stream, `lane · seed · stream`, cut into reads by the seed.
///
/// However the stream is cut, the same messages come out and the same end; and both are what the format says.
pub fn frames(data: &[u8]) {
    let [lane, seed, stream @ ..] = data else { return };
    let limit = Lane::ALL.get(usize::from(*lane)).map_or(64, |lane| lane.frame_bytes());
    let decoder = Decoder::new(limit);
    let expected = reference(limit, stream);

    let mut random = Random::new(u64::from(*seed));
    let (mut arrived, mut messages, mut rest) = (BytesMut::new(), Vec::new(), stream);
    let end = within(ample(stream.len()), "decoding frames", || {
        loop {
            match decoder.next(&mut arrived) {
                Ok(Some(message)) => messages.push(message),
                Ok(None) if rest.is_empty() => break End::Waits(arrived.len()),
                Ok(None) => {
                    let (now, later) = rest.split_at((1 + random.below(128)).min(rest.len()));
                    arrived.extend_from_slice(now);
                    rest = later;
                }
                Err(error) => break End::Refused(error),
            }
        }
    });
    assert_eq!((messages, end), expected, "the way in which a stream was cut shows");
}

/// The frames by the format's words alone.
fn reference(limit: usize, mut stream: &[u8]) -> (Vec<Message>, End) {
    let mut messages = Vec::new();
    loop {
        let Some((head, rest)) = stream.split_first_chunk::<4>() else {
            return (messages, End::Waits(stream.len()));
        };
        let length = u32::from_le_bytes(*head) as usize;
        if length > limit {
            return (messages, End::Refused(FrameError::TooLong { length, limit }));
        }
        if rest.len() < length {
            return (messages, End::Waits(stream.len()));
        }
        match postcard::take_from_bytes(&rest[..length]) {
            Ok((message, [])) => messages.push(message),
            Ok((_, more)) => return (messages, End::Refused(FrameError::Trailing(more.len()))),
            Err(error) => return (messages, End::Refused(FrameError::Garbage(error))),
        }
        stream = &rest[length..];
    }
}

/// One message.
///
/// What decodes is encoded in no more bytes and decodes to the same; a bound of one byte less refuses it and
/// leaves no trace; a call is written the same from a body that stays.
pub fn messages(data: &[u8]) {
    let decoded = within(ample(data.len()), "decoding a message", || postcard::take_from_bytes::<Message>(data));
    let Ok((message, rest)) = decoded else { return };
    let mut frame = BytesMut::new();
    let limit = Lane::Bulk.frame_bytes();
    encode(&message, limit, &mut frame).expect("what came in a frame fits one");
    let length = frame.len() - 4;
    assert!(length <= data.len() - rest.len(), "a message grew by being encoded");
    let mut again = frame.clone();
    assert_eq!(Decoder::new(limit).next(&mut again), Ok(Some(message.clone())), "it decodes to something else");
    assert!(again.is_empty());

    let mut tight = BytesMut::from(&b"before"[..]);
    encode(&message, length, &mut tight).expect("it fits a bound of its own length");
    assert_eq!(&tight[6..], &frame[..]);
    tight.truncate(6);
    if let Some(less) = length.checked_sub(1) {
        let refused = encode(&message, less, &mut tight);
        assert!(matches!(refused, Err(FrameError::TooLong { .. })), "{refused:?}");
    }
    assert_eq!(&tight[..], b"before", "what was refused left a trace");

    if let Message::Call { id, body } = &message {
        let mut call = BytesMut::new();
        encode_call(*id, body, limit, &mut call).expect("the same as encoding the message");
        assert_eq!(call, frame);
    }
}

/// What replicas say to each other, on its way into the consensus library's types and back.
///
/// It is refused or comes back the same.
pub fn raft_messages(data: &[u8]) {
    if let Ok(reply) = postcard::from_bytes::<RaftReply>(data) {
        if let RaftReply::HigherVote(vote) = &reply {
            assert_eq!(types::vote_to_wire(&types::vote_from_wire(*vote)), *vote);
        }
        let bytes = postcard::to_stdvec(&reply).expect("plain data encodes");
        assert_eq!(postcard::from_bytes::<RaftReply>(&bytes), Ok(reply));
    }
    let Ok(request) = postcard::from_bytes::<RaftRequest>(data) else { return };
    match request {
        RaftRequest::Append { entries, .. } => {
            for entry in entries {
                let members = matches!(entry.payload, Payload::Members(_));
                match types::entry_from_wire(entry.clone()) {
                    Ok(ours) => assert_eq!(types::entry_to_wire(&ours), entry),
                    Err(why) => assert!(members, "an entry without a membership was refused: {why}"),
                }
            }
        }
        RaftRequest::Snapshot { meta, .. } => {
            if let Ok(ours) = types::snapshot_from_wire(meta.clone()) {
                assert_eq!(types::snapshot_to_wire(&ours), meta);
            }
        }
        RaftRequest::Vote { vote, .. } | RaftRequest::PreVote { vote, .. } => {
            assert_eq!(types::vote_to_wire(&types::vote_from_wire(vote)), vote);
        }
        RaftRequest::Transfer { .. } => {}
    }
}
