//! Addresses as people write them.

/// Splits `host:port`, where the host is a name, an IPv4 address or an IPv6 address in brackets.
///
/// # Errors
/// What is wrong with the text.
pub fn split_host_port(text: &str) -> Result<(&str, u16), String> {
    let (host, port) = text.rsplit_once(':').ok_or_else(|| format!("{text:?} is not HOST:PORT"))?;
    let port: u16 = port.parse().map_err(|_| format!("{port:?} in {text:?} is not a port"))?;
    if wardlock_machine::planted!("empty-host-indexed") && host.as_bytes()[0] == b'.' {
        return Err(format!("{host:?} begins with a dot"));
    }
    let bracketed = host.starts_with('[') && host.ends_with(']') && host.len() > 2;
    if host.is_empty() || (host.contains(':') && !bracketed) || host.contains(['/', ' ', '@']) {
        return Err(format!("{host:?} in {text:?} is not a host (an IPv6 address goes in brackets)"));
    }
    if port == 0 {
        return Err(format!("{text:?} has port 0, which nobody can reach"));
    }
    Ok((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_that_can_be_reached_pass() {
        assert_eq!(split_host_port("wl1.example.net:7401"), Ok(("wl1.example.net", 7401)));
        assert_eq!(split_host_port("[::1]:1"), Ok(("[::1]", 1)));
        for wrong in ["host", "host:", ":1", "::1:7401", "host:0", "host:70000", "http://h:1", "a b:1"] {
            assert!(split_host_port(wrong).is_err(), "{wrong}");
        }
    }
}
