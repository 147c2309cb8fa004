//! The few records of ZooKeeper's protocol that a lock needs.
//!
//! Numbers are big-endian, strings and buffers have their length before them, a frame too. Nothing here reads or
//! writes a socket.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// No answer to what is asked here comes near it.
const LONGEST: usize = 16 << 20;

/// Numbers of requests.
pub(super) const DELETE: i32 = 2;
pub(super) const EXISTS: i32 = 3;
pub(super) const GET_DATA: i32 = 4;
pub(super) const GET_CHILDREN: i32 = 8;
pub(super) const SYNC: i32 = 9;
pub(super) const CREATE: i32 = 15;
pub(super) const CLOSE: i32 = -11;

/// `xid` of an answer that is news of a watch.
pub(super) const NEWS: i32 = -1;
/// `xid` of a ping and of its answer.
pub(super) const PING: i32 = -2;
const PING_KIND: i32 = 11;

/// Errors.
pub(super) const OK: i32 = 0;
pub(super) const NO_NODE: i32 = -101;
pub(super) const NODE_EXISTS: i32 = -110;
pub(super) const SESSION_EXPIRED: i32 = -112;

/// Kinds of node.
pub(super) const PERSISTENT: i32 = 0;
pub(super) const EPHEMERAL: i32 = 1;
pub(super) const EPHEMERAL_SEQUENTIAL: i32 = 3;

/// Bytes that do not say what they should.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// Puts a frame in front of what `body` writes.
fn frame(out: &mut BytesMut, body: impl FnOnce(&mut BytesMut)) {
    let at = out.len();
    out.put_i32(0);
    body(out);
    let length = (out.len() - at - 4) as u32;
    out[at..at + 4].copy_from_slice(&length.to_be_bytes());
}

/// Takes the next whole frame, if there is one.
pub(super) fn next_frame(buffer: &mut BytesMut) -> Result<Option<Bytes>, Malformed> {
    let Some(length) = buffer.first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_be_bytes(*length) as usize;
    if length > LONGEST {
        return Err(Malformed);
    }
    if buffer.len() < 4 + length {
        return Ok(None);
    }
    buffer.advance(4);
    Ok(Some(buffer.split_to(length).freeze()))
}

pub(super) fn request(out: &mut BytesMut, xid: i32, kind: i32, body: &[u8]) {
    frame(out, |out| {
        out.put_i32(xid);
        out.put_i32(kind);
        out.put_slice(body);
    });
}

pub(super) fn ping(out: &mut BytesMut) {
    request(out, PING, PING_KIND, &[]);
}

/// A session as the ensemble knows it; all zero before there is one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) session: i64,
    pub(super) password: Bytes,
    pub(super) timeout_ms: i32,
}

/// The first thing on a connection: a new session, or an old one again.
pub(super) fn connect(out: &mut BytesMut, identity: &Identity) {
    frame(out, |out| {
        out.put_i32(0);
        // The last transaction seen: every answer awaited is of this connection, none has to be later.
        out.put_i64(0);
        out.put_i32(identity.timeout_ms);
        out.put_i64(identity.session);
        put_bytes(out, if identity.session == 0 { &[0; 16] } else { &identity.password });
        // Not content with a member that has lost the others.
        out.put_u8(0);
    });
}

/// The answer to it. A session of 0 says that the one asked for is gone.
pub(super) fn connected(mut frame: Bytes) -> Result<Identity, Malformed> {
    i32_of(&mut frame)?;
    let timeout_ms = i32_of(&mut frame)?;
    let session = i64_of(&mut frame)?;
    let password = bytes_of(&mut frame)?;
    Ok(Identity { session: if timeout_ms > 0 { session } else { 0 }, password, timeout_ms })
}

/// An answer: what for, the transaction, what went wrong, and the rest.
pub(super) struct Header {
    pub(super) xid: i32,
    pub(super) error: i32,
}

pub(super) fn header(frame: &mut Bytes) -> Result<Header, Malformed> {
    let xid = i32_of(frame)?;
    i64_of(frame)?;
    Ok(Header { xid, error: i32_of(frame)? })
}

/// News of a watch: the path. What became of it is for the watcher to look up.
pub(super) fn news(mut frame: Bytes) -> Result<Bytes, Malformed> {
    i32_of(&mut frame)?;
    i32_of(&mut frame)?;
    bytes_of(&mut frame)
}

/// Body of a create, open to all.
pub(super) fn create(path: &str, data: &[u8], flags: i32) -> Vec<u8> {
    const ALL: i32 = 31;
    let mut out = Vec::with_capacity(path.len() + data.len() + 48);
    put_bytes(&mut out, path.as_bytes());
    put_bytes(&mut out, data);
    out.put_i32(1);
    out.put_i32(ALL);
    put_bytes(&mut out, b"world");
    put_bytes(&mut out, b"anyone");
    out.put_i32(flags);
    out
}

/// Answer to a create: the path and the transaction that created it.
pub(super) fn created(mut body: Bytes) -> Result<(Bytes, i64), Malformed> {
    Ok((bytes_of(&mut body)?, i64_of(&mut body)?))
}

/// Body of a deletion, of whatever version.
pub(super) fn delete(path: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len() + 8);
    put_bytes(&mut out, path.as_bytes());
    out.put_i32(-1);
    out
}

/// Body of a sync.
pub(super) fn path(path: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len() + 4);
    put_bytes(&mut out, path.as_bytes());
    out
}

/// Body of a look at a node, its data or its children.
pub(super) fn look(path: &str, watch: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len() + 5);
    put_bytes(&mut out, path.as_bytes());
    out.put_u8(watch.into());
    out
}

/// Answer to a look at a node: the transaction that created it.
pub(super) fn existing(mut body: Bytes) -> Result<i64, Malformed> {
    i64_of(&mut body)
}

/// Answer to a look at data: it, and the transaction that created the node.
pub(super) fn data(mut body: Bytes) -> Result<(Bytes, i64), Malformed> {
    Ok((bytes_of(&mut body)?, i64_of(&mut body)?))
}

/// Answer to a look at children: their names.
pub(super) fn children(mut body: Bytes) -> Result<Vec<Bytes>, Malformed> {
    let count = i32_of(&mut body)?;
    // Each name has at least its length before it: no more than the frame can hold.
    (0..count.max(0)).map(|_| bytes_of(&mut body)).collect()
}

fn put_bytes(out: &mut impl BufMut, bytes: &[u8]) {
    out.put_i32(bytes.len() as i32);
    out.put_slice(bytes);
}

fn i32_of(from: &mut Bytes) -> Result<i32, Malformed> {
    from.try_get_i32().map_err(|_| Malformed)
}

fn i64_of(from: &mut Bytes) -> Result<i64, Malformed> {
    from.try_get_i64().map_err(|_| Malformed)
}

/// A length of -1 is "none", taken for empty.
fn bytes_of(from: &mut Bytes) -> Result<Bytes, Malformed> {
    let length = usize::try_from(i32_of(from)?).unwrap_or(0);
    match length <= from.len() {
        true => Ok(from.split_to(length)),
        false => Err(Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_as_they_went_in_and_only_whole() {
        let mut buffer = BytesMut::new();
        request(&mut buffer, 7, EXISTS, &look("/a", true));
        let whole = buffer.clone();
        for short in 0..whole.len() {
            assert_eq!(next_frame(&mut BytesMut::from(&whole[..short])), Ok(None));
        }
        let frame = next_frame(&mut buffer).expect("well formed").expect("whole");
        assert_eq!(&frame[..], b"\0\0\0\x07\0\0\0\x03\0\0\0\x02/a\x01");
        assert!(buffer.is_empty());
    }

    #[test]
    fn lengths_that_lie_are_malformed() {
        assert_eq!(next_frame(&mut BytesMut::from(&[0xff; 8][..])), Err(Malformed));
        assert_eq!(children(Bytes::from_static(&[0x7f, 0xff, 0xff, 0xff])), Err(Malformed));
        assert_eq!(data(Bytes::from_static(&[0, 0, 0, 9, 1])), Err(Malformed));
        assert_eq!(connected(Bytes::from_static(&[0; 7])), Err(Malformed));
    }

    #[test]
    fn a_session_that_is_gone_has_no_number() {
        let mut gone = BytesMut::new();
        gone.put_i32(0);
        gone.put_i32(0);
        gone.put_i64(99);
        put_bytes(&mut gone, &[0; 16]);
        assert_eq!(connected(gone.freeze()).expect("well formed").session, 0);
    }
}
