//! What a policy says about the network.

use std::{collections::BTreeSet, fmt, net::IpAddr, str::FromStr};

use lockc_common::{NetworkKey, NetworkVerdict, network::family};

use super::{family::Family, resolved::Access};

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
    /// Families of sockets that may be made besides those that every container has.
    pub families: Vec<Family>,
}

/// An entry of the kernel side's trie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetworkRule {
    /// Its key, `rules` apart.
    pub key: NetworkKey,
    /// How many bits of the key count, `rules` among them.
    pub bits: u32,
    /// What it says.
    pub verdict: NetworkVerdict,
}

impl Network {
    /// Number of its rules.
    pub fn rule_count(&self) -> usize {
        self.deny.len() + self.allow.len() + self.families.len()
    }

    /// Whether it is up to an address if it may be talked to.
    pub fn restricts_addresses(&self) -> bool {
        self.default == Access::Deny || !self.deny.is_empty()
    }

    /// The rules as the kernel side has them. A later one about the same addresses wins: denials
    /// come last.
    pub fn kernel_rules(&self) -> Vec<NetworkRule> {
        let mut rules = Vec::new();
        if self.restricts_addresses() {
            if self.default == Access::Deny {
                for kind in [family::INET, family::INET6] {
                    let key = NetworkKey { kind, ..NetworkKey::default() };
                    let verdict = NetworkVerdict::new(0, true);
                    rules.push(NetworkRule { key, bits: NetworkKey::ADDRESS_AT, verdict });
                }
            }
            rules.extend(self.allow.iter().map(|endpoint| endpoint.kernel_rule(false)));
            rules.extend(self.deny.iter().map(|endpoint| endpoint.kernel_rule(true)));
        }
        rules.extend(self.families.iter().map(|family| NetworkRule {
            key: NetworkKey {
                kind: NetworkKey::FAMILY,
                port: family.number(),
                ..NetworkKey::default()
            },
            bits: NetworkKey::BITS,
            verdict: NetworkVerdict::new(0, false),
        }));
        rules
    }

    /// What is said about the addresses of `network`, of which no rule for fewer takes anything away: the rule
    /// for the fewest addresses wins, of those the one with a port, of those the denial.
    fn is_denied(&self, network: &Endpoint) -> bool {
        let rules =
            self.allow.iter().map(|it| (it, false)).chain(self.deny.iter().map(|it| (it, true)));
        rules
            .filter(|(rule, _)| rule.covers(network))
            .max_by_key(|(rule, denies)| (rule.length, rule.port.is_some(), *denies))
            .map_or(self.default == Access::Deny, |(_, denies)| denies)
    }

    /// Whether a container might talk to someone under `self` to whom it cannot under `other`. In doubt it
    /// might: this is asked while a runtime waits, and rules without end are not gone through.
    pub fn is_looser_than(&self, other: &Self) -> bool {
        if self.families.iter().any(|family| !other.families.contains(family)) {
            return true;
        }
        if self.mode == NetworkMode::None || other.mode == NetworkMode::None {
            return self.mode < other.mode;
        }
        if !other.restricts_addresses() || self == other {
            return false;
        }
        if !self.restricts_addresses() {
            return true; // by raw sockets, if by nothing else
        }
        // Between the networks and ports of all rules the verdicts of both sides do not change.
        let rules = || [&self.allow, &self.deny, &other.allow, &other.deny].into_iter().flatten();
        let everything = Endpoint::EVERYTHING;
        let networks = || rules().chain(&everything);
        let ports: BTreeSet<_> = rules().map(|rule| rule.port).chain([None]).collect();
        let count = rules().count();
        if count * count * ports.len() > MAX_COMPARED {
            return true;
        }
        let mut all =
            networks().flat_map(|network| ports.iter().map(|&port| Endpoint { port, ..*network }));
        all.any(|endpoint| !self.is_denied(&endpoint) && other.is_denied(&endpoint))
    }
}

/// Most comparisons of two rules that [`Network::is_looser_than`] makes: about a millisecond.
const MAX_COMPARED: usize = 100_000;

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
    /// All addresses there are.
    const EVERYTHING: [Self; 2] = [
        Self { address: IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), length: 0, port: None },
        Self { address: IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED), length: 0, port: None },
    ];

    fn kernel_rule(&self, denies: bool) -> NetworkRule {
        let (kind, octets) = match self.address {
            IpAddr::V4(address) => {
                let [a, b, c, d] = address.octets();
                (family::INET, [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
            }
            IpAddr::V6(address) => (family::INET6, address.octets()),
        };
        let mut address = [0; 4];
        for (word, bytes) in address.iter_mut().zip(octets.chunks_exact(4)) {
            *word = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        NetworkRule {
            key: NetworkKey { rules: 0, kind, port: self.port.unwrap_or(0), address },
            bits: NetworkKey::ADDRESS_AT + u32::from(self.length),
            verdict: NetworkVerdict::new(self.length, denies),
        }
    }

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
    use lockc_common::network::Target;
    use proptest::prelude::*;

    use super::*;

    fn network(deny: &[&str], allow: &[&str], default: Access) -> Network {
        let parse = |list: &[&str]| list.iter().map(|text| text.parse().unwrap()).collect();
        Network { deny: parse(deny), allow: parse(allow), default, ..Network::default() }
    }

    /// What the kernel side does: of the entries that agree with the key in as many bits as they
    /// have, the longest; once for any port, and once for this one.
    fn kernel(rules: &[NetworkRule], to: &Endpoint) -> bool {
        let bytes = |key: &NetworkKey| {
            let mut bytes = key.kind.to_ne_bytes().to_vec();
            bytes.extend(key.port.to_ne_bytes());
            bytes.extend(key.address.map(u32::to_ne_bytes).concat());
            bytes
        };
        let look_up = |key: &NetworkKey| {
            let agrees = |rule: &NetworkRule| {
                let (ours, theirs) = (bytes(key), bytes(&rule.key));
                (0..rule.bits - 32).all(|bit| {
                    let (at, mask) = (bit as usize / 8, 0x80 >> (bit % 8));
                    ours[at] & mask == theirs[at] & mask
                })
            };
            // A later entry takes the place of an earlier one with the same bits.
            let found = rules.iter().filter(|rule| agrees(rule)).max_by_key(|rule| rule.bits);
            found.map_or(NetworkVerdict(0), |rule| rule.verdict)
        };
        let key = to.kernel_rule(false).key;
        let target = Target { kind: key.kind, port: key.port, address: key.address };
        assert_eq!(target.kind == family::INET, to.address.is_ipv4());
        let any = look_up(&NetworkKey { port: 0, ..key });
        NetworkVerdict::is_denied(any, look_up(&key))
    }

    fn endpoint() -> impl Strategy<Value = String> {
        let v4 = prop::sample::select(vec![
            "0.0.0.0/0",
            "10.0.0.0/8",
            "10.0.0.0/9",
            "10.1.0.0/16",
            "10.1.2.3/32",
        ]);
        let v6 = prop::sample::select(vec!["::/0", "fd00::/8", "fd00::1/128"]);
        let port = prop::sample::select(vec!["", ":80", ":443"]);
        prop_oneof![
            (v4, port.clone()).prop_map(|(address, port)| format!("{address}{port}")),
            (v6, port).prop_map(|(address, port)| match port {
                "" => address.to_owned(),
                port => format!("[{address}]{port}"),
            }),
        ]
    }

    fn networks() -> impl Strategy<Value = Network> {
        let list = || prop::collection::vec(endpoint(), 0..5);
        (list(), list(), any::<bool>()).prop_map(|(deny, allow, strict)| {
            let texts = |list: &[String]| -> Vec<Endpoint> {
                list.iter().map(|text| text.parse().unwrap()).collect()
            };
            let default = if strict { Access::Deny } else { Access::Allow };
            Network { deny: texts(&deny), allow: texts(&allow), default, ..Network::default() }
        })
    }

    /// Single addresses that lie between the networks above.
    fn tried() -> Vec<Endpoint> {
        let addresses = ["1.1.1.1", "10.200.0.1", "10.0.0.1", "10.1.0.1", "10.1.2.3"];
        let mut tried = Vec::new();
        for port in [80, 443, 8080] {
            tried.extend(addresses.map(|it| format!("{it}:{port}").parse::<Endpoint>().unwrap()));
            tried.extend(
                ["2001::1", "fd00::2", "fd00::1"]
                    .map(|it| format!("[{it}]:{port}").parse::<Endpoint>().unwrap()),
            );
        }
        tried
    }

    proptest! {
        #[test]
        fn compiled_rules_say_what_was_typed(network in networks()) {
            let rules = network.kernel_rules();
            for to in tried() {
                prop_assert_eq!(kernel(&rules, &to), network.is_denied(&to), "{}", to);
            }
        }

        /// Whoever can be talked to under one and not under the other makes it looser.
        #[test]
        fn looser_means_that_someone_can_be_reached(one in networks(), other in networks()) {
            let found = tried().iter().any(|to| !one.is_denied(to) && other.is_denied(to));
            prop_assert!(!found || one.is_looser_than(&other));
            prop_assert!(!one.is_looser_than(&one));
        }
    }

    #[test]
    fn the_rule_for_the_fewest_addresses_wins() {
        let policy = network(
            &["0.0.0.0/0", "10.1.0.0/16", "10.2.0.0/16:80"],
            &["10.0.0.0/8", "10.2.0.0/16", "10.1.2.3:443"],
            Access::Allow,
        );
        for (to, denied) in [
            ("1.1.1.1:80", true),
            ("10.9.0.1:80", false),
            ("10.1.0.1:443", true),
            ("10.1.2.3:443", false),
            ("10.1.2.3:80", true),
            ("10.2.0.1:80", true),
            ("10.2.0.1:81", false),
            ("[fd00::1]:80", false),
        ] {
            let to: Endpoint = to.parse().unwrap();
            assert_eq!(policy.is_denied(&to), denied, "{to}");
            assert_eq!(kernel(&policy.kernel_rules(), &to), denied, "{to}");
        }
    }

    #[test]
    fn in_doubt_it_is_looser() {
        let many: Vec<String> = (0..=255).map(|it| format!("10.{it}.0.0/16:{}", it + 1)).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let (all, most) =
            (network(&many, &[], Access::Allow), network(&many[1..], &[], Access::Allow));
        assert!(
            all.is_looser_than(&most) && most.is_looser_than(&all) && !all.is_looser_than(&all)
        );
        // No address is denied, and yet there are no raw sockets.
        let strict = network(&[], &["0.0.0.0/0", "::/0"], Access::Deny);
        assert!(Network::default().is_looser_than(&strict));
        assert!(!strict.is_looser_than(&Network::default()));
    }

    #[test]
    fn exceptions_alone_restrict_nothing() {
        let open = network(&[], &["10.0.0.0/8"], Access::Allow);
        assert!(!open.restricts_addresses() && open.kernel_rules().is_empty());
        // An exception reopens only what it is about.
        let deny = network(&["10.0.0.0/8"], &[], Access::Allow);
        let hole = network(&["10.0.0.0/8"], &["10.1.0.0/16"], Access::Allow);
        let patched = network(&["10.0.0.0/8", "10.1.2.0/24"], &["10.1.0.0/16"], Access::Allow);
        assert!(hole.is_looser_than(&deny) && hole.is_looser_than(&patched));
        assert!(!patched.is_looser_than(&hole) && !deny.is_looser_than(&patched));
    }

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
