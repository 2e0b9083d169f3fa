//! Containers that the engines start: Docker, podman with and without root, containerd.

use anyhow::{Context as _, Result, ensure};

use super::explain::{agrees, registered};
use crate::harness::{
    Context, Lockc, Phase,
    attack::{is_refused, results},
    bundle::LEVEL,
    engine::{DEADLINE, Engine},
    fixture::{SERVICE_ACCOUNT, TOKEN},
    process::{Output, wait_for},
    runner::{Daemon, Test, With},
};

pub(crate) const TESTS: &[Test] = &[
    test("docker-run", |context| run(context, Engine::Docker)),
    test("docker-exec", |context| exec(context, Engine::Docker)),
    test("docker-healthcheck", healthcheck),
    test("docker-socket", docker_socket),
    test("docker-drift", docker_drift),
    test("podman-run", |context| run(context, Engine::Podman)),
    test("podman-exec", |context| exec(context, Engine::Podman)),
    test("podman-privileged", podman_privileged),
    test("ctr-run", |context| run(context, Engine::Containerd)),
    test("ctr-exec", |context| exec(context, Engine::Containerd)),
    test("rootless-podman-run", |context| run(context, Engine::Rootless)),
    test("rootless-podman-exec", |context| exec(context, Engine::Rootless)),
    test("rootless-podman-claims", rootless_claims),
    Test { daemon: Daemon::Own, ..test("facts", facts) },
    Test { daemon: Daemon::Own, ..test("explain", explained) },
];

const fn test(name: &'static str, run: fn(&Context) -> Result<()>) -> Test {
    Test { group: "engines", name, daemon: Daemon::OffThenOn, with: With::One, run }
}

/// The probe's items: two ways to the token, and ordinary work. `tag` makes their names unique, as
/// the log names engines' containers by ids that nobody chose.
fn items(tag: &str) -> [String; 4] {
    [
        format!("{tag}-plain:read {SERVICE_ACCOUNT}/token"),
        format!("{tag}-orphan:orphan {SERVICE_ACCOUNT}/..data/token"),
        format!("{tag}-threads:threads 4"),
        format!("{tag}-socket:unix-socket /tmp/socket"),
    ]
}

/// Checks what the probe said.
fn judge(context: &Context, tag: &str, enforced: bool, output: &Output) -> Result<()> {
    let said = |name: &str| -> Result<String> {
        let name = format!("{tag}-{name} ");
        let line = output.stdout.lines().find_map(|line| line.trim_end().strip_prefix(&name));
        line.map(str::to_owned).with_context(|| format!("the probe did not say {name}: {output}"))
    };
    ensure!(said("threads")? == "OK 4 threads, sum 10", "threads: {output}");
    ensure!(said("socket")? == "OK hello", "socket: {output}");
    for name in ["plain", "orphan"] {
        let said = said(name)?;
        if !enforced {
            ensure!(said == format!("OK {TOKEN}"), "{name}: {said}");
            continue;
        }
        ensure!(said.starts_with("EPERM "), "{name}: {said}");
        context.with_lockc(|lockc| {
            lockc.wait_for_line(&format!("denial of {tag}-{name}"), |line| {
                line.contains("denied open ") && line.contains(&format!("comm={tag}-{name}"))
            })
        })?;
    }
    Ok(())
}

/// A short name that no other test uses.
pub(super) fn tag(context: &Context) -> String {
    let id = context.id("");
    id.trim_end_matches('-').replace("lt-", "e")
}

fn probe(items: &[String; 4]) -> Vec<&str> {
    ["/bin/probe", "list"].into_iter().chain(items.iter().map(String::as_str)).collect()
}

fn run(context: &Context, engine: Engine) -> Result<()> {
    engine.load(context)?;
    let tag = tag(context);
    let items = items(&tag);
    let output = engine.start(context, &format!("lt-{tag}"), false, &[], &probe(&items))?;
    judge(context, &tag, context.phase() != Phase::Off, &output)
}

fn exec(context: &Context, engine: Engine) -> Result<()> {
    engine.load(context)?;
    let tag = tag(context);
    let name = format!("lt-{tag}");
    engine
        .start(context, &name, true, &[], &["/bin/sleep", "1000"])?
        .success(format_args!("{engine:?}: run"))?;
    let items = items(&tag);
    let output = engine.exec(&name, &probe(&items));
    engine.remove(&name)?;
    judge(context, &tag, context.phase() != Phase::Off, &output?)
}

/// A container that Docker finds healthy without lockc is healthy with it.
fn healthcheck(context: &Context) -> Result<()> {
    let engine = Engine::Docker;
    engine.load(context)?;
    let name = format!("lt-{}", tag(context));
    let options =
        ["--health-cmd=test -d /proc/1 && cat /etc/passwd | wc -l", "--health-interval=1s"];
    engine.start(context, &name, true, &options, &["/bin/sleep", "1000"])?.success("docker run")?;
    let healthy = wait_for("healthy", DEADLINE, || {
        let format = "--format={{.State.Health.Status}}";
        let output = engine.does(&["inspect", format, &name])?.success("docker inspect")?;
        ensure!(output.stdout.trim() != "unhealthy", "the container is unhealthy");
        Ok((output.stdout.trim() == "healthy").then_some(()))
    });
    engine.remove(&name)?;
    healthy
}

/// Whether the probe was let, in a container that was started with it or executes it.
fn is_let(context: &Context, name: &str, operation: &str, output: &Output) -> Result<bool> {
    let said = results(output).get(name).copied().unwrap_or_default().to_owned();
    if context.phase() == Phase::Off || said == "OK done" {
        ensure!(said == "OK done", "{name}: {output}");
        return Ok(true);
    }
    ensure!(is_refused(&said), "{name}: {output}");
    context.with_lockc(|lockc| {
        lockc.wait_for_line(&format!("denial of {name}"), |line| {
            line.contains(&format!("denied {operation} ")) && line.contains(&format!("comm={name}"))
        })
    })?;
    Ok(false)
}

/// Docker's own socket, mounted under another name.
fn docker_socket(context: &Context) -> Result<()> {
    let engine = Engine::Docker;
    engine.load(context)?;
    let tag = tag(context);
    let item = format!("{tag}-sock:unix-to /srv/harmless");
    let options = ["--volume=/run/docker.sock:/srv/harmless"];
    let args = ["/bin/probe", "list", &item];
    let output = engine.start(context, &format!("lt-{tag}"), false, &options, &args)?;
    let connected = is_let(context, &format!("{tag}-sock"), "runtime-socket", &output)?;
    ensure!(connected == (context.phase() == Phase::Off), "{output}");
    Ok(())
}

/// What a container has written is no program, not after a restart either; its image's programs are.
fn docker_drift(context: &Context) -> Result<()> {
    let engine = Engine::Docker;
    engine.load(context)?;
    let tag = tag(context);
    let name = format!("lt-{tag}");
    let annotation = format!("--annotation={LEVEL}=no-drift");
    engine
        .start(context, &name, true, &[&annotation], &["/bin/sleep", "1000"])?
        .success("docker run")?;
    let runs = |what: &str, line: &str| -> Result<bool> {
        let what = format!("{tag}-{what}");
        let output = engine.exec(&name, &["/bin/probe", "list", &format!("{what}:{line}")])?;
        is_let(context, &what, "drift", &output)
    };
    let off = context.phase() == Phase::Off;
    let judged = || -> Result<()> {
        ensure!(runs("new", "run-copy /root/new")? == off, "a new program");
        engine.does(&["restart", "-t", "0", &name])?.success("docker restart")?;
        ensure!(runs("old", "run /root/new")? == off, "a program from before a restart");
        ensure!(runs("image", "run /bin/busybox")?, "a program of the image");
        Ok(())
    };
    let judged = judged();
    engine.remove(&name)?;
    judged
}

/// What the node's administrator trusts gets what it asks for.
fn podman_privileged(context: &Context) -> Result<()> {
    let engine = Engine::Podman;
    engine.load(context)?;
    let tag = tag(context);
    let items = items(&tag);
    let annotation = format!("--annotation={LEVEL}=privileged");
    let name = format!("lt-{tag}");
    let output = engine.start(context, &name, false, &[&annotation], &probe(&items))?;
    judge(context, &tag, false, &output)
}

/// What a user claims about their own container gets them nothing.
fn rootless_claims(context: &Context) -> Result<()> {
    let engine = Engine::Rootless;
    engine.load(context)?;
    let tag = tag(context);
    let items = items(&tag);
    let annotation = format!("--annotation={LEVEL}=privileged");
    let name = format!("lt-{tag}");
    let output = engine.start(context, &name, false, &[&annotation], &probe(&items))?;
    judge(context, &tag, context.phase() != Phase::Off, &output)
}

/// Rules go by what engines say, as far as that is to be trusted, and ordinary containers are admitted
/// without a word.
fn facts(context: &Context) -> Result<()> {
    let runtimes = context.runtime_tables();
    let rule =
        |keys: &str| format!("{runtimes}[[rule]]\nname = \"r\"\npolicy = \"privileged\"\n{keys}\n");
    let lockc = context.start_lockc(&runtimes)?;
    let reads = |engine: Engine, options: &[&str]| -> Result<(bool, String)> {
        engine.load(context)?;
        let name = format!("lt-{}", tag(context));
        let before = lockc.log()?.lines().count();
        let args = ["/bin/probe", "read", &format!("{SERVICE_ACCOUNT}/token")];
        let output = engine.start(context, &name, false, options, &args)?;
        let (read, refused) =
            (output.stdout.contains(TOKEN), output.stdout.starts_with("read EPERM open"));
        ensure!(read != refused, "{engine:?}: neither read nor refused: {output}");
        let log = lockc.log()?;
        let line = log.lines().skip(before).find(|line| line.contains("registered container="));
        Ok((read, line.with_context(|| format!("{engine:?}: not registered"))?.to_owned()))
    };
    for engine in [Engine::Docker, Engine::Podman, Engine::Rootless] {
        let (read, line) = reads(engine, &[])?;
        ensure!(!read && line.contains("policy=baseline"), "{engine:?}: {line}");
        ensure!(!line.contains("in spite of"), "{engine:?}: {line}");
    }
    let (_, line) = reads(Engine::Docker, &["--pid=host"])?;
    ensure!(line.contains("in spite of host_namespaces: "), "{line}");

    // Which engine it is, is known by the place of the bundle.
    lockc.reload(&rule("match.engine = \"docker\""))?;
    ensure!(reads(Engine::Docker, &[])?.0, "a rule for Docker does not match");
    ensure!(!reads(Engine::Podman, &[])?.0, "a rule for Docker matches podman");
    ensure!(!reads(Engine::Rootless, &[])?.0, "a rule for Docker matches rootless podman");

    // Labels, names and images are what the engine's user says they are.
    let label = "--label=tier=infra";
    let claims =
        "match.engine = \"docker\"\nmatch.label.tier = \"infra\"\nmatch.image = \"*busybox*\"";
    lockc.reload(&rule(claims))?;
    let (read, line) = reads(Engine::Docker, &[label])?;
    ensure!(!read && line.contains("rule `r` does not count"), "a label loosens: {line}");
    lockc.reload(&rule(&format!("trust_claims = true\n{claims}")))?;
    ensure!(reads(Engine::Docker, &[label])?.0, "a claim that is trusted does not match");
    ensure!(!reads(Engine::Docker, &["--label=tier=other"])?.0, "another label matches");

    // A container may ask for less.
    lockc.reload(&rule("match.engine = \"docker\""))?;
    let (read, line) = reads(Engine::Docker, &["--label=org.lockc.policy=baseline"])?;
    ensure!(!read && line.contains("policy=baseline"), "a label does not tighten: {line}");
    Ok(())
}

/// Running containers are explained by id and by name as the log has them, whatever keeps them.
fn explained(context: &Context) -> Result<()> {
    let policy = |name: &str, key: &str| {
        format!(
            "[[rule]]\nname = \"{name}\"\npolicy = \"{name}\"\n{key}\n[policy.{name}]\n\
             extends = \"baseline\"\npaths.deny = [\"/{name}\"]\n"
        )
    };
    let config = [
        context.runtime_tables(),
        policy("of-docker", "match.engine = \"docker\""),
        policy("of-users", "match.owner = \"[1-9]*\""),
        policy("of-podman", "match.engine = \"podman\""),
        policy("of-ctr", "match.engine = \"containerd\""),
    ];
    let lockc = context.start_lockc(&config.concat())?;
    for (engine, policy) in [
        (Engine::Docker, "of-docker"),
        (Engine::Podman, "of-podman"),
        (Engine::Rootless, "of-users"),
        (Engine::Containerd, "of-ctr"),
    ] {
        engine.load(context)?;
        let name = format!("lt-{}", tag(context));
        engine
            .start(context, &name, true, &[], &["/bin/sleep", "1000"])?
            .success(format_args!("{engine:?}: run"))?;
        let judged = explained_one(&lockc, engine, &name, policy);
        engine.remove(&name)?;
        judged.with_context(|| format!("{engine:?}"))?;
    }
    Ok(())
}

fn explained_one(lockc: &Lockc, engine: Engine, name: &str, policy: &str) -> Result<()> {
    let id = engine.id(name)?;
    let id = id.as_str();
    ensure!(registered(lockc, id)?.0 == policy, "it has another policy than {policy}");
    agrees(lockc, id, &[id, &id[..id.len().min(12)], name])
}
