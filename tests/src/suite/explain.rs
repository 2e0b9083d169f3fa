//! `lockc explain` says what the daemon said.

use anyhow::{Context as _, Result, ensure};

use crate::harness::{
    Container, Context, Lockc, Runtime,
    runner::{Daemon, Test, With},
};

pub(crate) const TESTS: &[Test] = &[Test {
    group: "explain",
    name: "running",
    daemon: Daemon::Own,
    with: With::EachKind,
    run: running,
}];

/// The registration of `container` in the log: its policy and mode.
pub(crate) fn registered(lockc: &Lockc, container: &str) -> Result<(String, String)> {
    let line = lockc.wait_for_line("the registration", |line| {
        line.contains(&format!("registered container={container} "))
    })?;
    let field = |name: &str| {
        let (_, rest) = line.split_once(&format!(" {name}="))?;
        rest.split(' ').next().map(str::to_owned)
    };
    field("policy").zip(field("mode")).with_context(|| format!("no policy in {line}"))
}

/// Checks that each of `names` is explained as what the log says of `container`, which starts.
pub(crate) fn agrees(lockc: &Lockc, container: &str, names: &[&str]) -> Result<()> {
    let (policy, mode) = registered(lockc, container)?;
    for name in names {
        let (code, said) = lockc.explain(&[name])?;
        ensure!(said["container"]["id"]["value"] == container, "{name}: {said}");
        ensure!(said["decision"]["policy"] == policy.as_str(), "{name}, not {policy}: {said}");
        ensure!(said["decision"]["mode"] == mode.as_str(), "{name}, not {mode}: {said}");
        ensure!(code == Some(0) && said["starts"] == true, "{name}: {code:?}, {said}");
    }
    Ok(())
}

/// A running container is found by its id, where its runtime keeps it by default.
fn running(context: &Context) -> Result<()> {
    let rule = |container: &str, policy: &str| {
        format!(
            "[[rule]]\nname = \"{policy}\"\npolicy = \"{policy}\"\n\
             match.container = \"{container}\"\n[policy.{policy}]\nextends = \"baseline\"\n\
             paths.deny = [\"/{policy}\"]\n"
        )
    };
    let base = context.runtime_tables();
    let (one, other) = (context.id("explained"), context.id("other"));
    let rules = [rule(&one, "kiosk"), rule(&other, "shop")].concat();
    let lockc = context.start_lockc(&format!("{base}{rules}"))?;
    let runtime = Runtime {
        state: format!("/run/{}", context.runtime().kind()).into(),
        ..context.runtime().clone()
    };
    let start = |id: &str| -> Result<Container> {
        let container = Container::new(&runtime, id, &context.bundle(id, &["/bin/sleep", "1000"]))?;
        container.start()?;
        Ok(container)
    };
    let _containers = [start(&one)?, start(&other)?];
    for (id, policy) in [(&one, "kiosk"), (&other, "shop")] {
        ensure!(registered(&lockc, id)?.0 == policy, "{id} has another policy than {policy}");
        agrees(&lockc, id, &[id, &id[..id.len() - 1]])?;
        let (_, said) = lockc.explain(&[id])?;
        ensure!(said["container"]["runtime"]["value"] == runtime.kind(), "{said}");
    }
    // By the configuration on disk, whatever was decided when it started.
    lockc.reload(&base)?;
    let (_, said) = lockc.explain(&[&one])?;
    ensure!(said["decision"]["policy"] == "baseline", "{said}");
    Ok(())
}
