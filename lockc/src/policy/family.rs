//! Families of sockets.

use std::fmt;

/// Those that not every container has, by their names in the configuration (`address_families(7)`, man-pages 6.9;
/// numbers: `include/linux/socket.h`, 6.12).
const FAMILIES: &[(&str, u16)] = &[
    ("alg", 38),
    ("appletalk", 5),
    ("atmpvc", 8),
    ("atmsvc", 20),
    ("ax25", 3),
    ("bluetooth", 31),
    ("caif", 37),
    ("can", 29),
    ("ib", 27),
    ("ieee802154", 36),
    ("ipx", 4),
    ("isdn", 34),
    ("iucv", 32),
    ("kcm", 41),
    ("key", 15),
    ("llc", 26),
    ("mctp", 45),
    ("mpls", 28),
    ("netrom", 6),
    ("nfc", 39),
    ("phonet", 35),
    ("qipcrtr", 42),
    ("rds", 21),
    ("rose", 11),
    ("rxrpc", 33),
    ("smc", 43),
    ("tipc", 30),
    ("vsock", 40),
    ("x25", 9),
    ("xdp", 44),
];

/// A family of sockets that a policy may allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Family(u16);

impl Family {
    /// By its name in the configuration.
    pub fn named(name: &str) -> Option<Self> {
        FAMILIES.iter().find(|(known, _)| *known == name).map(|(_, number)| Self(*number))
    }

    /// All names, sorted.
    pub fn names() -> impl Iterator<Item = &'static str> {
        FAMILIES.iter().map(|(name, _)| *name)
    }

    /// `AF_…`.
    pub const fn number(self) -> u16 {
        self.0
    }

    /// By a number from the kernel; `None` for one that has no name here.
    pub fn of_number(number: u32) -> Option<Self> {
        FAMILIES
            .iter()
            .find(|(_, known)| u32::from(*known) == number)
            .map(|(_, number)| Self(*number))
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = FAMILIES.iter().find(|(_, number)| *number == self.0);
        f.write_str(found.map_or("unknown", |(name, _)| name))
    }
}

#[cfg(test)]
mod tests {
    use lockc_common::network::is_usual_family;

    use super::*;

    #[test]
    fn families() {
        for name in Family::names() {
            let family = Family::named(name).unwrap();
            assert_eq!(family.to_string(), name);
            assert_eq!(Family::of_number(family.number().into()), Some(family));
            assert!(!is_usual_family(family.number().into()), "{name}");
        }
        assert!(Family::names().is_sorted());
        assert!(Family::named("inet").is_none() && Family::of_number(2).is_none());
    }
}
