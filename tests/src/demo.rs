//! `lockc-tests demo`: a table of what containers get away with, with lockc off and on.

use std::{
    collections::HashMap,
    fs::{self, File},
    process::{ExitCode, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use crate::harness::{
    Bundle, Container, Context, Lockc,
    attack::{is_refused, results},
    context::Amounts,
    fixture::{SECRET, SERVICE_ACCOUNT, TOKEN},
    say,
};

/// Where packages put the configuration.
const CONFIG: &str = "/etc/lockc/lockc.toml";

/// One row of the table.
struct Row {
    /// What is tried, for people.
    title: &'static str,
    /// Name of the result.
    name: &'static str,
    /// Whether lockc must deny it; everything must work without lockc.
    denied: bool,
}

const fn attack(name: &'static str, title: &'static str) -> Row {
    Row { title, name, denied: true }
}

const fn work(name: &'static str, title: &'static str) -> Row {
    Row { title, name, denied: false }
}

const ROWS: [Row; 12] = [
    attack("token", "read the service-account token"),
    attack("uring", "read it through io_uring"),
    attack("rename", "read it after renaming its directory"),
    attack("exec", "read it from a process executed into the container"),
    attack("leak", "read a host file through a leaked descriptor"),
    attack("proc", "read a host file through /proc/PID/root"),
    attack("mount", "mount a file system"),
    attack("dmesg", "read the kernel's log"),
    attack("runtime", "open a container runtime's binary for writing"),
    work("shell", "pipelines, threads, sockets, files"),
    work("stdout", "write a log to /dev/stdout, a file of the host"),
    work("host", "read the token on the host meanwhile"),
];

/// Runs the rows without and with lockc, and prints the table.
pub(crate) fn run() -> Result<ExitCode> {
    let mut context = Context::new(None, Amounts::SMALL, false)?;
    // The installed configuration knows Debian's runtimes.
    context.leave_out("runc-new");
    progress("containers with lockc off");
    let off = observe(&context)?;
    progress("starting lockc");
    let config = fs::read_to_string(CONFIG).unwrap_or_else(|_| context.config());
    let lockc = context.start_lockc(&config)?;
    progress("the same containers with lockc on");
    let on = observe(&context)?;
    drop::<Lockc>(lockc);
    Ok(print(&off, &on))
}

#[expect(clippy::print_stderr, reason = "the table goes to stdout, what is going on to stderr")]
fn progress(what: &str) {
    eprintln!("demo: {what}");
}

/// What each row came to: `OK …`, an error number's name with the step, or something unexpected.
type Results = HashMap<String, String>;

fn print(off: &Results, on: &Results) -> ExitCode {
    let width = ROWS.iter().map(|row| row.title.len()).max().unwrap_or_default();
    let mut good = true;
    say(format_args!("{:width$}  {:8}  {:8}", "what a container tries", "off", "on"));
    say(format_args!("{:-<width$}  {:-<8}  {:-<8}", "", "", ""));
    for Row { title, name, denied } in ROWS {
        let [before, after] = [off, on].map(|results| describe(results.get(name)));
        let expected = if denied { "denied" } else { "works" };
        let mark = if before == "works" && after == expected { "" } else { "  UNEXPECTED" };
        good &= mark.is_empty();
        say(format_args!("{title:width$}  {before:8}  {after:8}{mark}"));
        if !mark.is_empty() {
            say(format_args!("    off: {:?}, on: {:?}", off.get(name), on.get(name)));
        }
    }
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn describe(result: Option<&String>) -> &'static str {
    match result {
        Some(result) if result.starts_with("OK") => "works",
        Some(result) if is_refused(result) => "denied",
        _ => "fails",
    }
}

/// Runs the containers.
fn observe(context: &Context) -> Result<Results> {
    let mut results = attackers(context)?;
    results.insert("exec".to_owned(), executed(context)?);
    results.insert("shell".to_owned(), shell(context)?);
    results.insert("stdout".to_owned(), log_to_stdout(context)?);
    let text = fs::read_to_string(context.token().token());
    let read = text.is_ok_and(|text| text.trim_end() == TOKEN);
    results.insert("host".to_owned(), if read { "OK" } else { "cannot" }.to_owned());
    Ok(results)
}

/// One container that tries all the attacks.
fn attackers(context: &Context) -> Result<Results> {
    let runtime = context.runtime();
    // Not the runtime that runs: its binary is busy.
    let other = context.runtimes().iter().find(|other| other.kind() != runtime.kind());
    let other = other.context("the demo needs runc and crun")?;
    let (Some(bin), Some(name)) = (other.binary.parent(), other.binary.file_name()) else {
        anyhow::bail!("no directory in {}", other.binary.display());
    };
    let pid = std::process::id();
    let secret = context.host_dir().join("secret");
    let items = [
        format!("token:read {SERVICE_ACCOUNT}/token"),
        format!("uring:uring {SERVICE_ACCOUNT}/token worker"),
        "rename:rename /run/secrets /run/s2 /run/s2/kubernetes.io/serviceaccount/token".to_owned(),
        "leak:fd-at 3 secret".to_owned(),
        format!("proc:read /proc/{pid}/root{}", secret.display()),
        "mount:mount tmpfs /mnt".to_owned(),
        "dmesg:syslog".to_owned(),
        // Nothing is written: with lockc off this is the machine's own binary.
        format!("runtime:write /host-bin/{} ", name.display()),
    ];
    let id = context.id("attacker");
    let mut args = vec!["/bin/probe", "list"];
    args.extend(items.iter().map(String::as_str));
    let mut bundle = context.token_bundle(&id, &args);
    bundle.bind(bin, "/host-bin").share("pid");
    bundle.capabilities(&["CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_SYSLOG"]);
    let container = Container::new(runtime, &id, &bundle)?;
    let output = container.run_leaking(&context.host_dir())?.success("the attacker")?;
    let results: Results = results(&output)
        .into_iter()
        .map(|(name, result)| (name.to_owned(), result.to_owned()))
        .collect();
    // What is read must be what lies there.
    for (name, result) in &results {
        let is_gain = [TOKEN, SECRET, "done", "log"].iter().any(|gain| result.ends_with(gain));
        ensure!(!result.starts_with("OK") || is_gain, "{name} read {result:?}");
    }
    Ok(results)
}

fn executed(context: &Context) -> Result<String> {
    let id = context.id("sleeper");
    let bundle = context.token_bundle(&id, &["/bin/sleep", "1000"]);
    let container = Container::new(context.runtime(), &id, &bundle)?;
    container.start()?;
    let token = format!("{SERVICE_ACCOUNT}/token");
    let output = container.exec(&["/bin/probe", "read", &token])?;
    Ok(output.stdout.trim_end().trim_start_matches("read ").to_owned())
}

fn shell(context: &Context) -> Result<String> {
    let script = "seq 1 1000 | sort -rn | head -1; echo note >/tmp/note && cat /tmp/note; \
                  /bin/probe list 'a:threads 8' 'b:tcp' 'c:unix-socket /tmp/s' 'd:deleted /tmp/d'";
    let container = context.container("shell", |bundle: &mut Bundle| {
        bundle.config["process"]["args"] = serde_json::json!(["/bin/sh", "-c", script]);
    })?;
    let said = container.run()?.stdout;
    let expected =
        "1000\nnote\na OK 8 threads, sum 36\nb OK hello\nc OK hello\nd OK gone, yet here\n";
    Ok(if said == expected { "OK".to_owned() } else { said })
}

fn log_to_stdout(context: &Context) -> Result<String> {
    let log = context.scratch().join("demo.log");
    let container = context.container("log", |bundle: &mut Bundle| {
        let script = "echo a line >/dev/stdout; echo another >>/proc/self/fd/1";
        bundle.config["process"]["args"] = serde_json::json!(["/bin/sh", "-c", script]);
    })?;
    let file = File::options().create(true).append(true).open(&log)?;
    container.run_detached(|command| {
        command.stdin(Stdio::null()).stdout(file);
    })?;
    let text = fs::read_to_string(&log)?;
    fs::remove_file(&log)?;
    Ok(if text == "a line\nanother\n" { "OK".to_owned() } else { format!("{text:?}") })
}
