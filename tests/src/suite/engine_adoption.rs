//! Containers that engines have started before lockc. Those of Docker that start while it is stopped: see `service`.

use anyhow::{Context as _, Result, ensure};

use super::engines::tag;
use crate::harness::{
    Context, Lockc,
    attack::results,
    bundle::LEVEL,
    engine::Engine,
    fixture::{SERVICE_ACCOUNT, TOKEN},
    lurk::Lurk,
    runner::{Daemon, Test, With},
};

pub(crate) const TESTS: &[Test] = &[Test {
    group: "adoption",
    name: "engines",
    daemon: Daemon::Own,
    with: With::One,
    run: engines,
}];

/// A container of an engine, whose processes try to read the token when they are told to.
struct Lurker {
    engine: Engine,
    name: String,
    id: String,
    lurk: Lurk,
    /// How many processes its engine has brought in.
    execs: u32,
}

impl Lurker {
    fn start(context: &Context, engine: Engine, options: &[&str]) -> Result<Self> {
        engine.load(context)?;
        let name = format!("lt-{}", tag(context));
        let lurk = Lurk::new(context, &name)?;
        let (from, to) = lurk.directory();
        let volume = engine.volume(from, to, false);
        let capability = match engine {
            Engine::Containerd => "--cap-add=CAP_SYS_ADMIN",
            _ => "--cap-add=SYS_ADMIN",
        };
        let options = [options, &[&volume, capability]].concat();
        let words = Lurk::words();
        // Several that fork as fast as they can are more than an emulated machine takes.
        let words: Vec<&str> = words.iter().map(String::as_str).chain(["500"]).collect();
        engine
            .start(context, &name, true, &options, &words)?
            .success(format_args!("{engine:?}: run"))?;
        let lurker = Self { engine, id: engine.id(&name)?, name, lurk, execs: 0 };
        lurker.lurk.wait_for_start().with_context(|| format!("{engine:?}"))?;
        Ok(lurker)
    }

    /// Checks that its processes, and those that its engine brings in, can read the token or cannot, and that ordinary
    /// work goes on.
    fn ensure(&mut self, can_read: bool) -> Result<()> {
        let Self { engine, name, lurk, execs, .. } = self;
        *execs += 1;
        let wanted = if can_read { format!("OK {TOKEN}") } else { "EPERM open".to_owned() };
        lurk.ensure_all(&wanted).with_context(|| format!("{engine:?}"))?;
        let read = format!("read:read {SERVICE_ACCOUNT}/token");
        // The socket of the last one is still there.
        let socket = format!("socket:unix-socket /tmp/socket-{execs}");
        let items = [read.as_str(), "threads:threads 4", &socket];
        let output = engine.exec(name, &[&["/bin/probe", "list"], &items[..]].concat())?;
        let said = results(&output);
        let said = |item: &str| said.get(item).copied().unwrap_or_default().trim_end();
        ensure!(said("read").starts_with(&wanted), "{engine:?}: exec reads: {output}");
        ensure!(said("threads") == "OK 4 threads, sum 10", "{engine:?}: threads: {output}");
        ensure!(said("socket") == "OK hello", "{engine:?}: socket: {output}");
        Ok(())
    }

    /// Waits for a line of the log about it.
    fn wait_for_line(&self, lockc: &Lockc, what: &str, policy: &str) -> Result<()> {
        let line = format!("{what} container={} policy={policy} ", self.id);
        let found = lockc.wait_for_line(what, |it| it.contains(&line));
        found.map(drop).with_context(|| format!("{:?}", self.engine))
    }
}

impl Drop for Lurker {
    fn drop(&mut self) {
        // What is left of it is of no use to other tests, and in nobody's way.
        let _ = self.engine.remove(&self.name);
    }
}

/// What engines have started before lockc is decided about as usual, and contained with all its processes.
fn engines(context: &Context) -> Result<()> {
    let (label, annotation) =
        ("--label=org.lockc.policy=restricted", format!("--annotation={LEVEL}=restricted"));
    let mut lurkers = Vec::new();
    for (engine, option, policy) in [
        (Engine::Docker, Some(label), "restricted"),
        (Engine::Podman, None, "baseline"),
        (Engine::Containerd, Some(annotation.as_str()), "restricted"),
    ] {
        let mut lurker = Lurker::start(context, engine, option.as_slice())?;
        lurker.ensure(true).context("without lockc")?;
        lurkers.push((lurker, policy));
    }
    let mut lockc = context.start_lockc(&context.config())?;
    for (lurker, policy) in &mut lurkers {
        lurker.ensure(false).context("with lockc")?;
        lurker.wait_for_line(&lockc, "adopted", policy)?;
        let denied = format!(" container={} policy={policy} ", lurker.id);
        lockc
            .wait_for_line("a denial", |it| it.contains("denied open ") && it.contains(&denied))?;
    }
    lockc.check_alive()
}
