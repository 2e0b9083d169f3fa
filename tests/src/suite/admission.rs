//! What a bundle asks for and its policy does not admit does not start, and the log says why.

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::json;

use crate::harness::{
    Bundle, Container, Context, Lockc,
    runner::{Daemon, Test, With},
};

pub(crate) const TESTS: &[Test] = &[
    test("refused", With::EachKind, refused),
    test("audited", With::One, audited),
    test("forged-facts", With::One, forged_facts),
];

const fn test(name: &'static str, with: With, run: fn(&Context) -> Result<()>) -> Test {
    Test { group: "admission", name, daemon: Daemon::Own, with, run }
}

/// A container that was to say `started`.
struct Attempt {
    id: String,
    started: bool,
    /// What it or its runtime said, or why that did not start.
    said: String,
}

fn attempt(context: &Context, what: &str, setup: impl FnOnce(&mut Bundle)) -> Result<Attempt> {
    let id = context.id(what);
    let mut bundle = context.bundle(&id, &[]);
    bundle.harden();
    bundle.config["process"]["args"] = json!(["/bin/echo", "started"]);
    setup(&mut bundle);
    let container = Container::new(context.runtime(), &id, &bundle)?;
    Ok(match container.run() {
        Ok(output) => Attempt {
            id,
            started: output.status.success() && output.stdout == "started\n",
            said: output.to_string(),
        },
        // Refused in execve: the runtime itself does not start.
        Err(error) => Attempt { id, started: false, said: format!("{error:#}") },
    })
}

/// What is added to a hardened bundle, the control that objects, and the exception that admits it.
type Case = (&'static str, fn(&mut Bundle), &'static str, &'static str);

const CASES: &[Case] = &[
    (
        "host-pid",
        |bundle| {
            bundle.share("pid");
        },
        "host_namespaces",
        "host_namespaces = \"off\"",
    ),
    (
        "capability",
        |bundle| {
            bundle.capabilities(&["CAP_SYS_PTRACE"]);
        },
        "capabilities",
        "allow_capabilities = [\"CAP_SYS_PTRACE\"]",
    ),
    (
        "root",
        |bundle| bundle.config["process"]["user"] = json!({ "uid": 0, "gid": 0 }),
        "run_as_non_root",
        "run_as_non_root = \"audit\"",
    ),
    (
        "new-privileges",
        |bundle| bundle.config["process"]["noNewPrivileges"] = json!(false),
        "privilege_escalation",
        "privilege_escalation = \"off\"",
    ),
    (
        "no-seccomp",
        |bundle| bundle.config["linux"]["seccomp"] = json!(null),
        "seccomp",
        "seccomp = \"off\"",
    ),
    (
        "etc",
        |bundle| {
            bundle.bind("/etc".as_ref(), "/mnt");
        },
        "host_paths",
        "allow_host_paths = [\"/etc\"]",
    ),
];

fn config(context: &Context, admission: &str) -> String {
    format!(
        "{}[default]\npolicy = \"strict\"\n[policy.strict]\nextends = \"restricted\"\n\
         [policy.strict.admission]\n{admission}\n",
        context.runtime_tables()
    )
}

/// Each control refuses what it is about, names itself and the way to allow it, and lets it pass then.
fn refused(context: &Context) -> Result<()> {
    for (name, setup, _, _) in CASES {
        let Attempt { started, said, .. } = attempt(context, name, setup)?;
        ensure!(started, "{name}, lockc off: {said}");
    }
    let lockc = context.start_lockc(&config(context, ""))?;
    let Attempt { started, said, .. } = attempt(context, "hardened", |_| {})?;
    ensure!(started, "hardened: {said}");
    for (name, setup, control, exception) in CASES {
        let Attempt { id, started, said } = attempt(context, name, setup)?;
        ensure!(!started && said.contains("Operation not permitted"), "{name}: {said}");
        let line = refusal(&lockc, &id)?;
        ensure!(line.contains(&format!(": {control}: ")), "{name}: {line}");
        ensure!(line.contains("to allow it"), "{name}: {line}");
        explained(&lockc, &line, control)?;
        lockc.reload(&config(context, exception))?;
        let Attempt { started, said, .. } = attempt(context, name, setup)?;
        ensure!(started, "{name} with {exception}: {said}");
        lockc.reload(&config(context, ""))?;
    }
    Ok(())
}

/// The command that a refusal names says the same: this control, and no other.
fn explained(lockc: &Lockc, refusal: &str, control: &str) -> Result<()> {
    let bundle =
        refusal.split_once("see `lockc explain ").and_then(|(_, rest)| rest.split_once('`'));
    let (bundle, _) = bundle.with_context(|| format!("it names no command: {refusal}"))?;
    let (code, said) = lockc.explain(&[bundle])?;
    let found: Vec<_> = said["admission"].as_array().into_iter().flatten().collect();
    let [finding] = found[..] else { bail!("not one finding: {said}") };
    ensure!(finding["control"] == control && finding["handling"] == "enforce", "{said}");
    ensure!(code == Some(1) && said["starts"] == false, "{code:?}: {said}");
    Ok(())
}

fn refusal(lockc: &Lockc, id: &str) -> Result<String> {
    lockc.wait_for_line("the refusal", |line| {
        line.contains("denied start") && line.contains(&format!("container={id} "))
    })
}

/// `baseline`, as it is built in, lets it start and says what it found.
fn audited(context: &Context) -> Result<()> {
    let lockc = context.start_lockc(&context.runtime_tables())?;
    let registered = |id: &str| {
        lockc.wait_for_line("the registration", |line| {
            line.contains("registered ") && line.contains(&format!("container={id} "))
        })
    };
    let Attempt { id, started, said } = attempt(context, "audited", |bundle| {
        bundle.share("pid");
    })?;
    ensure!(started, "baseline: {said}");
    let line = registered(&id)?;
    ensure!(line.contains("admitted in spite of host_namespaces: "), "{line}");
    let Attempt { id, started, said } = attempt(context, "clean", |_| {})?;
    ensure!(started, "clean: {said}");
    let line = registered(&id)?;
    ensure!(!line.contains("in spite of"), "{line}");
    Ok(())
}

/// A bundle cannot make itself another's: neither kubelet's, nor one that a rule loosens.
fn forged_facts(context: &Context) -> Result<()> {
    let rules = "[[rule]]\nname = \"agents\"\npolicy = \"privileged\"\n\
                 match.engine = \"cri\"\nmatch.namespace = \"kube-system\"\n\
                 [[rule]]\nname = \"tier\"\npolicy = \"privileged\"\n\
                 match.annotation.tier = \"infra\"\n";
    let lockc = context.start_lockc(&format!("{}{rules}", config(context, "")))?;
    let Attempt { id, started, said } = attempt(context, "forged", |bundle| {
        for (key, value) in [
            ("io.kubernetes.cri.container-type", "sandbox"),
            ("io.kubernetes.cri.sandbox-namespace", "kube-system"),
            ("io.container.manager", "cri-o"),
            ("tier", "infra"),
            ("org.lockc.policy", "privileged"),
        ] {
            bundle.annotation(key, value);
        }
        bundle.config["linux"]["cgroupsPath"] = json!("/kubepods/besteffort/pod1/x");
        bundle.config["process"]["user"] = json!({ "uid": 0, "gid": 0 });
    })?;
    ensure!(!started, "it starts: {said}");
    let line = refusal(&lockc, &id)?;
    ensure!(line.contains("not admitted by policy strict"), "{line}");
    ensure!(line.contains("rule `tier` does not count"), "{line}");
    ensure!(line.contains(": run_as_non_root: "), "{line}");
    Ok(())
}
