//! Which of two policies is the looser one.

use super::{
    Exec, Mode, PathRule, Policy,
    admission::{Admission, Control, Handling},
};

impl Policy {
    /// Whether a container might be able to do something under `self` that it cannot do
    /// under `other`.
    ///
    /// In doubt it is: a policy is *not* looser only if each of its parts is at least as
    /// strict as the same part of the other. Then every operation that the other denies (or
    /// audits) is denied (or audited) by it as well. Two policies can each be looser than
    /// the other.
    pub fn is_looser_than(&self, mode: Mode, other: &Self, other_mode: Mode) -> bool {
        let denials = other.denials.0 & !self.denials.0 != 0;
        (mode == Mode::Audit && other_mode == Mode::Enforce)
            || denials
            || self.paths.is_looser_than(&other.paths)
            || !all_covered(&other.host_paths, &self.host_paths)
            || self.network.is_looser_than(&other.network)
            || self.exec.is_looser_than(&other.exec)
            || admission_is_looser(&self.admission, &other.admission)
    }
}

/// Whether each path of `inner` lies below one of `outer`.
fn all_covered(inner: &[PathRule], outer: &[PathRule]) -> bool {
    inner.iter().all(|path| outer.iter().any(|above| above.covers(path)))
}

impl Exec {
    fn is_looser_than(&self, other: &Self) -> bool {
        // A list of what may be executed leaves out what has no name.
        let fileless = |exec: &Self| exec.fileless.max(exec.rules().default);
        self.rules().is_looser_than(&other.rules())
            || fileless(self) < fileless(other)
            || self.drift < other.drift
    }
}

fn admission_is_looser(own: &Admission, other: &Admission) -> bool {
    let used = |control| other.handling(control) != Handling::Off;
    let below = |path: &String, others: &[String]| {
        others.iter().any(|above| {
            path == above
                || above == "/"
                || path.strip_prefix(above.as_str()).is_some_and(|rest| rest.starts_with('/'))
        })
    };
    // What the other's standard admits anyway is no exception from it.
    let excepted = |name: &String| other.standard.admits(name) || other.capabilities.contains(name);
    Control::ALL.iter().any(|control| own.handling(*control) < other.handling(*control))
        || (own.standard < other.standard && Control::ALL.into_iter().any(used))
        || ((used(Control::Capabilities) || used(Control::Privileged))
            && !own.capabilities.iter().all(excepted))
        || ((used(Control::HostPaths) || used(Control::RuntimeSockets))
            && own.host_paths.iter().any(|path| !below(path, &other.host_paths)))
}

#[cfg(test)]
mod tests {
    use lockc_common::PolicyFlags;

    use super::*;
    use crate::policy::{Access, Family, Level, NetworkMode, Verdict};

    fn looser(a: &Policy, b: &Policy) -> bool {
        a.is_looser_than(Mode::Enforce, b, Mode::Enforce)
    }

    #[test]
    fn levels_are_ordered() {
        let levels = Level::ALL.map(Policy::built_in);
        for (at, a) in levels.iter().enumerate() {
            for (against, b) in levels.iter().enumerate() {
                assert_eq!(looser(a, b), at > against, "{} {}", a.name, b.name);
            }
        }
    }

    #[test]
    fn auditing_is_looser_than_enforcing() {
        let policy = Policy::built_in(Level::Restricted);
        let default = Policy::built_in(Level::Baseline);
        assert!(policy.is_looser_than(Mode::Audit, &default, Mode::Enforce));
        assert!(!policy.is_looser_than(Mode::Audit, &default, Mode::Audit));
        assert!(!policy.is_looser_than(Mode::Enforce, &default, Mode::Audit));
    }

    type Change = fn(&mut Policy, &dyn Fn(&str) -> PathRule);

    /// Each part alone makes a policy looser than one without the change, or stricter.
    #[test]
    fn every_part_counts() {
        let rule = |path: &str| PathRule::new(path).unwrap();
        let stricter: &[(&str, Change)] = &[
            ("denials", |p, _| p.denials.0 |= PolicyFlags::AUDIT),
            ("paths", |p, rule| p.paths.insert(rule("/x"), Verdict::Deny)),
            ("read-only", |p, rule| p.paths.insert(rule("/x"), Verdict::ReadOnly)),
            ("default", |p, _| p.paths.default = Access::Deny),
            ("root", |p, _| p.admission.set(Control::RunAsNonRoot, Handling::Enforce)),
            ("host paths", |p, rule| p.host_paths.push(rule("/x"))),
            ("network mode", |p, _| p.network.mode = NetworkMode::None),
            ("network deny", |p, _| p.network.deny.push("10.0.0.0/8".parse().unwrap())),
            ("network default", |p, _| p.network.default = Access::Deny),
            ("exec deny", |p, rule| p.exec.deny.push(rule("/x"))),
            ("exec allow", |p, rule| p.exec.allow = Some(vec![rule("/x")])),
            ("fileless", |p, _| p.exec.fileless = Access::Deny),
            ("drift", |p, _| p.exec.drift = Access::Deny),
            ("control", |p, _| p.admission.set(Control::Seccomp, Handling::Enforce)),
        ];
        let base = Policy::built_in(Level::Baseline);
        for (what, change) in stricter {
            let mut policy = base.clone();
            change(&mut policy, &rule);
            assert!(looser(&base, &policy), "{what}");
            assert!(!looser(&policy, &base), "{what}");
        }
        let freer: &[(&str, Change)] = &[
            ("path", |p, rule| {
                p.paths.insert(rule("/run/secrets/kubernetes.io/x"), Verdict::Allow);
            }),
            ("user namespaces", |p, _| {
                p.set_access(PolicyFlags::USER_NAMESPACES, Access::Allow);
            }),
            ("io_uring", |p, _| p.set_access(PolicyFlags::IO_URING, Access::Allow)),
            ("capability", |p, _| p.admission.capabilities.push("CAP_NET_ADMIN".into())),
            ("host path", |p, _| p.admission.host_paths.push("/srv".into())),
            ("family", |p, _| p.network.families.extend(Family::named("can"))),
        ];
        for (what, change) in freer {
            let mut policy = base.clone();
            change(&mut policy, &rule);
            assert!(looser(&policy, &base), "{what}");
            assert!(!looser(&base, &policy), "{what}");
        }
    }

    #[test]
    fn an_exception_for_what_the_standard_admits_is_none() {
        let baseline = Policy::built_in(Level::Baseline);
        let mut own = Policy::built_in(Level::Restricted);
        own.admission.capabilities.push("CAP_NET_BIND_SERVICE".into());
        assert!(!looser(&own, &baseline) && !looser(&own, &Policy::built_in(Level::Restricted)));
        own.admission.capabilities.push("CAP_CHOWN".into());
        assert!(!looser(&own, &baseline) && looser(&own, &Policy::built_in(Level::Restricted)));
    }

    #[test]
    fn exceptions_are_compared_by_what_they_cover() {
        let mut wide = Policy::built_in(Level::Baseline);
        wide.admission.host_paths.push("/srv".into());
        let mut narrow = Policy::built_in(Level::Baseline);
        narrow.admission.host_paths.push("/srv/data".into());
        assert!(!looser(&narrow, &wide) && looser(&wide, &narrow));
        narrow.admission.host_paths[0] = "/srv2".into();
        assert!(looser(&narrow, &wide));
    }
}
