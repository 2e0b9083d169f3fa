//! What the person in charge sees: state, containers, figures and events.

use std::{
    fs,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::harness::{
    Bundle, Container, Context, Level, Lockc,
    container::DEADLINE,
    daemon::LOCKC,
    fixture::SERVICE_ACCOUNT,
    process::{self, Output, Running, wait_for},
    runner::{Daemon, Test, With},
};

pub(crate) const TESTS: &[Test] = &[
    test("state", state),
    test("events", events),
    test("learn", learn),
    test("who-may-ask", who_may_ask),
];

const fn test(name: &'static str, run: fn(&Context) -> Result<()>) -> Test {
    Test { group: "operations", name, daemon: Daemon::Own, with: With::One, run }
}

/// A user, and the group that may ask. The user is nobody's member.
const USER: u32 = 1000;
const GROUP: u32 = 2345;
const SOCKET: &str = "/run/lockc/lockc.sock";

pub(super) fn lockc(args: &[&str]) -> Result<Output> {
    process::run(Command::new(LOCKC).args(args).env("NO_COLOR", "1"), DEADLINE)
}

pub(super) fn json(args: &[&str]) -> Result<Value> {
    let output = lockc(args)?.success(format_args!("lockc {args:?}"))?;
    serde_json::from_str(&output.stdout).with_context(|| format!("lockc {args:?}: {output}"))
}

/// The rows of `lockc ps --format json` with their id.
fn row(said: &Value, id: &str) -> Result<Value> {
    let rows = said["containers"].as_array().into_iter().flatten();
    rows.clone()
        .find(|row| row["id"] == id)
        .cloned()
        .with_context(|| format!("no container {id}: {said}"))
}

/// A figure of `lockc metrics` that is a whole number.
fn figure(text: &str, name: &str) -> Result<i64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let line = line.with_context(|| format!("no {name}: {text}"))?;
    line.parse().with_context(|| format!("{name}: {line}"))
}

fn metrics() -> Result<String> {
    Ok(lockc(&["metrics"])?.success("lockc metrics")?.stdout)
}

/// A container with the token that sleeps.
fn sleeping(context: &Context, id: &str, level: Level) -> Result<Container> {
    let mut bundle = context.token_bundle(id, &["/bin/sleep", "1000"]);
    level.annotate(&mut bundle);
    let container = Container::new(context.quickest(), id, &bundle)?;
    container.start()?;
    Ok(container)
}

/// Tries to read the token, in vain.
fn refused(container: &Container) -> Result<()> {
    let output = container.exec(&["/bin/probe", "read", &format!("{SERVICE_ACCOUNT}/token")])?;
    ensure!(output.stdout.starts_with("read EPERM"), "not refused: {output}");
    Ok(())
}

/// What runs, with the daemon and without.
fn state(context: &Context) -> Result<()> {
    let output = lockc(&["status"])?;
    ensure!(output.status.code() == Some(1), "without lockc: {output}");
    ensure!(
        lockc(&["ps", "--format", "json"])?.success("ps")?.stdout.contains("\"containers\": []")
    );
    let down = metrics()?;
    ensure!(figure(&down, "lockc_up")? == 0 && down.lines().count() == 4, "{down}");

    let mut daemon = context.start_lockc(&context.config())?;
    let id = context.id("state");
    let before = metrics()?;
    let container = sleeping(context, &id, Level::Restricted)?;
    refused(&container)?;
    let status = json(&["status", "--format", "json"])?;
    ensure!(status["pid"] == daemon.pid()?.as_raw() && status["stale"].is_null(), "{status}");
    let hooks = status["hooks"].as_array().context("no hooks")?;
    ensure!(hooks.iter().any(|hook| hook == "file_open"), "{status}");
    ensure!(
        status["containers"] == 1 && status["counters"]["denied"].as_u64() > Some(0),
        "{status}"
    );
    let gate = &status["gate"];
    let answers: u64 = gate["buckets"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|bucket| bucket["count"].as_u64())
        .sum();
    ensure!(answers > 0 && gate["allowed"].as_u64() == Some(answers), "{status}");

    // The end of a task counts a moment after it.
    let known = wait_for("the end of what was brought in", DEADLINE, || {
        let known = row(&json(&["ps", "--format", "json"])?, &id)?;
        Ok((known["tasks"] == 1).then_some(known))
    })?;
    for (key, wanted) in [("policy", "restricted"), ("mode", "enforce"), ("engine", "none")] {
        ensure!(known[key] == wanted, "{key}: {known}");
    }
    ensure!(known["why"].as_str().is_some_and(|why| why.contains("restricted")), "{known}");
    ensure!(known["owner"] == 0 && known["tasks"] == 1 && known["denied"] == 1, "{known}");
    let table = lockc(&["ps"])?.success("ps")?.stdout;
    ensure!(table.lines().count() == 2 && table.contains(&id), "{table}");
    let table = lockc(&["ps", "--wide"])?.success("ps --wide")?.stdout;
    ensure!(table.contains(&id) && table.contains("restricted"), "{table}");

    let tried = context.scratch().join("tried.toml");
    let rule = "[[rule]]\nname = \"all\"\npolicy = \"privileged\"\nmatch.owner = \"root\"\n";
    fs::write(&tried, format!("{rule}{}", context.runtime_tables()))?;
    let config = daemon.config_path();
    let try_out = |file: &Path| -> Result<String> {
        let mut command = Command::new(LOCKC);
        command.arg("try").arg(file).arg("--config").arg(&config);
        Ok(process::run(&mut command, DEADLINE)?.success("try")?.stdout)
    };
    let said = try_out(&tried)?;
    ensure!(
        said.contains(&format!("{id}: restricted (enforce) -> privileged (enforce): rule `all`")),
        "{said}"
    );
    ensure!(try_out(&config)? == "0 of 1 containers would change\n");

    let after = metrics()?;
    for (name, grown) in [("lockc_containers", 1), ("lockc_denied_operations_total", 1)] {
        let difference = figure(&after, name)? - figure(&before, name)?;
        ensure!(difference == grown, "{name} has grown by {difference}");
    }
    ensure!(
        after.ends_with("# EOF\n") && after.contains(&format!("container=\"{id}\"")),
        "{after}"
    );
    let file = context.scratch().join("lockc.prom");
    let path = file.to_string_lossy();
    lockc(&["metrics", "--output", &path])?.success("metrics --output")?;
    ensure!(figure(&fs::read_to_string(&file)?, "lockc_up")? == 1);
    closed_pipe(&["ps", "--format", "json"])?;

    daemon.kill();
    let output = lockc(&["ps", "--format", "json"])?.success("ps without a daemon")?;
    ensure!(output.stderr.contains("lockc is not running"), "{output}");
    let pinned = row(&serde_json::from_str(&output.stdout)?, &id)?;
    for key in ["id", "record", "owner", "policy", "mode", "tasks", "denied", "started"] {
        ensure!(pinned[key] == known[key], "{key}: {pinned}, with a daemon {known}");
    }
    ensure!(figure(&metrics()?, "lockc_up")? == 0);
    let output = lockc(&["status"])?;
    ensure!(output.status.code() == Some(1) && output.stdout.contains("stays so"), "{output}");
    daemon.restart()
}

/// A reader that has gone is no failure.
fn closed_pipe(args: &[&str]) -> Result<()> {
    let mut child = Command::new(LOCKC).args(args).stdout(Stdio::piped()).spawn()?;
    drop(child.stdout.take());
    let status = child.wait()?;
    ensure!(status.success(), "lockc {args:?} into a closed pipe: {status}");
    Ok(())
}

/// What happened, as long as it is kept.
fn events(context: &Context) -> Result<()> {
    let mut daemon = context.start_lockc(&context.config())?;
    let config = daemon.config_path().to_string_lossy().into_owned();
    let events = |args: &[&str]| -> Result<Vec<Value>> {
        let all = [&["events", "--format", "json", "--config", &config], args].concat();
        let output = lockc(&all)?.success(format_args!("lockc {all:?}"))?;
        output.stdout.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    };
    let mut following = Running::start(
        Command::new(LOCKC).args(["events", "--follow", "--denied", "--config", &config]),
    )?;
    let id = context.id("events");
    let container = sleeping(context, &id, Level::Restricted)?;
    refused(&container)?;
    let of_container = |wanted: &str| {
        wait_for(format_args!("an event {wanted}"), DEADLINE, || {
            Ok(events(&["--container", &id])?.into_iter().find(|it| it["operation"] == wanted))
        })
    };
    let start = of_container("start")?;
    for (key, wanted) in [("verdict", "allowed"), ("policy", "restricted"), ("mode", "enforce")] {
        ensure!(start[key] == wanted, "{key}: {start}");
    }
    ensure!(
        start["schema"] == 1 && start["why"].is_string() && start["runtime"].is_string(),
        "{start}"
    );
    let denial = of_container("open")?;
    for (key, wanted) in [("verdict", "denied"), ("comm", "probe"), ("policy", "restricted")] {
        ensure!(denial[key] == wanted, "{key}: {denial}");
    }
    let path = denial["path"].as_str().unwrap_or_default();
    ensure!(path.ends_with("/token"), "{denial}");
    wait_for("a denial that is followed", DEADLINE, || {
        Ok(following.stdout().contains(&format!("container={id}")).then_some(()))
    })?;
    let said = following.stdout();
    ensure!(!said.contains(" allowed ") && !said.contains('\u{1b}'), "{said}");

    // One that gets another policy while it runs.
    let moved_id = context.id("moved");
    let bundle = context.token_bundle(&moved_id, &["/bin/sleep", "1000"]);
    let moved = Container::new(context.quickest(), &moved_id, &bundle)?;
    moved.start()?;
    let rule = "[[rule]]\nname = \"all\"\npolicy = \"privileged\"\nmatch.owner = \"root\"\n";
    daemon.reload(&format!("{}\n{rule}", context.config()))?;
    let policy = wait_for("an event of another policy", DEADLINE, || {
        let events = events(&["--container", &moved_id])?;
        Ok(events.into_iter().find(|it| it["operation"] == "policy"))
    })?;
    for (key, wanted) in [("verdict", "noticed"), ("policy", "privileged"), ("mode", "enforce")] {
        ensure!(policy[key] == wanted, "{key}: {policy}");
    }
    ensure!(policy["why"].as_str().is_some_and(|it| it.contains("rule `all`")), "{policy}");
    drop(moved);
    daemon.reload(&context.config())?;

    // A daemon that starts anew goes on where the last one ended.
    daemon.kill();
    daemon.restart()?;
    drop(container);
    of_container("gone")?;
    let all = events(&["--container", &id])?;
    let numbers: Vec<u64> = all.iter().filter_map(|it| it["id"].as_str()?.parse().ok()).collect();
    ensure!(numbers.len() == all.len() && numbers.is_sorted_by(|a, b| a < b), "{all:?}");
    ensure!(all.iter().any(|it| it["id"] == denial["id"]), "a restart has lost {denial}");
    ensure!(events(&["--since", "2099-01-01T00:00:00Z"])?.is_empty());
    ensure!(!events(&["--since", "1h"])?.is_empty());
    let denied = events(&["--denied"])?;
    ensure!(denied.iter().all(|it| it["verdict"] == "denied"), "{denied:?}");
    closed_pipe(&["events", "--config", &config])?;

    // Another file, from a reload on.
    let file = context.scratch().join("own-events.jsonl");
    let strict = context.config().replacen("[daemon]\n", "[daemon]\non_error = \"deny\"\n", 1);
    daemon.reload(&format!("{strict}\n[events]\nfile = \"{}\"\n", file.display()))?;
    refuse_a_start(context)?;
    wait_for("an event in the configured file", DEADLINE, || {
        let text = fs::read_to_string(&file).unwrap_or_default();
        Ok((text.contains("\"operation\":\"start\"") && text.contains("\"denied\"")).then_some(()))
    })
}

/// A web server under a policy that denies everything and only reports it; what is learnt from that is enforced, and
/// the server works, and nothing else does.
fn learn(context: &Context) -> Result<()> {
    const SERVE: &str = "/bin/busybox httpd -p 127.0.0.1:8080 -h /etc && \
                         /bin/busybox wget -q -O - http://127.0.0.1:8080/hostname && cat /etc/hostname";
    const ATTACK: &str = "cat /etc/passwd; /bin/probe read /etc/hostname; echo end";
    let rule = |policy: &str| {
        format!(
            "[[rule]]\nname = \"web\"\npolicy = \"{policy}\"\ntrust_claims = true\n\
             match.annotation.\"org.lockc.test.web\" = \"*\"\n"
        )
    };
    let policy =
        "[policy.web]\nextends = \"restricted\"\npaths.default = \"deny\"\nexec.allow = []\n";
    let audit = format!("{}{}{policy}mode = \"audit\"\n", context.config(), rule("web"));
    let run = |script: &str| -> Result<(String, Output)> {
        let id = context.id("web");
        let mut bundle = context.token_bundle(&id, &["/bin/sh", "-c", script]);
        bundle.annotation("org.lockc.test.web", "yes");
        let output = Container::new(context.quickest(), &id, &bundle)?.run()?;
        Ok((id, output))
    };
    let mut daemon = context.start_lockc(&audit)?;
    let config = daemon.config_path().to_string_lossy().into_owned();
    let (_, output) = run(ATTACK)?;
    ensure!(output.stdout.contains("root:x:0") && output.stdout.contains("read OK"), "{output}");
    let (id, output) = run(SERVE)?;
    ensure!(output.stdout == "image\nimage\n", "in audit mode: {output}");

    // The last event of a container, after which nothing more comes.
    wait_for("the end of the container", DEADLINE, || {
        let events = lockc(&["events", "--container", &id, "--config", &config])?.stdout;
        Ok(events.contains(" noticed gone ").then_some(()))
    })?;
    let args = ["learn", "--container", &id, "--name", "learnt", "--config", &config];
    let learnt = lockc(&args)?.success("learn")?.stdout;
    ensure!(!learnt.contains("passwd") && learnt.contains("cat, 2 times"), "{learnt}");
    let enforced =
        format!("{}{}{policy}{learnt}mode = \"enforce\"\n", context.config(), rule("learnt"));
    daemon.reload(&enforced).with_context(|| learnt.clone())?;
    let (_, output) = run(SERVE)?;
    ensure!(output.stdout == "image\nimage\n", "with what was learnt: {output}; {learnt}");
    let (id, output) = run(ATTACK)?;
    ensure!(output.stdout == "end\n", "an attack: {output}; {learnt}");
    ensure!(output.stderr.contains("'/etc/passwd': Operation not permitted"), "{output}");

    // Each denial can be followed.
    let event = wait_for("the denial", DEADLINE, || {
        let events =
            lockc(&["events", "--denied", "--container", &id, "--config", &config])?.stdout;
        Ok(events.lines().find(|line| line.contains("path=/etc/passwd")).map(str::to_owned))
    })?;
    let number = event.split(" id=").nth(1).context("an event without a number")?;
    let said =
        lockc(&["explain", "--event", number, "--config", &config])?.success("explain")?.stdout;
    for wanted in [
        "rule `web` matches",
        "policy: learnt, ",
        "decided because: `paths.default` is \"deny\"",
        "[policy.learnt]\npaths.allow = [\"/etc/passwd\"]",
    ] {
        ensure!(said.contains(wanted), "no {wanted:?}: {said}");
    }
    daemon.check_alive()
}

/// A start that is not understood.
fn refuse_a_start(context: &Context) -> Result<()> {
    let id = context.id("refused");
    let dir = context.scratch().join("bundles").join(&id);
    let bundle = Bundle::new(dir, &context.image(), &["/bin/true"]);
    let container = Container::new(context.quickest(), &id, &bundle)?;
    fs::remove_file(container.bundle().join("config.json"))?;
    // Its execve fails.
    ensure!(container.run().is_err(), "the runtime was executed");
    Ok(())
}

/// Root, and the group that is configured; no container, whatever its policy.
fn who_may_ask(context: &Context) -> Result<()> {
    let group = format!("[daemon]\ngroup = {GROUP}\n");
    let daemon = context.start_lockc(&context.config().replacen("[daemon]\n", &group, 1))?;
    let config = daemon.config_path();
    fs::set_permissions(&config, std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
    let file = "/run/lockc/events.jsonl";
    let id = context.id("asking");
    let container = sleeping(context, &id, Level::Restricted)?;
    refused(&container)?;
    wait_for("the first event", DEADLINE, || Ok(Path::new(file).exists().then_some(())))?;
    for args in [&["status"][..], &["ps"], &["metrics"], &["events", "--file", file]] {
        let ask = |group: u32| {
            process::run(Command::new(LOCKC).args(args).uid(USER).gid(group), DEADLINE)
        };
        ask(GROUP)?.success(format_args!("{args:?} by a member of the group"))?;
        let output = ask(USER)?;
        ensure!(output.status.code() == Some(1) && output.stdout.is_empty(), "{args:?}: {output}");
        ensure!(!output.stderr.is_empty(), "{args:?}: {output}");
    }
    // Who holds the lock keeps every daemon from running.
    let mut lock = Command::new("/bin/sh");
    lock.args(["-c", "cat /run/lockc/lock"]).uid(USER).gid(GROUP);
    ensure!(!process::run(&mut lock, DEADLINE)?.status.success(), "a user may open the lock");

    let line = format!("unix-ask {SOCKET} status");
    let probe: Vec<&str> = ["/bin/probe"].into_iter().chain(line.split(' ')).collect();
    let ask = |level: Level| -> Result<String> {
        let id = context.id("asks");
        let mut bundle = context.token_bundle(&id, &probe);
        bundle.bind("/run/lockc".as_ref(), "/run/lockc");
        level.annotate(&mut bundle);
        Ok(Container::new(context.quickest(), &id, &bundle)?.run()?.stdout)
    };
    let said = ask(Level::Restricted)?;
    ensure!(said.starts_with("unix-ask EPERM connect"), "restricted: {said}");
    // Nothing in the kernel keeps this one from the socket.
    let said = ask(Level::Privileged)?;
    ensure!(said == "unix-ask OK 0 bytes\n", "privileged: {said}");
    Lockc::check_alive(&mut { daemon })
}
