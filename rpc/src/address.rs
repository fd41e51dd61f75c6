//! Addresses as people write them.

/// The longest name of a host has 253 bytes, the longest port 5.
const BYTES_MAX: usize = 253 + 1 + 5;

/// Takes `host:port` with a port that can be connected to, and says what is wrong with all else.
/// Whether there is such a host is found out when it is needed.
pub fn host_and_port(text: &str) -> Result<String, String> {
    if text.len() > BYTES_MAX {
        return Err(format!("an address of {} bytes; they have at most {BYTES_MAX}", text.len()));
    }
    let port = text.rsplit_once(':').and_then(|(host, port)| {
        let port = port.parse::<u16>().ok()?;
        (!host.is_empty() && port != 0).then_some(port)
    });
    match port {
        Some(_) => Ok(text.to_owned()),
        None => Err(format!("`{text}` is no host:port, for instance 127.0.0.1:7100")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_a_host_and_a_port() {
        for good in ["127.0.0.1:7100", "[::1]:7100", "localhost:1", "kv-0.kv.svc:65535"] {
            assert_eq!(host_and_port(good), Ok(good.to_owned()));
        }
        let long = format!("{}:1", "a".repeat(300));
        for wrong in ["", ":", "a", "a:", ":7", "a:0", "a:70000", "a:-1", "a:b", &long] {
            assert!(host_and_port(wrong).is_err(), "{wrong}");
        }
    }
}
