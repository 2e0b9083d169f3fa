//! What a policy says about the network.

use std::{fmt, net::IpAddr, str::FromStr};

use super::resolved::Access;

/// The network of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// Whether there is one.
    pub mode: NetworkMode,
    /// What may not be talked to.
    pub deny: Vec<Endpoint>,
    /// Exceptions.
    pub allow: Vec<Endpoint>,
    /// What applies to all other addresses.
    pub default: Access,
}

/// Whether a container has a network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NetworkMode {
    /// What its engine gave it.
    #[default]
    HostDefault,
    /// None at all.
    None,
}

impl NetworkMode {
    /// Its name in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::HostDefault => "host-default",
            Self::None => "none",
        }
    }
}

/// Addresses, and possibly one port: `ADDRESS[/LENGTH][:PORT]`, with brackets around
/// address and length where an IPv6 address has a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    address: IpAddr,
    length: u8,
    port: Option<u16>,
}

/// Why a text is no [`Endpoint`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Not of that form.
    #[error("`{text}` is no address, such as 10.0.0.0/8, 10.0.0.1:443 or [fd00::/8]:443")]
    Form {
        /// The text.
        text: String,
    },
    /// The address has bits behind the prefix length, which is a slip as a rule.
    #[error("`{text}` has address bits after its prefix length")]
    HostBits {
        /// The text.
        text: String,
        /// The network that it lies in.
        network: Endpoint,
    },
}

impl Endpoint {
    /// Whether all that `other` means is meant by it too.
    pub fn covers(&self, other: &Self) -> bool {
        self.length <= other.length
            && self.address.is_ipv4() == other.address.is_ipv4()
            && masked(other.address, self.length) == self.address
            && (self.port.is_none() || self.port == other.port)
    }
}

fn masked(address: IpAddr, length: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(length.min(32))).unwrap_or(0);
            IpAddr::V4((u32::from(v4) & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(length.min(128))).unwrap_or(0);
            IpAddr::V6((u128::from(v6) & mask).into())
        }
    }
}

/// A number without sign or leading zeros.
fn number<T: FromStr>(text: &str) -> Option<T> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit())
        && (text.len() == 1 || !text.starts_with('0'));
    plain.then(|| text.parse().ok()).flatten()
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (network, port) = if let Some(rest) = text.strip_prefix('[') {
                let (network, port) = rest.split_once("]:")?;
                (network, Some(port))
            } else if text.matches(':').count() == 1 {
                let (network, port) = text.split_once(':')?;
                (network, Some(port))
            } else {
                (text, None)
            };
            let (address, length) = match network.split_once('/') {
                Some((address, length)) => (address, Some(length)),
                None => (network, None),
            };
            let address: IpAddr = address.parse().ok()?;
            let most = if address.is_ipv4() { 32 } else { 128 };
            let length = match length {
                Some(length) => number(length).filter(|length| *length <= most)?,
                None => most,
            };
            let port = match port {
                Some(port) => Some(number(port).filter(|port| *port > 0)?),
                None => None,
            };
            Some(Self { address, length, port })
        };
        let shown = || text.escape_debug().to_string();
        let endpoint = parse().ok_or_else(|| EndpointError::Form { text: shown() })?;
        let network = Self { address: masked(endpoint.address, endpoint.length), ..endpoint };
        if network == endpoint {
            Ok(endpoint)
        } else {
            Err(EndpointError::HostBits { text: shown(), network })
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, length, port } = self;
        match port {
            None => write!(f, "{address}/{length}"),
            Some(port) if address.is_ipv4() => write!(f, "{address}/{length}:{port}"),
            Some(port) => write!(f, "[{address}/{length}]:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        for (text, expected) in [
            ("169.254.169.254/32", Ok("169.254.169.254/32")),
            ("10.1.2.3", Ok("10.1.2.3/32")),
            ("10.0.0.0/8:443", Ok("10.0.0.0/8:443")),
            ("0.0.0.0/0", Ok("0.0.0.0/0")),
            ("::/0", Ok("::/0")),
            ("fd00::1", Ok("fd00::1/128")),
            ("[fd00::/8]:443", Ok("[fd00::/8]:443")),
            ("10.0.0.1/8", Err("`10.0.0.1/8` has address bits after its prefix length")),
            ("fd00::1/8", Err("`fd00::1/8` has address bits after its prefix length")),
            ("10.0.0.0/33", Err("")),
            ("10.0.0.0/08", Err("")),
            ("10.0.0.0/+8", Err("")),
            ("10.0.0.0:0", Err("")),
            ("10.0.0.0:65536", Err("")),
            ("example.org", Err("")),
            ("[::]", Err("")),
            ("", Err("")),
        ] {
            let got = text.parse::<Endpoint>();
            match expected {
                Ok(expected) => {
                    let endpoint = got.unwrap();
                    assert_eq!(endpoint.to_string(), expected);
                    assert_eq!(expected.parse(), Ok(endpoint));
                }
                Err("") => assert!(matches!(got, Err(EndpointError::Form { .. })), "{text}"),
                Err(expected) => assert_eq!(got.unwrap_err().to_string(), expected),
            }
        }
    }

    #[test]
    fn covering() {
        let covers = |a: &str, b: &str| {
            a.parse::<Endpoint>().unwrap().covers(&b.parse::<Endpoint>().unwrap())
        };
        for (a, b, expected) in [
            ("10.0.0.0/8", "10.1.0.0/16", true),
            ("10.0.0.0/8", "10.0.0.0/8:443", true),
            ("10.0.0.0/8:443", "10.0.0.0/8", false),
            ("10.0.0.0/8:443", "10.0.0.1:443", true),
            ("10.0.0.0/8:443", "10.0.0.1:80", false),
            ("10.1.0.0/16", "10.0.0.0/8", false),
            ("0.0.0.0/0", "::/0", false),
            ("::/0", "fd00::1", true),
        ] {
            assert_eq!(covers(a, b), expected, "{a} {b}");
        }
    }
}
