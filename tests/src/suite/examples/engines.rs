//! Those for Docker and for podman without root, and what people do with engines under the shipped
//! one.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
};

use anyhow::{Context as _, Result, ensure};

use super::{SHIPPED, case::starts_unread};
use crate::harness::{
    Context, Lockc,
    engine::{DEADLINE, Engine, IMAGE},
    fixture::{SERVICE_ACCOUNT, TOKEN},
    process::{Output, wait_for},
    runner::{Daemon, Test, With},
};

pub(super) const TESTS: &[Test] = &[
    test("kiosk-docker", kiosk_docker),
    test("podman-rootless", podman_rootless),
    test("docker-stack", docker_stack),
    test("podman-pod", podman_pod),
];

const fn test(name: &'static str, run: fn(&Context) -> Result<()>) -> Test {
    Test { group: "examples", name, daemon: Daemon::Own, with: With::One, run }
}

const KIOSK: &str = include_str!("../../../../examples/config/kiosk-docker.toml");
const ROOTLESS: &str = include_str!("../../../../examples/config/podman-rootless.toml");

/// `ENGINE run --rm OPTIONS IMAGE ARGS`.
fn run(engine: Engine, options: &[&str], args: &[&str]) -> Result<Output> {
    engine.does(&[&["run", "--rm", "--network", "none"], options, &[IMAGE], args].concat())
}

/// A container that is to start and say `done`.
fn starts(engine: Engine, options: &[&str], script: &str) -> Result<()> {
    let output = run(engine, options, &["sh", "-c", &format!("{script} && echo done")])?;
    ensure!(output.stdout.ends_with("done\n"), "{options:?}: {output}");
    Ok(())
}

/// A container that is not to start. The log must say all of `says` in one line.
fn refused(lockc: &Lockc, engine: Engine, options: &[&str], says: &[&str]) -> Result<()> {
    let before = lockc.log()?.lines().count();
    let output = run(engine, options, &["echo", "done"])?;
    ensure!(!output.status.success() && output.stdout.is_empty(), "{options:?}: {output}");
    let log = lockc.log()?;
    let line = log.lines().skip(before).find(|line| line.contains("denied start "));
    let line = line.with_context(|| format!("{options:?}: no refusal: {output}"))?;
    for text in says {
        ensure!(line.contains(text), "{options:?}: no {text:?} in {line}");
    }
    Ok(())
}

/// What the policy `kiosk` refuses, and the control that does.
const BEYOND: [(&str, &str); 6] = [
    ("--pid=host", "host_namespaces: "),
    ("--privileged", "privileged: "),
    ("--cap-add=SYS_ADMIN", "capabilities: "),
    ("--volume=/run/docker.sock:/socket", "runtime_sockets: "),
    ("--device=/dev/kmsg", "devices: "),
    ("--volume=/etc:/srv", "host_paths: "),
];

fn kiosk_docker(context: &Context) -> Result<()> {
    let docker = Engine::Docker;
    docker.load(context)?;
    fs::create_dir_all("/srv/kiosk/keys")?;
    fs::create_dir_all("/etc/kiosk")?;
    fs::write("/srv/kiosk/keys/key", "secret\n")?;
    fs::write("/etc/kiosk/settings", "settings\n")?;
    let keys = ["--volume=/srv/kiosk/keys:/run/kiosk/keys:ro"];
    let reads = "cat /run/kiosk/keys/key";
    let settings = ["--volume=/etc/kiosk:/etc/kiosk:ro", "--volume=/srv/kiosk:/srv"];
    let uses = "cat /etc/kiosk/settings && echo x >/srv/note";
    let user = ["--user=1000", "--cap-drop=ALL", "--security-opt=no-new-privileges"];
    let vendor = ["--label=com.docker.compose.project=vendor-x"];
    let name = ["--name=display"];

    let all: Vec<&str> = BEYOND.iter().map(|(option, _)| *option).collect();
    starts(docker, &all, "true").context("lockc off")?;
    starts(docker, &keys, reads).context("lockc off")?;
    starts(docker, &[&vendor[..], &name].concat(), "true").context("lockc off")?;
    starts_unread(context, context.runtime()).and_then(|started| {
        ensure!(started, "lockc off: the container with a long config.json does not start");
        Ok(())
    })?;

    let lockc = context.start_lockc(KIOSK)?;
    starts(docker, &settings, uses)?;
    let output = run(docker, &keys, &["sh", "-c", reads])?;
    ensure!(output.stderr.contains("Operation not permitted"), "the keys: {output}");
    lockc.wait_for_line("the denial", |line| {
        line.contains("denied open ") && line.contains(" path=/run/kiosk/keys")
    })?;
    for (option, control) in BEYOND {
        refused(&lockc, docker, &[option], &["policy kiosk", control])?;
    }
    refused(&lockc, docker, &name, &["rule `display` matches", "run_as_non_root: "])?;
    starts(docker, &["--name=display", "--user=1000"], "true")?;
    refused(&lockc, docker, &vendor, &["rule `third-party` matches", "privilege_escalation: "])?;
    starts(docker, &[&vendor[..], &user].concat(), "true")?;
    let output = run(docker, &[&vendor[..], &user, &keys].concat(), &["sh", "-c", reads])?;
    ensure!(!output.stdout.contains("secret"), "third-party keys: {output}");
    ensure!(
        !starts_unread(context, context.runtime())?,
        "a container that lockc cannot understand starts"
    );
    Ok(())
}

fn podman_rootless(context: &Context) -> Result<()> {
    let (user, root) = (Engine::Rootless, Engine::Podman);
    user.load(context)?;
    root.load(context)?;
    let modest = ["--cap-drop=all", "--security-opt=no-new-privileges"];
    let volume = [&modest[..], &["--volume=account:/run/secrets/kubernetes.io"]].concat();
    let token = context.token().dir().display().to_string();
    let token = [&format!("--volume={token}:{SERVICE_ACCOUNT}:ro")[..]];
    let claims =
        ["--annotation=org.lockc.policy=privileged", "--label=org.lockc.policy=privileged"];
    let reads = "cat /run/secrets/kubernetes.io/token";
    let reads_token = format!("cat {SERVICE_ACCOUNT}/token");

    starts(user, &[], "true").context("lockc off")?;
    starts(user, &volume, "echo x >/run/secrets/kubernetes.io/token").context("lockc off")?;
    starts(user, &volume, reads).context("lockc off")?;
    starts(user, &["--volume=/home/edge:/srv"], "true").context("lockc off")?;
    starts(root, &token, &reads_token).context("lockc off")?;

    let lockc = context.start_lockc(ROOTLESS)?;
    refused(&lockc, user, &[], &["rule `users` matches", "capabilities: "])?;
    refused(&lockc, user, &claims, &["rule `users` matches", "does not count", "capabilities: "])?;
    let host = [&modest[..], &["--volume=/home/edge:/srv"]].concat();
    refused(&lockc, user, &host, &["rule `users` matches", "host_paths: "])?;
    starts(user, &modest, "id && echo x >/root/note")?;
    for options in [volume.clone(), [&volume[..], &claims].concat()] {
        let output = run(user, &options, &["sh", "-c", reads])?;
        ensure!(output.stderr.contains("Operation not permitted"), "{options:?}: {output}");
    }
    starts(root, &[], "id")?;
    let output = run(root, &token, &["sh", "-c", &reads_token])?;
    ensure!(!output.stdout.contains(TOKEN), "root's container: {output}");
    ensure!(output.stderr.contains("Operation not permitted"), "root's container: {output}");
    Ok(())
}

/// Serves a page from the volume `/data`, on port 80.
const SERVER: [&str; 3] =
    ["sh", "-c", "echo a page >/data/index.html && exec httpd -f -p 80 -h /data"];

/// What a server on this host answers, once it does.
fn page(port: u16) -> Result<()> {
    wait_for(format_args!("a page from port {port}"), DEADLINE, || {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return Ok(None) };
        let mut answer = String::new();
        let asked = stream.write_all(b"GET / HTTP/1.0\r\n\r\n");
        let read = asked.and_then(|()| stream.read_to_string(&mut answer));
        Ok((read.is_ok() && answer.contains("a page")).then_some(()))
    })
}

/// Starts the stack, looks at it and removes it, without lockc and under the shipped configuration.
fn stack(
    context: &Context,
    engine: Engine,
    up: impl Fn() -> Result<()>,
    down: &[&[&str]],
    look: impl Fn() -> Result<()>,
) -> Result<()> {
    engine.load(context)?;
    fs::create_dir_all("/srv/shop/data")?;
    let try_it = |enforced: bool| -> Result<()> {
        let tried = up().and_then(|()| look()).and_then(|()| {
            let token = format!("{SERVICE_ACCOUNT}/token");
            let output = engine.exec("shop-web", &["cat", &token])?;
            let read = output.stdout.contains(TOKEN);
            ensure!(read != enforced, "the token, enforced: {enforced}: {output}");
            ensure!(read || output.stderr.contains("Operation not permitted"), "{output}");
            Ok(())
        });
        for words in down {
            // What did not come up cannot be taken down, and is an error already.
            let _ = engine.does(words);
        }
        tried
    };
    try_it(false).context("lockc off")?;
    let lockc = context.start_lockc(SHIPPED)?;
    try_it(true)?;
    let log = lockc.log()?;
    let found =
        log.lines().find(|line| line.contains("in spite of") || line.contains("denied start"));
    ensure!(found.is_none(), "{found:?}");
    Ok(())
}

fn up(engine: Engine, words: &[&str]) -> Result<()> {
    engine.does(words)?.success(format_args!("{engine:?} {words:?}")).map(drop)
}

/// What compose makes of two services: a network, a directory as a volume, a published port.
fn docker_stack(context: &Context) -> Result<()> {
    let docker = Engine::Docker;
    let token = format!("--volume={}:{SERVICE_ACCOUNT}:ro", context.token().dir().display());
    let project = "--label=com.docker.compose.project=shop";
    stack(
        context,
        docker,
        || {
            up(docker, &["network", "create", "shop"])?;
            let web = ["run", "-d", "--name=shop-web", "--network=shop", project, &token];
            let web = [&web[..], &["-p", "8080:80", "-v", "/srv/shop/data:/data", IMAGE], &SERVER];
            up(docker, &web.concat())
        },
        &[&["rm", "-f", "shop-web"], &["network", "rm", "shop"]],
        || {
            page(8080)?;
            let asks = ["run", "--rm", "--network=shop", project, IMAGE];
            let output =
                docker.does(&[&asks[..], &["wget", "-qO-", "http://shop-web/"]].concat())?;
            ensure!(output.stdout == "a page\n", "the other service: {output}");
            Ok(())
        },
    )
}

/// A pod with a published port and two containers that share its network.
fn podman_pod(context: &Context) -> Result<()> {
    let podman = Engine::Podman;
    let token = format!("--volume={}:{SERVICE_ACCOUNT}:ro", context.token().dir().display());
    stack(
        context,
        podman,
        || {
            up(podman, &["pod", "create", "--name=shop", "-p", "8081:80"])?;
            let web = ["run", "-d", "--name=shop-web", "--pod=shop", &token];
            let web = [&web[..], &["-v", "/srv/shop/data:/data", IMAGE], &SERVER].concat();
            up(podman, &web)
        },
        &[&["pod", "rm", "-f", "-t", "0", "shop"]],
        || {
            page(8081)?;
            let asks = ["run", "--rm", "--pod=shop", IMAGE, "wget", "-qO-", "http://127.0.0.1/"];
            let output = podman.does(&asks)?;
            ensure!(output.stdout == "a page\n", "the other container: {output}");
            Ok(())
        },
    )
}
