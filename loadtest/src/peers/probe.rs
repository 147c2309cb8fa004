//! One question to a server, to learn whether it serves.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// Long for a server on this machine.
const PATIENCE: Duration = Duration::from_secs(2);
/// Answers are far shorter.
const LONGEST: u64 = 16 * 1024;

/// Sends the question and reads until the server closes, `enough` is in the answer, or time is up.
pub(super) fn ask(address: &str, question: &str, enough: &str) -> Option<String> {
    let address: SocketAddr = address.parse().ok()?;
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.set_write_timeout(Some(PATIENCE)).ok()?;
    stream.write_all(question.as_bytes()).ok()?;
    let mut answer = Vec::new();
    let mut stream = stream.take(LONGEST);
    let mut part = [0; 1024];
    loop {
        match stream.read(&mut part) {
            Ok(0) | Err(_) => break,
            Ok(count) => answer.extend_from_slice(&part[..count]),
        }
        if String::from_utf8_lossy(&answer).contains(enough) {
            break;
        }
    }
    String::from_utf8(answer).ok()
}
