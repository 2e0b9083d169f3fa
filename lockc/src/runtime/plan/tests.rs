use super::*;
use crate::{
    config::OnError,
    policy::{LABEL, Level, Mode, admission::Handling},
    runtime::{
        bundle::Hook,
        cmdline::{CmdlineError, Dialect, parse},
        engine::{self, BundlePlace, Keeper, Records},
    },
};

const ROOT: Uid = Uid::from_raw(0);
const USER: Uid = Uid::from_raw(1000);

fn planned(line: &str) -> Plan {
    let words: Vec<Vec<u8>> = line.split(' ').map(Into::into).collect();
    plan(parse(Dialect::Runc, &words, false).unwrap(), ROOT)
}

fn key(owner: Uid, root: Option<&str>, id: &str) -> ContainerKey {
    ContainerKey::new(owner, root.map(Path::new), ContainerId::new(id).unwrap())
}

#[test]
fn commands() {
    for (line, restore) in
        [("runc create c", false), ("runc run c", false), ("runc restore c", true)]
    {
        let Plan::New(new) = planned(line) else { panic!("{line}") };
        assert_eq!((new.key, new.restore), (key(ROOT, None, "c"), restore));
    }
    let join = |flags| Plan::Act(Action::Join { key: key(ROOT, Some("/r"), "c"), flags });
    assert_eq!(planned("runc --root //r/ exec c sh"), join(0));
    assert_eq!(planned("runc --root /r checkpoint c"), join(RegistrationFlags::CRIU));
    for line in ["runc start c", "runc delete c", "runc list", "runc --version", "runc"] {
        assert_eq!(planned(line), Plan::Act(Action::Unattributed { why: None }), "{line}");
    }
    assert_eq!(planned("runc init"), Plan::Act(Action::Keep));
}

/// A container of no engine.
fn nobody(facts: &Facts, new: &New) -> Identity {
    let place = BundlePlace { path: "/bundle".into(), keeper: Keeper::Anyone };
    engine::identity(facts, &place, &new.target.id, &Records::default())
}

#[test]
fn restoring_needs_a_policy_that_allows_it() {
    let admit = |config: &Config| {
        let Plan::New(new) = planned("runc restore c") else { panic!() };
        let facts = Facts::default();
        let identity = nobody(&facts, &new);
        new.admit(&facts, identity, "runc", config)
    };
    let mut config = Config::default();
    assert_eq!(
        admit(&config),
        Action::Deny {
            why: "policy `baseline` does not allow restoring containers from a checkpoint (no \
              rule matches)"
                .into()
        }
    );
    let Plan::New(new) = planned("runc restore c") else { panic!() };
    assert!(matches!(new.failed(&CmdlineError::Empty, &config), Action::Deny { .. }));
    config.default.policy = Level::Privileged.name().into();
    let Action::Create { decision, flags, .. } = admit(&config) else { panic!() };
    assert_eq!((decision.policy.as_str(), flags), ("privileged", RegistrationFlags::CRIU));
}

#[test]
fn hooks_inside_the_container_are_flagged() {
    let mut facts = Facts::default();
    facts.hooks.start_container.push(Hook::default());
    let admit = |facts: &Facts| {
        let Plan::New(new) = planned("runc create c") else { panic!() };
        let identity = nobody(facts, &new);
        let Action::Create { decision, flags, .. } =
            new.admit(facts, identity, "runc", &Config::default())
        else {
            panic!()
        };
        assert_eq!((decision.policy.as_str(), decision.mode), ("baseline", Mode::Enforce));
        flags
    };
    assert_eq!(admit(&facts), 0);
    facts.hooks.create_container.push(Hook::default());
    assert_eq!(admit(&facts), RegistrationFlags::HOOKS);
}

#[test]
fn a_policy_that_cannot_be_had_is_no_reason_to_start_without() {
    let facts =
        Facts { annotations: [(LABEL.to_owned(), "later".to_owned())].into(), ..Facts::default() };
    let Plan::New(new) = planned("runc create c") else { panic!() };
    let identity = nobody(&facts, &new);
    let config = Config::understand("", "lockc.toml".as_ref());
    assert_eq!(
        new.admit(&facts, identity, "runc", &config),
        Action::Deny {
            why: "its annotation org.lockc.policy asks for policy `later`, which does not exist"
                .into()
        }
    );
}

#[test]
fn errors_go_by_the_configuration() {
    let mut config = Config::default();
    let why = "the argument list is empty".to_owned();
    let action = failed(&CmdlineError::Empty, &config);
    assert_eq!(action, Action::Unattributed { why: Some(why.clone()) });
    let Plan::New(new) = planned("runc create c") else { panic!() };
    assert_eq!(new.failed(&CmdlineError::Empty, &config), action);
    config.daemon.on_error = OnError::Deny;
    assert_eq!(failed(&CmdlineError::Empty, &config), Action::Deny { why });
}

#[test]
fn what_cannot_be_understood_is_no_way_around_admission() {
    let mut config = Config::default();
    config.default.policy = Level::Restricted.name().into();
    let action = failed(&CmdlineError::Empty, &config);
    assert_eq!(action, Action::Deny { why: "the argument list is empty".into() });
    // Where findings are only reported, there is nothing to get around.
    config.default.mode = Mode::Audit;
    assert!(matches!(failed(&CmdlineError::Empty, &config), Action::Unattributed { .. }));
}

#[test]
fn records_are_found_by_key_then_by_id() {
    let records: HashMap<_, _> = [
        (key(ROOT, Some("/run/a"), "x"), 1),
        (key(ROOT, Some("/run/b"), "x"), 2),
        (key(ROOT, Some("/run/a"), "y"), 3),
        (key(USER, None, "x"), 4),
        (key(USER, None, "z"), 5),
    ]
    .into();
    let find = |owner, root, id| key(owner, root, id).find(&records).copied();
    assert_eq!(find(ROOT, Some("/run/a/"), "x"), Some(1));
    assert_eq!(find(ROOT, None, "x"), None, "there are two");
    assert_eq!(find(ROOT, None, "y"), Some(3));
    assert_eq!(find(ROOT, Some("/run/user/1000/runc"), "z"), Some(5));
    assert_eq!(find(USER, Some("/elsewhere"), "x"), Some(4));
    assert_eq!(find(USER, None, "y"), None, "root's container is not the user's");
    assert_eq!(find(USER, Some("/run/a"), "y"), None);
    assert_eq!(find(ROOT, None, "w"), None);
}

#[test]
fn what_a_policy_does_not_admit_does_not_start() {
    let process = Some(crate::runtime::bundle::Process::default());
    let facts = Facts { process, ..Facts::default() };
    let admit = |config: &Config| {
        let Plan::New(new) = planned("runc create c") else { panic!() };
        let identity = nobody(&facts, &new);
        new.admit(&facts, identity, "runc", config)
    };
    let mut config = Config::default();
    let Action::Create { findings, .. } = admit(&config) else { panic!() };
    assert!(findings.iter().all(|finding| finding.handling == Handling::Audit));
    assert!(!findings.is_empty());
    config.default.policy = Level::Restricted.name().into();
    let Action::Deny { why } = admit(&config) else { panic!() };
    assert!(
        why.starts_with("container=c is not admitted by policy restricted (no rule matches): ")
    );
    assert!(why.contains("run_as_non_root: "), "{why}");
    assert!(why.contains("[policy.restricted.admission]"), "{why}");
    config.default.mode = Mode::Audit;
    assert!(matches!(admit(&config), Action::Create { .. }));
}

#[test]
fn annotations_of_kubelets_runtime_count_from_it_alone() {
    let mut facts = Facts::default();
    facts.annotations.insert("io.kubernetes.cri.container-type".into(), "sandbox".into());
    facts.annotations.insert("other".into(), "kept".into());
    let Plan::New(new) = planned("runc create c") else { panic!() };
    let mut identity = nobody(&facts, &new);
    assert_eq!(without_claims(&facts, &identity).annotations.len(), 1);
    identity.engine.value = Engine::Cri;
    assert_eq!(without_claims(&facts, &identity).annotations.len(), 1);
    identity.engine.trusted = true;
    assert_eq!(without_claims(&facts, &identity).annotations.len(), 2);
}

/// Whoever reads the log may put the path into a shell.
#[test]
fn refusals_point_to_the_explanation_of_plain_paths() {
    let process = Some(crate::runtime::bundle::Process::default());
    let facts = Facts { process, ..Facts::default() };
    let mut config = Config::default();
    config.default.policy = Level::Restricted.name().into();
    let refused = |options: &str| {
        let Plan::New(new) = planned(&format!("runc create {options} c")) else { panic!() };
        let identity = nobody(&facts, &new);
        new.judge(&facts, &identity, "runc", &config).refused.unwrap()
    };
    let bundle = "/run/containerd/io.containerd.runtime.v2.task/moby/0a";
    let why = refused(&format!("--bundle {bundle}"));
    assert!(why.ends_with(&format!("; see `lockc explain {bundle}`")), "{why}");
    for options in
        ["--no-pivot", "--bundle b", "--bundle /b;reboot", "--bundle /$(x)", "--bundle /\u{e4}"]
    {
        assert!(!refused(options).contains("lockc explain"), "{options}");
    }
}
