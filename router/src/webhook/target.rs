//! Where webhooks may go.

use std::{collections::BTreeSet, fmt, net::IpAddr, str::FromStr};

use http::{Uri, uri::PathAndQuery};
use wardlock_machine::limits;

/// The scheme, host and port of a target, each as it is compared.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    https: bool,
    /// In lower case; an IPv6 address without its brackets.
    host: String,
    port: u16,
}

/// Why a text is no target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Not a URL.
    #[error("{0:?} is no URL of http or https: https://hooks.example.com/path")]
    Malformed(String),
    /// A user or a password.
    #[error("a target has no user and no password: anybody who lists webhooks would see them")]
    UserInfo,
    /// A part after `#`, which is not sent.
    #[error("a target has no fragment")]
    Fragment,
    /// An entry of the allow-list with more than an origin.
    #[error("{0:?}: an allowed target is a scheme, a host and a port, with no path")]
    Path(String),
    /// Too long.
    #[error("a target has at most {max} bytes", max = limits::HOOK_URL_BYTES)]
    TooLong,
}

/// Why nothing is sent to a target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No target is allowed.
    #[error("webhooks are off: webhook_targets allows none")]
    Off,
    /// This one is not.
    #[error("target not allowed by webhook_targets: {0}")]
    NotAllowed(Origin),
    /// It is none.
    #[error(transparent)]
    Malformed(#[from] TargetError),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.https { "https" } else { "http" };
        let port = if self.port == default_port(self.https) { String::new() } else { format!(":{}", self.port) };
        match self.host.contains(':') {
            true => write!(f, "{scheme}://[{}]{port}", self.host),
            false => write!(f, "{scheme}://{}{port}", self.host),
        }
    }
}

fn default_port(https: bool) -> u16 {
    if https { 443 } else { 80 }
}

impl FromStr for Origin {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Origin, TargetError> {
        let url: Url = text.parse()?;
        match url.path.as_str() {
            "/" if !text.ends_with('/') => Ok(url.origin),
            _ => Err(TargetError::Path(text.to_owned())),
        }
    }
}

/// A target of a webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Url {
    origin: Origin,
    /// As it stands in the request line.
    path: PathAndQuery,
}

impl FromStr for Url {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Url, TargetError> {
        let malformed = || TargetError::Malformed(text.chars().take(80).collect());
        if text.len() > limits::HOOK_URL_BYTES {
            return Err(TargetError::TooLong);
        }
        if text.contains('#') {
            return Err(TargetError::Fragment);
        }
        let uri: Uri = text.parse().map_err(|_| malformed())?;
        let https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(malformed()),
        };
        let authority = uri.authority().ok_or_else(malformed)?;
        if authority.as_str().contains('@') {
            return Err(TargetError::UserInfo);
        }
        let host = authority.host().to_ascii_lowercase();
        let named = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            // In the one way in which an address is written.
            Some(v6) => v6.parse::<std::net::Ipv6Addr>().map_err(|_| malformed())?.to_string(),
            None => {
                let name = host.strip_suffix('.').unwrap_or(&host);
                if name.is_empty() || !name.bytes().all(named) {
                    return Err(malformed());
                }
                name.to_owned()
            }
        };
        // Without a user, what stands behind the host is the port.
        let rest = authority.as_str().get(authority.host().len()..).ok_or_else(malformed)?;
        let port = match rest.strip_prefix(':') {
            None if rest.is_empty() => default_port(https),
            None => return Err(malformed()),
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().ok().filter(|port| *port > 0).ok_or_else(malformed)?
            }
            Some(_) => return Err(malformed()),
        };
        let path = uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        Ok(Url { origin: Origin { https, host, port }, path })
    }
}

/// A target that the configuration allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    origin: Origin,
    path: PathAndQuery,
    /// It may lie inside.
    inside: bool,
}

impl Target {
    /// Whether TLS is spoken.
    pub fn is_https(&self) -> bool {
        self.origin.https
    }

    /// The host's name or address, without brackets.
    pub fn host(&self) -> &str {
        &self.origin.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.origin.port
    }

    /// The path and the query.
    pub fn path(&self) -> &PathAndQuery {
        &self.path
    }

    /// The value of `Host`.
    pub fn authority(&self) -> String {
        let origin = self.origin.to_string();
        origin.split_once("://").map_or(origin.clone(), |(_, rest)| rest.to_owned())
    }

    /// The address, where the target is one rather than a name.
    pub fn literal(&self) -> Option<IpAddr> {
        self.origin.host.parse().ok()
    }

    /// Whether a connection may go to this address of the target's. An address that the allow-list names as such may be
    /// inside; a name may only lead inside where the configuration says so of it.
    pub fn allows(&self, address: IpAddr) -> bool {
        self.inside || self.literal() == Some(address) || super::is_public(address)
    }
}

/// The targets that a process's configuration allows; none by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Targets {
    outside: BTreeSet<Origin>,
    inside: BTreeSet<Origin>,
}

impl Targets {
    /// Those that must be outside, and those that may resolve to addresses inside.
    pub fn new(outside: impl IntoIterator<Item = Origin>, inside: impl IntoIterator<Item = Origin>) -> Targets {
        Targets { outside: outside.into_iter().collect(), inside: inside.into_iter().collect() }
    }

    /// Whether webhooks are off.
    pub fn is_empty(&self) -> bool {
        self.outside.is_empty() && self.inside.is_empty()
    }

    /// The target, if it is allowed.
    pub fn check(&self, url: &str) -> Result<Target, Refused> {
        if self.is_empty() {
            return Err(Refused::Off);
        }
        let Url { origin, path } = url.parse()?;
        let inside = self.inside.contains(&origin);
        match inside || self.outside.contains(&origin) {
            true => Ok(Target { origin, path, inside }),
            false => Err(Refused::NotAllowed(origin)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(text: &str) -> Origin {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn targets() -> Targets {
        let outside =
            ["https://hooks.example.com", "http://127.0.0.1:9000", "http://[::1]:9000", "http://plain.example"];
        Targets::new(outside.map(origin), [origin("http://inside.example:8080")])
    }

    #[test]
    fn nothing_is_allowed_by_default() {
        assert_eq!(Targets::default().check("https://hooks.example.com/"), Err(Refused::Off));
    }

    #[test]
    fn scheme_host_and_port_must_all_be_those_that_are_allowed() {
        let targets = targets();
        for good in [
            "https://hooks.example.com/",
            "https://hooks.example.com",
            "https://HOOKS.example.COM:443/a/b?c=d",
            "https://hooks.example.com./x",
            "http://127.0.0.1:9000/x",
            "http://[0:0::1]:9000/x",
            "http://plain.example:80/",
            "http://inside.example:8080/",
        ] {
            assert!(targets.check(good).is_ok(), "{good}: {:?}", targets.check(good));
        }
        for other in [
            "http://hooks.example.com/",
            "https://hooks.example.com:444/",
            "https://example.com/",
            "https://hooks.example.com.evil.example/",
            "https://evil.example/https://hooks.example.com/",
            "http://127.0.0.1/",
            "http://127.0.0.2:9000/",
            "http://2130706433:9000/",
            "http://localhost:9000/",
        ] {
            assert!(matches!(targets.check(other), Err(Refused::NotAllowed(_))), "{other}: {:?}", targets.check(other));
        }
    }

    #[test]
    fn what_is_no_target_is_refused() {
        let targets = targets();
        let long = format!("https://hooks.example.com/{}", "x".repeat(limits::HOOK_URL_BYTES));
        for bad in [
            "",
            "hooks.example.com",
            "/path",
            "ftp://hooks.example.com/",
            "file:///etc/passwd",
            "https://",
            "https:///x",
            "https://hooks.example.com:0/",
            "https://hooks.example.com:70000/",
            "https://hooks.example.com:/",
            "https://hooks.example.com:+443/",
            "https://hooks.example.com:44x/",
            "https://user@hooks.example.com/",
            "https://evil.example#@hooks.example.com/",
            "https://hooks.example.com@evil.example/",
            "https://hooks.example.com/ x",
            "https://[::1/",
            "https://[::1%25lo]/",
            &long,
        ] {
            assert!(matches!(targets.check(bad), Err(Refused::Malformed(_))), "{bad}: {:?}", targets.check(bad));
        }
        assert!("https://hooks.example.com/path".parse::<Origin>().is_err());
        assert!("https://hooks.example.com/".parse::<Origin>().is_err(), "nobody shall think that it is a path's");
    }

    #[test]
    fn a_name_may_lead_inside_only_where_that_is_said() {
        let targets = targets();
        let loopback: IpAddr = "127.0.0.1".parse().unwrap();
        let public: IpAddr = "8.8.8.8".parse().unwrap();
        let metadata: IpAddr = "169.254.169.254".parse().unwrap();
        let named = targets.check("https://hooks.example.com/").unwrap();
        assert!(named.allows(public) && !named.allows(loopback) && !named.allows(metadata));
        let literal = targets.check("http://127.0.0.1:9000/").unwrap();
        assert!(literal.allows(loopback) && !literal.allows(metadata));
        let inside = targets.check("http://inside.example:8080/").unwrap();
        assert!(inside.allows(loopback) && inside.allows(public));
    }

    #[test]
    fn a_target_knows_what_is_sent() {
        let target = targets().check("http://[::1]:9000/a?b=c").unwrap();
        assert_eq!((target.authority().as_str(), target.host(), target.port()), ("[::1]:9000", "::1", 9000));
        assert_eq!(target.path().as_str(), "/a?b=c");
        assert_eq!(targets().check("https://hooks.example.com").unwrap().authority(), "hooks.example.com");
    }
}
