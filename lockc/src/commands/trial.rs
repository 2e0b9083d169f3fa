//! `lockc try`: what another configuration would change.

use std::{fmt::Write as _, path::PathBuf};

use anyhow::{Result, bail};
use nix::unistd::Uid;

use super::ps;
use crate::{
    config::{self, Config},
    explain::{Case, Explanation, Request, plain},
    policy::Decision,
    runtime::state,
    state::Container,
};

/// Shows what a configuration would change for the containers that run now, before it is put in place.
///
/// Decides about each by FILE, and by the drop-ins in `lockc.d` beside it, as the daemon would, and compares with what the
/// container has. Nothing is changed. Needs root, which may read all bundles.
#[derive(Debug, clap::Args)]
pub(super) struct Trial {
    /// The configuration to try
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The configuration in place, with which policies are compared
    #[arg(long, value_name = "FILE", default_value = config::PATH)]
    config: PathBuf,
}

impl Trial {
    pub(super) fn execute(self) -> Result<()> {
        if !nix::unistd::geteuid().is_root() {
            bail!("`lockc try` needs root");
        }
        let new = Config::load(&self.file)?;
        let old = Config::load(&self.config)?;
        let (containers, note) = ps::containers()?;
        if let Some(note) = note {
            super::note(&note);
        }
        let tried: Vec<Tried<'_>> =
            containers.containers.iter().map(|it| Tried::of(it, &old, &new)).collect();
        super::print(&text(&tried))?;
        Ok(())
    }
}

/// A container, and what would become of it.
struct Tried<'c> {
    container: &'c Container,
    outcome: Outcome,
}

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Same,
    /// Another policy, or mode.
    Moves {
        policy: String,
        mode: &'static str,
        why: String,
    },
    /// The policy keeps its name, and says something else.
    Changes,
    /// Its bundle cannot be read: the daemon knows what it needs, and this command does not.
    Unknown(String),
}

impl<'c> Tried<'c> {
    fn of(container: &'c Container, old: &Config, new: &Config) -> Self {
        let outcome = match decide(container, new) {
            Ok(decision) => Outcome::of(container, &decision, old, new),
            Err(why) => Outcome::Unknown(why),
        };
        Self { container, outcome }
    }
}

impl Outcome {
    fn of(container: &Container, decision: &Decision, old: &Config, new: &Config) -> Self {
        let (policy, mode) = (&decision.policy, decision.mode.name());
        if container.policy.as_ref() != Some(policy) || container.mode.as_deref() != Some(mode) {
            return Self::Moves { policy: policy.clone(), mode, why: decision.why.clone() };
        }
        if old.policies.get(policy) == new.policies.get(policy) {
            Self::Same
        } else {
            Self::Changes
        }
    }
}

/// What would be decided.
fn decide(container: &Container, config: &Config) -> Result<Decision, String> {
    let Some(id) = &container.id else {
        return Ok(Decision::fallback(config, "nobody knows more of it"));
    };
    let request =
        Request { what: id.into(), id: None, owner: container.owner, runtime: None, root: None };
    let case = Case::find(&request, config, state::RUN.as_ref()).map_err(|it| it.to_string())?;
    if Some(case.owner.value) != container.owner.map(Uid::from_raw) {
        return Err("the container that has this id is another user's".to_owned());
    }
    let explanation = Explanation::of(case, config).map_err(|error| error.to_string())?;
    Ok(explanation.decision().clone())
}

fn text(tried: &[Tried<'_>]) -> String {
    let mut text = String::new();
    for Tried { container, outcome } in tried {
        let shown = |text: &Option<String>| text.as_ref().map_or("-".to_owned(), |it| plain(it));
        let now = format!("{} ({})", shown(&container.policy), shown(&container.mode));
        let what = match outcome {
            Outcome::Same => continue,
            Outcome::Moves { policy, mode, why } => {
                format!("{now} -> {} ({mode}): {}", plain(policy), plain(why))
            }
            Outcome::Changes => format!("{now}, which says something else"),
            Outcome::Unknown(why) => format!("{now} -> not known: {}", plain(why)),
        };
        let name = container.name.as_ref().map_or_else(String::new, |it| format!(" {}", plain(it)));
        // Writing to a string does not fail.
        let _ = writeln!(text, "{}{name}: {what}", plain(&container.shown_id()));
    }
    let changed = tried.iter().filter(|it| it.outcome != Outcome::Same).count();
    let _ = writeln!(text, "{changed} of {} containers would change", tried.len());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_is_told() {
        let parse = |text: &str| Config::parse(text, "x.toml".as_ref()).unwrap();
        let old = parse("");
        let new =
            parse("[policy.baseline]\nio_uring = \"allow\"\n[default]\npolicy = \"restricted\"\n");
        let has = |policy: &str| Container {
            id: Some("web".into()),
            policy: Some(policy.into()),
            mode: Some("enforce".into()),
            ..Container::default()
        };
        let decision = Decision::fallback(&new, "it is the default");
        let of = |policy: &str, new: &Config| Outcome::of(&has(policy), &decision, &old, new);
        assert_eq!(of("restricted", &new), Outcome::Same);
        let Outcome::Moves { policy, mode, why } = of("baseline", &new) else { panic!() };
        assert_eq!((policy.as_str(), mode), ("restricted", "enforce"));
        let baseline = Decision { policy: "baseline".into(), ..decision.clone() };
        assert_eq!(Outcome::of(&has("baseline"), &baseline, &old, &new), Outcome::Changes);

        let container = has("baseline");
        let tried = |outcome| Tried { container: &container, outcome };
        let moves = Outcome::Moves { policy, mode, why: why.clone() };
        let said = text(&[tried(Outcome::Same), tried(moves), tried(Outcome::Changes)]);
        let wanted = format!(
            "web: baseline (enforce) -> restricted (enforce): {why}\n\
             web: baseline (enforce), which says something else\n\
             2 of 3 containers would change\n"
        );
        assert_eq!(said, wanted);
    }
}
