//! The configurations in `examples/config` do what their comments say. What is tried works without
//! lockc, each time.

mod case;
mod engines;

use std::{fs, os::unix::fs::symlink, path::Path, process::Stdio};

use anyhow::{Result, ensure};
use case::{
    Case,
    Fate::{Contained, Free, Reads, Refused},
    VOLUME, annotate, check, hardened, installed, off, plain, pod, starts_unread,
};
use serde_json::json;

use crate::harness::{
    Bundle, Container, Context, Lockc, Runtime,
    attack::results,
    container::DEADLINE,
    fixture::TokenVolume,
    process::Running,
    runner::{Daemon, Test, With},
};

/// For the small guest.
pub(crate) const TESTS: &[Test] = &[
    test("minimal", minimal),
    test("lockc", shipped),
    test("audit-first", audit_first),
    test("k3s", k3s),
    test("air-gapped", air_gapped),
];
/// For the full guest.
pub(crate) const ENGINES: &[Test] = engines::TESTS;

const fn test(name: &'static str, run: fn(&Context) -> Result<()>) -> Test {
    Test { group: "examples", name, daemon: Daemon::Own, with: With::One, run }
}

const MINIMAL: &str = include_str!("../../../examples/config/minimal.toml");
const SHIPPED: &str = include_str!("../../../examples/config/lockc.toml");
const AUDIT_FIRST: &str = include_str!("../../../examples/config/audit-first.toml");
const AIR_GAPPED: &str = include_str!("../../../examples/config/air-gapped.toml");
const K3S: &str = include_str!("../../../examples/config/k3s.toml");

/// "Every container gets the policy baseline, enforced, and the usual places are searched."
fn minimal(context: &Context) -> Result<()> {
    let mut runtimes = vec![installed(context, "runc")?, installed(context, "crun")?];
    // Not in every guest.
    runtimes.extend(installed(context, "youki"));
    let cases: Vec<_> = runtimes
        .iter()
        .map(|runtime| {
            let make = |id: &str| plain(context, id);
            let says = " policy=baseline mode=enforce ";
            Case::new(runtime.name, runtime, make, (Free, Contained), says)
        })
        .collect();
    check(context, MINIMAL, &cases).map(drop)
}

/// The tables that the shipped file shows as comments.
fn shown() -> String {
    let mut table = false;
    let mut text = String::new();
    for line in SHIPPED.lines() {
        table = line.starts_with("# [") || (table && line.starts_with("# "));
        if table {
            text.push_str(line.trim_start_matches(['#', ' ']));
            text.push('\n');
        }
    }
    text
}

/// The shipped file, first as it is, then with the tables that it shows in a drop-in.
fn shipped(context: &Context) -> Result<()> {
    let _token = TokenVolume::new(Path::new(VOLUME))?;
    let crun = &installed(context, "crun")?;
    let appears = Runtime { binary: "/usr/local/bin/runc".into(), ..context.runtime().clone() };
    let asks = |id: &str, policy: &str| {
        let mut bundle = plain(context, id);
        bundle.annotation("org.lockc.policy", policy);
        bundle
    };
    let claims = [
        Case::new(
            "asks-for-less",
            crun,
            |id| asks(id, "restricted"),
            (Free, Refused),
            "not admitted by policy restricted",
        ),
        Case::new(
            "asks-for-more",
            crun,
            |id| asks(id, "privileged"),
            (Free, Contained),
            "policy=baseline mode=enforce",
        ),
    ];
    let later =
        Case::new("appears", &appears, |id| plain(context, id), (Free, Contained), "baseline");

    let keys = context.image().join("etc/kiosk/keys");
    fs::create_dir_all(&keys)?;
    for name in ["private", "public"] {
        fs::write(keys.join(name), format!("{name}\n"))?;
    }
    let kiosk = |id: &str| {
        let mut bundle = hardened(context, id);
        bundle.annotation("org.example.tier", "kiosk");
        bundle
    };
    let cases = [
        Case::new(
            "node-exporter",
            crun,
            |id| {
                let mut bundle = pod(context, id, "monitoring", "node-exporter-x1");
                annotate(&mut bundle, "monitoring", "node-exporter-x1", "node-exporter");
                bundle
            },
            (Free, Free),
            "policy=privileged mode=enforce",
        ),
        Case::new(
            "not-monitoring",
            crun,
            |id| pod(context, id, "monitoring", "web"),
            (Free, Contained),
            "policy=baseline",
        ),
        Case::new("kiosk", crun, kiosk, (Reads, Contained), "policy=kiosk mode=enforce"),
        Case::new(
            "kiosk-root",
            crun,
            |id| {
                let mut bundle = kiosk(id);
                bundle.config["process"]["user"] = json!({ "uid": 0, "gid": 0 });
                bundle
            },
            (Reads, Refused),
            "run_as_non_root: ",
        ),
    ];
    off(context, &cases)?;
    ensure!(reads_keys(context, crun, &kiosk)? == (true, true), "lockc off: the keys");
    let lockc = check(context, SHIPPED, &claims)?;

    fs::copy(&context.runtime().binary, &appears.binary)?;
    let result = later.with(context, &lockc);
    fs::remove_file(&appears.binary)?;
    result?;

    let drop_ins = lockc.directory().join("lockc.d");
    let drop_in = drop_ins.join("50-shown.toml");
    lockc.expect_reload(|| {
        fs::create_dir_all(&drop_ins)?;
        Ok(fs::write(&drop_in, shown())?)
    })?;
    let result = cases.iter().try_for_each(|case| case.with(context, &lockc).map(drop));
    let keys = result.and_then(|()| reads_keys(context, crun, &kiosk));
    fs::remove_file(&drop_in)?;
    let (private, public) = keys?;
    ensure!(!private && public, "private: {private}, public: {public}");
    Ok(())
}

/// Whether a container reads its private and its public key.
fn reads_keys(
    context: &Context,
    runtime: &Runtime,
    make: &impl Fn(&str) -> Bundle,
) -> Result<(bool, bool)> {
    let id = context.id("keys");
    let mut bundle = make(&id);
    let item = |name: &str| format!("{name}:read /etc/kiosk/keys/{name}");
    bundle.config["process"]["args"] =
        json!(["/bin/probe", "list", item("private"), item("public")]);
    let output = Container::new(runtime, &id, &bundle)?.run()?.success("keys")?;
    let results = results(&output);
    let reads = |name: &str| results.get(name).is_some_and(|said| *said == format!("OK {name}"));
    Ok((reads("private"), reads("public")))
}

/// Nothing is denied and everything is logged, but for the canary.
fn audit_first(context: &Context) -> Result<()> {
    let _token = TokenVolume::new(Path::new(VOLUME))?;
    let crun = &installed(context, "crun")?;
    let canary = |mut bundle: Bundle| {
        bundle.annotation("org.example.canary", "true");
        bundle
    };
    let cases = [
        Case::new("audited", crun, |id| plain(context, id), (Free, Free), "mode=audit"),
        Case::new(
            "node-agent",
            crun,
            |id| pod(context, id, "kube-system", "agent"),
            (Free, Free),
            "policy=privileged",
        ),
        Case::new(
            "claims",
            crun,
            |id| {
                let mut bundle = plain(context, id);
                annotate(&mut bundle, "kube-system", "agent", "main");
                bundle
            },
            (Free, Free),
            "`node agents` does not count",
        ),
        Case::new(
            "canary",
            crun,
            |id| canary(hardened(context, id)),
            (Reads, Contained),
            "policy=restricted mode=enforce",
        ),
        Case::new(
            "canary-root",
            crun,
            |id| canary(plain(context, id)),
            (Free, Refused),
            "not admitted by policy restricted",
        ),
        Case::new(
            "asks",
            crun,
            |id| {
                let mut bundle = plain(context, id);
                bundle.annotation("org.lockc.policy", "none-such");
                bundle
            },
            (Free, Refused),
            "which does not exist",
        ),
    ];
    off(context, &cases)?;
    ensure!(!is_refused_to_restore(context, crun)?, "lockc off: restore");
    let lockc = context.start_lockc(AUDIT_FIRST)?;
    let [audited, agent, claims, canary, canary_root, asks] = &cases;
    let logged = |id: &str, operation: &str| {
        lockc.wait_for_line(operation, |line| {
            line.contains(operation) && line.contains(&format!("container={id} "))
        })
    };
    for case in [audited, claims] {
        let (id, line) = case.with(context, &lockc)?;
        logged(&id, "audited open ")?;
        logged(&id, "audited mount ")?;
        ensure!(line.contains("; admitted in spite of "), "{line}");
    }
    let (id, line) = agent.with(context, &lockc)?;
    ensure!(!line.contains("in spite of"), "{line}");
    canary.with(context, &lockc)?;
    canary_root.with(context, &lockc)?;
    // By now everything has been logged that the agent did.
    let log = lockc.log()?;
    let denials = log.lines().filter(|line| line.contains("audited ") && line.contains(&id));
    ensure!(denials.count() == 0, "the node agent fills the log");

    ensure!(is_refused_to_restore(context, crun)?, "it is let restore");
    let (_, fate) = asks.fate(context)?;
    ensure!(fate == asks.on, "a label that names no policy: {fate:?}");
    ensure!(starts_unread(context, crun)?, "a container that lockc cannot understand");
    let why = "is longer than";
    lockc.wait_for_line("the reason", |line| {
        line.contains("default policy") && line.contains(why)
    })?;
    Ok(())
}

/// Whether the runtime is not let start that is to restore a container. Let start, it finds nothing to
/// restore.
fn is_refused_to_restore(context: &Context, runtime: &Runtime) -> Result<bool> {
    let id = context.id("restore");
    let container = Container::new(runtime, &id, &context.bundle(&id, &["/bin/true"]))?;
    let mut command = container.command("restore", &["--image-path", "/nowhere"]);
    match Running::start(command.stdin(Stdio::null())) {
        Ok(running) => {
            let output = running.finish(DEADLINE)?;
            ensure!(!output.status.success(), "a restore from nothing succeeds: {output}");
            Ok(false)
        }
        Err(error) => Ok(format!("{error:#}").contains("not permitted")),
    }
}

/// What a container under `runtime` says to a connection within itself, to one with somebody else, and to a socket
/// in the file system; and the daemon's line about it.
fn talks(context: &Context, runtime: &Runtime, lockc: Option<&Lockc>) -> Result<[String; 4]> {
    let id = context.id("talks");
    let mut bundle = context.bundle(&id, &[]);
    bundle.harden();
    bundle.mount("/run", "tmpfs", "tmpfs", &["mode=777"]);
    bundle.config["process"]["args"] = json!([
        "/bin/probe",
        "list",
        "own:tcp",
        "other:udp-to 10.9.9.9:53",
        "unix:own-unix /run/s"
    ]);
    let output = Container::new(runtime, &id, &bundle)?.run()?.success("the container")?;
    let results = results(&output);
    let said = |name| results.get(name).copied().unwrap_or_default().to_owned();
    let line = match lockc {
        Some(lockc) => lockc.wait_for_line("the registration", |line| {
            line.contains("registered ") && line.contains(&format!("container={id} "))
        })?,
        None => String::new(),
    };
    Ok([said("own"), said("other"), said("unix"), line])
}

/// A machine whose containers talk to nobody.
fn air_gapped(context: &Context) -> Result<()> {
    let (runc, crun) = (&installed(context, "runc")?, &installed(context, "crun")?);
    for runtime in [runc, crun] {
        let [own, other, unix, _] = talks(context, runtime, None)?;
        ensure!(own == "OK hello" && unix == "OK done", "lockc off: {own}, {unix}");
        // Its network namespace leads nowhere.
        ensure!(other == "ENETUNREACH sendto", "lockc off: {other}");
    }
    let lockc = context.start_lockc(AIR_GAPPED)?;
    let [own, other, unix, line] = talks(context, runc, Some(&lockc))?;
    ensure!(own == "EPERM bind" && other == "EPERM bind", "offline: {own}, {other}");
    ensure!(unix == "OK done" && line.contains("policy=offline "), "offline: {unix}: {line}");
    let [own, other, unix, line] = talks(context, crun, Some(&lockc))?;
    ensure!(own == "OK hello" && other == "EPERM sendto", "loopback: {own}, {other}");
    ensure!(unix == "OK done" && line.contains("policy=loopback "), "loopback: {unix}: {line}");
    let asks_too_much = Case::new(
        "root",
        runc,
        |id| plain(context, id),
        (Free, Refused),
        "not admitted by policy offline",
    );
    asks_too_much.with(context, &lockc)?;
    ensure!(!starts_unread(context, runc)?, "a container that lockc cannot understand starts");
    Ok(())
}

/// A node of k3s, which brings its runtime along.
fn k3s(context: &Context) -> Result<()> {
    let _token = TokenVolume::new(Path::new(VOLUME))?;
    let release = |name: &str| -> Result<Runtime> {
        let directory = Path::new("/var/lib/rancher/k3s/data").join(name).join("bin");
        fs::create_dir_all(&directory)?;
        let binary = directory.join("runc");
        let _ = fs::remove_file(&binary);
        fs::copy(&context.runtime().binary, &binary)?;
        Ok(Runtime { binary, ..context.runtime().clone() })
    };
    let old = &release("3cdc")?;
    let of = |namespace, name| move |id: &str| pod(context, id, namespace, name);
    let lockc = check(
        context,
        K3S,
        &[
            Case::new("web", old, of("default", "web"), (Free, Contained), "policy=baseline"),
            Case::new("coredns", old, of("kube-system", "coredns-7d"), (Free, Reads), "api-client"),
            Case::new("lb", old, of("kube-system", "svclb-web"), (Free, Free), "policy=privileged"),
            Case::new("named-so", old, of("default", "svclb-web"), (Free, Contained), "baseline"),
            Case::new(
                "forged",
                old,
                |id| {
                    let mut bundle = plain(context, id);
                    annotate(&mut bundle, "kube-system", "svclb-web", "main");
                    bundle
                },
                (Free, Contained),
                "policy=baseline",
            ),
            Case::new(
                "tenant-root",
                old,
                of("tenant-a", "shop"),
                (Free, Refused),
                "rule `strict tenants` matches",
            ),
            Case::new(
                "tenant",
                old,
                |id| {
                    let mut bundle = pod(context, id, "tenant-a", "shop");
                    bundle.harden();
                    bundle
                },
                (Reads, Contained),
                "policy=restricted",
            ),
        ],
    )?;
    let new = release("9f1e")?;
    // As k3s does it.
    let current = Path::new("/var/lib/rancher/k3s/data/current");
    let _ = fs::remove_file(current);
    symlink("9f1e", current)?;
    Case::new("next", &new, of("default", "web"), (Free, Contained), "policy=baseline")
        .with(context, &lockc)
        .map(drop)
}
