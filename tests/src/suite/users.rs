//! Users of the machine who are not root, and run runtimes of their own accord: what they say loosens nothing, and what
//! they use up is theirs.

use std::{fs, os::unix::fs::chown, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use crate::{
    harness::{
        Bundle, Container, Context, Level, Lockc, Phase, Runtime,
        container::DEADLINE,
        daemon::{pinned_map, tail},
        fixture::{SERVICE_ACCOUNT, TOKEN},
        process::{self, Output, wait_for},
        runner::{Daemon, Test, With},
    },
    sys::bpf,
};

pub(crate) const TESTS: &[Test] = &[
    test("same-id", Daemon::OffThenOn, same_id),
    test("claims", Daemon::OffThenOn, claims),
    test("forged-state", Daemon::Own, forged_state),
    test("too-many", Daemon::Own, too_many),
];

const fn test(name: &'static str, daemon: Daemon, run: fn(&Context) -> Result<()>) -> Test {
    Test { group: "users", name, daemon, with: With::One, run }
}

/// Who that is: `edge` in the guest's `/etc/passwd`.
const USER: u32 = 1000;
/// How many containers a user can have (`lockc::daemon::registry`).
const MAX_OF_USER: u64 = 4096;
/// How many records the kernel side makes for users' runtimes (`lockc_common::MADE_BY_USERS`).
const MADE_BY_USERS: u64 = 8192;
/// Longest time until a record is gone.
const TIDY: Duration = Duration::from_mins(1);

fn token() -> String {
    format!("{SERVICE_ACCOUNT}/token")
}

/// The runtime, run by the user with state in a directory of theirs.
fn users_runtime(context: &Context) -> Result<Runtime> {
    let state = context.scratch().join("state-of-user");
    fs::create_dir_all(&state)?;
    chown(&state, Some(USER), Some(USER))?;
    Ok(Runtime { state, user: Some(USER), ..context.quickest().clone() })
}

/// A container of the user with the token in it: root there is the user here.
fn users_container(
    context: &Context,
    id: &str,
    args: &[&str],
    setup: impl FnOnce(&mut Bundle),
) -> Result<Container> {
    let dir = context.scratch().join("bundles-of-user").join(id);
    let mut bundle = Bundle::new(dir, &context.image(), args);
    bundle.bind(context.token().dir(), SERVICE_ACCOUNT).user_namespace(USER, 1);
    setup(&mut bundle);
    Container::new(&users_runtime(context)?, id, &bundle)
}

/// What the user's container says of the token.
fn users_read(context: &Context, id: &str, setup: impl FnOnce(&mut Bundle)) -> Result<Output> {
    users_container(context, id, &["/bin/probe", "read", &token()], setup)?.run()
}

/// A container of root's with the token that sleeps.
fn roots_container(context: &Context, id: &str, level: Level) -> Result<Container> {
    let mut bundle = context.token_bundle(id, &["/bin/sleep", "1000"]);
    level.annotate(&mut bundle);
    // By default its control group is called by its id, and a runtime refuses to join one that is in use.
    bundle.config["linux"]["cgroupsPath"] = json!(format!("/roots-{id}"));
    let container = Container::new(context.quickest(), id, &bundle)?;
    container.start()?;
    Ok(container)
}

fn ensure_reads(output: &Output, who: &str) -> Result<()> {
    ensure!(output.stdout == format!("read OK {TOKEN}\n"), "{who} does not read: {output}");
    Ok(())
}

fn ensure_refused(output: &Output, who: &str) -> Result<()> {
    ensure!(output.stdout.starts_with("read EPERM open"), "{who} is not refused: {output}");
    Ok(())
}

/// What is brought into a container says of the token.
fn exec(container: &Container) -> Result<Output> {
    container.exec(&["/bin/probe", "read", &token()])
}

/// A user's container with the id of one of root's that runs, whose policy is looser: it gets nothing of that, and
/// root's keeps what it has.
fn same_id(context: &Context) -> Result<()> {
    let id = context.id("same");
    if context.phase() == Phase::Off {
        return ensure_reads(&users_read(context, &id, |_| ())?, "a user, lockc off");
    }
    let roots = roots_container(context, &id, Level::Privileged)?;
    let before = context.with_lockc(|lockc| lockc.holdings())?;
    ensure_reads(&exec(&roots)?, "root's")?;
    ensure_refused(&users_read(context, &id, |_| ())?, "a user's run")?;

    let users = users_container(context, &id, &["/bin/sleep", "1000"], |_| ())?;
    users.start()?;
    ensure_refused(&exec(&users)?, "a user's exec")?;
    // Whose it is does not depend on what the command line says of the state.
    let mut command = Runtime { user: Some(USER), ..context.quickest().clone() }.command();
    command.args(["exec", &id, "/bin/probe", "read", &token()]);
    let output = process::run(&mut command, DEADLINE)?;
    ensure!(!output.stdout.contains(TOKEN), "a user in root's container: {output}");
    ensure_reads(&exec(&roots)?, "root's, beside a user's")?;
    drop(users);

    context.with_lockc(|lockc| {
        wait_for("the end of the user's record", TIDY, || {
            Ok(lockc.holdings()?.is_within(&before).then_some(()))
        })
    })?;
    ensure_reads(&exec(&roots)?, "root's, after a user's")
}

/// A user's bundle that asks for a looser policy, by what root's containers can ask by and by lockc's own label.
fn claims(context: &Context) -> Result<()> {
    for key in [crate::harness::bundle::LEVEL, "org.lockc.policy"] {
        let id = context.id("claims");
        // Other tests of this daemon replace runtimes, which are then known by their names.
        let logged = match context.phase() {
            Phase::Off => 0,
            _ => context.with_lockc(|lockc| Ok(lockc.log()?.lines().count()))?,
        };
        let output = users_read(context, &id, |bundle| {
            bundle.annotation(key, Level::Privileged.name());
        })?;
        if context.phase() == Phase::Off {
            ensure_reads(&output, "a user, lockc off")?;
            continue;
        }
        ensure_refused(&output, key)?;
        context.with_lockc(|lockc| {
            lockc.wait_for_line("the decision", |line| {
                line.contains(&format!("registered container={id} policy=baseline mode=enforce"))
                    && line.contains("does not count")
            })?;
            let log = lockc.log()?;
            let lost = log.lines().skip(logged).find(|line| line.contains("noticed unregistered"));
            ensure!(lost.is_none(), "a registration was not taken up: {lost:?}");
            Ok(())
        })?;
    }
    if context.phase() == Phase::On {
        // The rule that the user's bundle wanted to match is there.
        let roots = roots_container(context, &context.id("claims"), Level::Privileged)?;
        ensure_reads(&exec(&roots)?, "root's")?;
    }
    Ok(())
}

/// A configuration that does not restrict the user's containers.
fn free_users(context: &Context) -> String {
    let rule = "[[rule]]\nname = \"users\"\npolicy = \"privileged\"\nmatch.owner = \"1000\"\n";
    format!("{}{rule}", context.config())
}

/// What a user's runtime would have noted of a container with this first process, in the user's own directory.
fn forge(id: &str, pid: i32, start: u64, bundle: &Path) -> Result<()> {
    let of_user = Path::new("/run/user/1000");
    let dir = of_user.join("runc").join(id);
    fs::create_dir_all(&dir)?;
    let state = json!({
        "id": id,
        "init_process_pid": pid,
        "init_process_start": start,
        "config": { "labels": [format!("bundle={}", bundle.display())] },
    });
    fs::write(dir.join("state.json"), state.to_string())?;
    for path in [of_user, &of_user.join("runc"), &dir, &dir.join("state.json")] {
        chown(path, Some(USER), Some(USER))?;
    }
    Ok(())
}

/// Removes what [`forge`] makes.
struct Forged;

impl Drop for Forged {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all("/run/user/1000");
    }
}

/// State that a user has written names the first processes of root's containers, which run as that user's id: a daemon
/// that starts later does not take them for the user's, whose policy is looser.
fn forged_state(context: &Context) -> Result<()> {
    let mut lockc = context.start_lockc(&free_users(context))?;
    ensure_reads(&users_read(context, &context.id("free"), |_| ())?, "a user's own")?;

    // Kept where lockc is not told to look, so that nothing but the label says whose it is.
    let elsewhere =
        Runtime { state: context.scratch().join("state-elsewhere"), ..context.quickest().clone() };
    let start = |id: &str| -> Result<Container> {
        let mut bundle = context.token_bundle(id, &["/bin/sleep", "1000"]);
        bundle.user(USER);
        let container = Container::new(&elsewhere, id, &bundle)?;
        container.start()?;
        Ok(container)
    };
    let named = start(&context.id("named"))?;
    lockc.kill();
    let unnamed = start(&context.id("unnamed"))?;
    let _forged = Forged;
    let users_bundle = users_container(context, &context.id("forged"), &["/bin/true"], |_| ())?;
    for container in [&named, &unnamed] {
        ensure_refused(&exec(container)?, "root's, before")?;
        let state = container.state()?;
        let pid =
            state["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).context("no pid")?;
        let id = state["id"].as_str().context("no id")?;
        forge(id, pid, start_ticks(pid)?, users_bundle.bundle())?;
    }
    forge("init", 1, start_ticks(1)?, users_bundle.bundle())?;
    lockc.restart()?;
    for container in [&named, &unnamed] {
        ensure_refused(&exec(container)?, "root's, claimed by a user")?;
    }
    let log = lockc.log()?;
    let taken = log.lines().find(|line| line.contains("recognised ") || line.contains("adopted "));
    ensure!(taken.is_none(), "{taken:?}");
    lockc.check_alive()
}

/// Field 22 of `/proc/PID/stat`.
fn start_ticks(pid: i32) -> Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(')').context("no name")?;
    fields.split_whitespace().nth(19).context("no start time")?.parse().context("no number")
}

/// A user has as many records as a user may have: root's containers have theirs, whatever the user starts, and
/// whether or not the daemon is there to say no.
fn too_many(context: &Context) -> Result<()> {
    ensure_reads(&users_read(context, &context.id("off"), |_| ())?, "a user, lockc off")?;
    let mut lockc = context.start_lockc(&context.config())?;
    lockc.kill();
    without_daemon(context).context("while the daemon is dead")?;
    with_daemon(context, &mut lockc)
}

/// A container of the user that sleeps.
fn users_sleeping(context: &Context, what: &str) -> Result<Container> {
    let container = users_container(context, &context.id(what), &["/bin/sleep", "1000"], |_| ())?;
    container.start()?;
    Ok(container)
}

/// Of runtimes that nobody registers, what comes beyond the limit is contained all the same.
fn without_daemon(context: &Context) -> Result<()> {
    let (records, counter) = (pinned_map("CONTAINERS")?, pinned_map("USER_RECORDS")?);
    let count = |what: &str, wanted: usize| -> Result<()> {
        let mut last = 0;
        wait_for(what, TIDY, || {
            last = bpf::keys(&records)?.len();
            Ok((last == wanted).then_some(()))
        })
        .with_context(|| format!("{last} records, not {wanted}"))
    };
    let of_users = || Ok::<u64, anyhow::Error>(bpf::counter(&counter, 0)?);
    let before = bpf::keys(&records)?.len();
    ensure!(of_users()? == 0, "{} records of users without any", of_users()?);
    let almost = MADE_BY_USERS - 1;
    bpf::put(&counter, [(&0_u32.to_ne_bytes()[..], &almost.to_ne_bytes()[..])])?;

    let last = users_sleeping(context, "last")?;
    count("the last record of users", before + 1)?;
    let beyond = users_sleeping(context, "beyond")?;
    count("no more record of users", before + 1)?;
    let roots = roots_container(context, &context.id("roots"), Level::Baseline)?;
    count("a record of root's", before + 2)?;
    for (container, who) in [(&last, "the last one"), (&beyond, "one beyond"), (&roots, "root's")] {
        ensure_refused(&exec(container)?, who)?;
    }
    drop((last, beyond, roots));
    count("the end of all", before)?;
    wait_for("the count as before", TIDY, || Ok((of_users()? == almost).then_some(())))
        .with_context(|| format!("{:?} instead of {almost}", of_users()))?;
    let none = 0_u64.to_ne_bytes();
    Ok(bpf::put(&counter, [(&0_u32.to_ne_bytes()[..], &none[..])])?)
}

/// What comes beyond the limit of registrations does not start.
fn with_daemon(context: &Context, lockc: &mut Lockc) -> Result<()> {
    // Really starting them takes an emulated machine an hour; a daemon that starts counts what there is.
    let handles: Vec<[u8; 8]> =
        (0..MAX_OF_USER - 1).map(|number| (1 << 40 | number).to_ne_bytes()).collect();
    let (record, name) = (record(), name());
    bpf::put(&pinned_map("CONTAINERS")?, handles.iter().map(|it| (&it[..], &record[..])))?;
    bpf::put(&pinned_map("CONTAINER_NAMES")?, handles.iter().map(|it| (&it[..], &name[..])))?;
    lockc.restart()?;

    let last = users_sleeping(context, "many").context("the last one")?;
    let refused = users_read(context, &context.id("more"), |_| ());
    let log = || tail(&lockc.log().unwrap_or_default(), 40);
    ensure!(refused.is_err(), "one more starts: {refused:?}; log:\n{}", log());
    lockc.wait_for_line("the reason", |line| line.contains("its user has too many containers"))?;
    ensure_refused(&exec(&last)?, "the last one")?;
    let roots = roots_container(context, &context.id("roots"), Level::Baseline)?;
    ensure_refused(&exec(&roots)?, "root's")?;
    drop(last);
    // The record goes with the last task, and its place with the record.
    let again =
        wait_for("a place", TIDY, || Ok(users_read(context, &context.id("again"), |_| ()).ok()))?;
    ensure_refused(&again, "a user's, later")?;
    lockc.check_alive()
}

/// A `lockc_common::Container` with one task.
fn record() -> Vec<u8> {
    let mut words = [0_u64; 11];
    words[1] = 1;
    words.map(u64::to_ne_bytes).concat()
}

/// A `lockc_common::ContainerName` of the user's.
fn name() -> Vec<u8> {
    let mut bytes = vec![0; 8 + 1024];
    bytes[..4].copy_from_slice(&4_u32.to_ne_bytes());
    bytes[4..8].copy_from_slice(&USER.to_ne_bytes());
    bytes[8..12].copy_from_slice(b"many");
    bytes
}
