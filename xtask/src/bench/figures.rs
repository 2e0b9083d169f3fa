//! What a guest has measured.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};

/// What `lockc-tests bench` can be asked for. Each is measured on the host, in a container, or both, and its figures
/// are called `NAME-host` and `NAME-contained`.
pub(crate) const CONFIGURATIONS: &[&str] = &[
    "none",
    "landlock",
    "fanotify",
    "fapolicyd",
    "apparmor",
    "lockc",
    "audit",
    "rules-100",
    "rules-1000",
    "rules-10000",
    "unloaded",
    "modify-return",
    "floor",
];

/// Operation → instructions.
pub(crate) type Costs = BTreeMap<String, f64>;

/// Instructions for each operation in each configuration.
#[derive(Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Figures {
    /// Release of the guest's kernel.
    pub(crate) kernel: String,
    pub(crate) instructions: BTreeMap<String, Costs>,
}

impl Figures {
    /// Reads `kernel RELEASE`, then `CONFIGURATION OPERATION INSTRUCTIONS` lines.
    pub(crate) fn parse(said: &str) -> Result<Self> {
        let mut lines = said.lines();
        let kernel = lines.next().and_then(|line| line.strip_prefix("kernel "));
        let kernel = kernel.context("the guest does not name its kernel first")?.to_owned();
        let mut instructions = BTreeMap::<String, Costs>::new();
        for line in lines {
            let mut words = line.split(' ');
            let (Some(configuration), Some(operation), Some(count), None) =
                (words.next(), words.next(), words.next(), words.next())
            else {
                bail!("the guest said {line:?}");
            };
            let count: f64 = count.parse().with_context(|| format!("the guest said {line:?}"))?;
            let costs = instructions.entry(configuration.to_owned()).or_default();
            let before = costs.insert(operation.to_owned(), count);
            ensure!(before.is_none(), "the guest measured twice: {line}");
        }
        Ok(Self { kernel, instructions })
    }

    /// The lesser of each figure, of two boots of the same kernel.
    pub(crate) fn least(mut self, other: Self) -> Self {
        for (configuration, costs) in other.instructions {
            let least = self.instructions.entry(configuration).or_default();
            for (operation, count) in costs {
                let found = least.entry(operation).or_insert(count);
                *found = found.min(count);
            }
        }
        self
    }

    pub(crate) fn get(&self, configuration: &str, operation: &str) -> Option<f64> {
        self.instructions.get(configuration)?.get(operation).copied()
    }

    /// Instructions that the configuration adds to those without any BPF program.
    pub(crate) fn added(&self, configuration: &str, operation: &str) -> Option<f64> {
        let base = self.get(without(configuration)?, operation)?;
        Some(self.get(configuration, operation)? - base)
    }
}

/// The configuration without any BPF program that this one is compared with.
pub(crate) fn without(configuration: &str) -> Option<&'static str> {
    match configuration.rsplit_once('-')?.1 {
        "host" => Some("none-host"),
        "contained" => Some("none-contained"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "kernel 6.12.1\nnone-host open 5000.0\nlockc-host open 5300.5\n";

    #[test]
    fn what_the_guest_says_is_read() {
        let figures = Figures::parse(SAID).unwrap();
        assert_eq!(figures.kernel, "6.12.1");
        assert_eq!(figures.get("none-host", "open"), Some(5000.0));
        assert_eq!(figures.added("lockc-host", "open"), Some(300.5));
        assert_eq!(figures.added("lockc-contained", "open"), None);
        assert_eq!(
            toml::from_str::<Figures>(&toml::to_string(&figures).unwrap()).unwrap(),
            figures
        );
    }

    #[test]
    fn of_two_boots_the_least_counts() {
        let again = "kernel 6.12.1\nnone-host open 5001.0\nlockc-host open 5290.0\n";
        let least = |one, other| {
            let parse = |said| Figures::parse(said).unwrap();
            let figures = parse(one).least(parse(other));
            (figures.get("none-host", "open"), figures.get("lockc-host", "open"))
        };
        assert_eq!(least(SAID, again), (Some(5000.0), Some(5290.0)));
        assert_eq!(least(again, SAID), least(SAID, again));
    }

    #[test]
    fn what_it_should_not_say_is_an_error() {
        for said in ["", "none-host open 1\n", "kernel 6\na b\n", "kernel 6\na b c\n"] {
            assert!(Figures::parse(said).is_err(), "{said}");
        }
        assert!(Figures::parse(&format!("{SAID}none-host open 1\n")).is_err());
    }
}
