//! By what a target knows that a delivery is ours.

use std::fmt::Write;

use ring::hmac;
use wardlock_machine::Secret;

/// The value of `Wardlock-Signature` for a body that is sent at `unix_seconds`.
pub fn sign(secret: &Secret, unix_seconds: u64, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes());
    let mut context = hmac::Context::with_key(&key);
    context.update(format!("{unix_seconds}.").as_bytes());
    context.update(body);
    let tag = context.sign();
    let mut value = format!("t={unix_seconds},v1=");
    for byte in tag.as_ref() {
        // A text takes all that is written to it.
        let _ = write!(value, "{byte:02x}");
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each made by `printf '%s' 'T.BODY' | openssl dgst -sha256 -hmac SECRET`.
    #[test]
    fn signatures_are_those_of_openssl() {
        let signed = |secret: &str, at, body: &str| sign(&Secret::new(secret), at, body.as_bytes());
        assert_eq!(
            signed("a secret of its own", 1_767_225_600, "{\"event\":\"put\"}"),
            "t=1767225600,v1=b41cc9bb23380613328caadf5b046901f22394a1da08d601cda6fc3eff4a258e"
        );
        assert_eq!(
            signed("0123456789abcdef", 0, ""),
            "t=0,v1=9b9567f7a6e6e3243d8c5c66dde94f7df77b79d6edb3dee210c5778814cfaca0"
        );
    }
}
