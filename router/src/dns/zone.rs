//! The zone: which names it has, and what each means.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_proto::rr::Name;

use super::Found;

const SERVICE: &str = "service";
const ADDRESS: &str = "addr";
/// The longest label.
const LABEL: usize = 63;
/// The longest zone: names of instances must have room below it.
const ZONE: usize = 100;

/// The zone that is answered for.
#[derive(Clone, Debug)]
pub struct Zone {
    origin: Name,
    labels: Vec<String>,
    ttl: u32,
}

/// Why a zone cannot be served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ZoneError {
    /// It is no name of a zone.
    #[error("{0:?} is no zone: letters, digits, hyphens and underscores, between dots, 100 at the most")]
    Name(String),
    /// Whoever caches an answer for longer sends callers to the dead.
    #[error("a TTL is 0 or 1 seconds, not {0}")]
    Ttl(u32),
}

/// What a name stands for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meant {
    /// Nothing of this zone.
    Foreign,
    /// The zone itself.
    Apex,
    /// A name that others are below.
    Branch,
    /// A service.
    Service(String),
    /// An instance of a service.
    Instance { service: String, instance: String },
    /// An address.
    Address(IpAddr),
    /// Nothing, and nothing that could be registered.
    Nothing,
}

impl Zone {
    /// The zone of this name, whose records live for so many seconds.
    pub fn new(name: &str, ttl: u32) -> Result<Zone, ZoneError> {
        let text = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        let labels: Vec<String> = text.split('.').map(str::to_owned).collect();
        let wrong = || ZoneError::Name(name.to_owned());
        if text.len() > ZONE || !labels.iter().all(|label| is_label(label.as_bytes())) {
            return Err(wrong());
        }
        if ttl > 1 {
            return Err(ZoneError::Ttl(ttl));
        }
        let origin = Name::from_labels(labels.iter().map(String::as_bytes)).map_err(|_| wrong())?;
        Ok(Zone { origin, labels, ttl })
    }

    /// Its name.
    pub fn origin(&self) -> &Name {
        &self.origin
    }

    /// How long its records live, in seconds.
    pub fn ttl(&self) -> u32 {
        self.ttl
    }

    /// What a name stands for.
    pub(super) fn meant(&self, name: &Name) -> Meant {
        let asked: Vec<&[u8]> = name.iter().collect();
        let Some(depth) = asked.len().checked_sub(self.labels.len()) else { return Meant::Foreign };
        let (below, zone) = asked.split_at(depth);
        if !zone.iter().zip(&self.labels).all(|(asked, own)| asked.eq_ignore_ascii_case(own.as_bytes())) {
            return Meant::Foreign;
        }
        let labels: Option<Vec<String>> = below.iter().map(|label| label_of(label)).collect();
        let Some(labels) = labels else { return Meant::Nothing };
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        match *labels.as_slice() {
            [] => Meant::Apex,
            [SERVICE | ADDRESS] => Meant::Branch,
            [service, SERVICE] => Meant::Service(service.to_owned()),
            [instance, service, SERVICE] => {
                Meant::Instance { service: service.to_owned(), instance: instance.to_owned() }
            }
            [address, ADDRESS] => written(address).map_or(Meant::Nothing, Meant::Address),
            _ => Meant::Nothing,
        }
    }

    /// Where an SRV record points, and the address that belongs to it, if it is here.
    pub(super) fn target(&self, service: &str, found: &Found) -> Option<(Name, Option<IpAddr>)> {
        let Ok(address) = found.address.parse::<IpAddr>() else {
            let mut host = Name::from_ascii(&found.address).ok()?;
            host.set_fqdn(true);
            return Some((host, None));
        };
        let own = label_of(found.instance.as_bytes()).filter(|label| *label == found.instance);
        let hex = address_label(address);
        let labels = match &own {
            Some(instance) => vec![instance.as_str(), service, SERVICE],
            None => vec![hex.as_str(), ADDRESS],
        };
        let labels = labels.into_iter().chain(self.labels.iter().map(String::as_str));
        Some((Name::from_labels(labels.map(str::as_bytes)).ok()?, Some(address)))
    }

    /// A name right below the zone.
    pub(super) fn child(&self, label: &str) -> Option<Name> {
        let labels = [label].into_iter().chain(self.labels.iter().map(String::as_str));
        Name::from_labels(labels.map(str::as_bytes)).ok()
    }
}

fn is_label(label: &[u8]) -> bool {
    (1..=LABEL).contains(&label.len()) && label.iter().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(b))
}

/// A label in lower case, if it is one that can be registered.
fn label_of(label: &[u8]) -> Option<String> {
    is_label(label).then(|| String::from_utf8_lossy(label).to_ascii_lowercase())
}

/// An address as a label: its bytes in hexadecimal.
fn address_label(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => format!("{:08x}", u32::from(v4)),
        IpAddr::V6(v6) => format!("{:032x}", u128::from(v6)),
    }
}

fn written(label: &str) -> Option<IpAddr> {
    let is_hex = label.bytes().all(|b| b.is_ascii_hexdigit());
    match label.len() {
        8 if is_hex => u32::from_str_radix(label, 16).ok().map(|bits| Ipv4Addr::from(bits).into()),
        32 if is_hex => u128::from_str_radix(label, 16).ok().map(|bits| Ipv6Addr::from(bits).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meant(name: &str) -> Meant {
        let zone = Zone::new("Wardlock.", 0).expect("a zone");
        // As labels: on the wire they may have bytes that no name in text may.
        let labels = name.split('.').filter(|label| !label.is_empty());
        zone.meant(&Name::from_labels(labels.map(str::as_bytes)).expect("a name"))
    }

    #[test]
    fn names_mean_what_the_table_says() {
        assert_eq!(meant("wardlock."), Meant::Apex);
        assert_eq!(meant("service.wardlock."), Meant::Branch);
        assert_eq!(meant("PayMents.Service.WARDLOCK."), Meant::Service("payments".into()));
        let instance = Meant::Instance { service: "payments".into(), instance: "i-1".into() };
        assert_eq!(meant("I-1.payments.service.wardlock."), instance);
        assert_eq!(meant("7f000001.addr.wardlock."), Meant::Address(Ipv4Addr::LOCALHOST.into()));
        let six = format!("{}1.addr.wardlock.", "0".repeat(31));
        assert_eq!(meant(&six), Meant::Address(Ipv6Addr::LOCALHOST.into()));
        for nothing in ["+f000001.addr.wardlock.", "7f0001.addr.wardlock.", "a.b.c.service.wardlock.", "x.wardlock."] {
            assert_eq!(meant(nothing), Meant::Nothing, "{nothing}");
        }
        for foreign in [".", "service.", "wardlock.example.", "payments.service.consul.", "xwardlock."] {
            assert_eq!(meant(foreign), Meant::Foreign, "{foreign}");
        }
    }

    #[test]
    fn bytes_that_no_label_may_have_mean_nothing() {
        let zone = Zone::new("wardlock", 1).expect("a zone");
        for label in [&b"a.b"[..], b"a b", b"\xff", b"a\0b", b"*"] {
            let name = Name::from_labels([label, b"service", b"wardlock"]).expect("DNS carries any bytes");
            assert_eq!(zone.meant(&name), Meant::Nothing, "{label:?}");
        }
    }

    #[test]
    fn a_target_can_be_resolved_whatever_the_instance_is_called() {
        let zone = Zone::new("wardlock", 0).expect("a zone");
        let target = |instance: &str, address: &str| {
            let found = Found { instance: instance.into(), address: address.into(), port: 1, weight: 1 };
            zone.target("payments", &found).map(|(name, at)| (name.to_ascii(), at))
        };
        let at = Some(IpAddr::from([10, 0, 0, 1]));
        assert_eq!(target("i-1", "10.0.0.1"), Some(("i-1.payments.service.wardlock.".into(), at)));
        for strange in ["I-1", "a.b", "ü", ""] {
            assert_eq!(target(strange, "10.0.0.1"), Some(("0a000001.addr.wardlock.".into(), at)), "{strange}");
        }
        assert_eq!(target("i-1", "host.example"), Some(("host.example.".into(), None)));
    }

    #[test]
    fn wrong_zones_are_refused() {
        for zone in ["", ".", "a..b", "a b", "-ü", &"a".repeat(64), &format!("{0}.{0}", "a".repeat(60))] {
            assert!(Zone::new(zone, 0).is_err(), "{zone:?}");
        }
        assert_eq!(Zone::new("wardlock", 2).err(), Some(ZoneError::Ttl(2)));
    }
}
