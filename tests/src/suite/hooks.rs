//! OCI hooks: the host's do their work as before, the image's are container code.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use crate::harness::{
    Bundle, Container, Context, Level,
    fixture::{self, SECRET, SERVICE_ACCOUNT, TOKEN},
    process::wait_for,
    runner::{Daemon, Test, With},
    same_output,
};

pub(crate) const TESTS: &[Test] = &[
    test("every-kind", With::EachKind, every_kind),
    test("mounting", With::EachKind, mounting),
    test("start-container", With::EachKind, start_container),
    test("image-program-in-chroot", With::EachKind, image_program_in_chroot),
    test("image-program", With::EachKind, image_program),
];

const fn test(name: &'static str, with: With, run: fn(&Context) -> Result<()>) -> Test {
    Test { group: "hooks", name, daemon: Daemon::OffThenOn, with, run }
}

/// The kinds that run on the host side.
const HOST_KINDS: [&str; 5] =
    ["prestart", "createRuntime", "createContainer", "poststart", "poststop"];

fn busybox() -> Result<String> {
    Ok(fixture::busybox()?.to_string_lossy().into_owned())
}

/// Every kind of hook notes that it ran, what state it was told and that it can read the host.
fn every_kind(context: &Context) -> Result<()> {
    let busybox = busybox()?;
    let log = context.scratch().join("hooks.log");
    let secret = context.host_dir().join("secret");
    let setup = |bundle: &mut Bundle| {
        for kind in HOST_KINDS {
            let script = format!(
                "bb={busybox}; state=$($bb tr -d ' \\n\\t' | $bb sed 's/.*\"status\":\"\\([a-z]*\\)\".*/\\1/'); \
                 echo \"{kind} $state $($bb cat {}) $($bb id -u)\" >>{}",
                secret.display(),
                log.display()
            );
            bundle.hook(kind, &[&busybox, "sh", "-c", &script]);
        }
        bundle.hook("startContainer", &["/bin/sh", "-c", "echo startContainer >/data/started"]);
        bundle.mount("/data", "tmpfs", "tmpfs", &["mode=777"]);
        bundle.config["process"]["args"] =
            json!(["/bin/sh", "-c", "cat /data/started; cat /etc/hostname"]);
    };
    same_output(context, "hooks", setup, |container| {
        fs::write(&log, "")?;
        let output = container.run()?.success("run")?;
        let noted = fs::read_to_string(&log)?;
        for kind in HOST_KINDS {
            ensure!(noted.contains(kind), "no {kind} hook ran: {noted:?}");
        }
        ensure!(noted.matches(SECRET).count() == HOST_KINDS.len(), "hooks read: {noted:?}");
        Ok(format!("{}--\n{noted}", output.stdout))
    })
}

/// A createContainer hook mounts a host directory into the root file system, as GPU toolkits do;
/// the container uses it.
fn mounting(context: &Context) -> Result<()> {
    let busybox = busybox()?;
    let directory = context.scratch().join("driver");
    fs::create_dir_all(&directory)?;
    fs::write(directory.join("library"), "a driver of the host\n")?;
    let root = context.image();
    let setup = |bundle: &mut Bundle| {
        let script = format!(
            "{busybox} mount --bind {} {root}/srv && {busybox} mount -t tmpfs tmpfs {root}/mnt2 \
             && {busybox} cp {}/library {root}/mnt2/copy",
            directory.display(),
            directory.display(),
            root = root.display(),
        );
        bundle.hook("createContainer", &[&busybox, "sh", "-c", &script]);
        bundle.config["process"]["args"] =
            json!(["/bin/sh", "-c", "cat /srv/library /mnt2/copy; echo x >/srv/new; cat /srv/new"]);
    };
    same_output(context, "mounting", setup, |container| Ok(container.run()?.success("run")?.stdout))
}

/// Runs a container with a hook that makes a program of the image read the token, at every level.
/// What it said must be in the file `said`, and a denial in the log: `refusal` is what it says then,
/// and the operation.
fn reads_token(
    context: &Context,
    what: &str,
    said: &Path,
    refusal: (&str, &str),
    setup: impl Fn(&mut Bundle),
) -> Result<()> {
    for level in context.levels() {
        let id = context.id(what);
        let mut bundle = context.token_bundle(&id, &["/bin/true"]);
        level.annotate(&mut bundle);
        setup(&mut bundle);
        let _ = fs::remove_file(said);
        let container = Container::new(context.runtime(), &id, &bundle)?;
        let output = container.run()?;
        let said =
            wait_for("what the hook's program said", crate::harness::container::DEADLINE, || {
                Ok(fs::read_to_string(said).ok())
            });
        let said = said.with_context(|| format!("{}: {output}", level.name()))?;
        let name = level.name();
        if *level == Level::Privileged {
            ensure!(said.contains(&format!("OK {TOKEN}")), "{name}: {said:?}; {output}");
        } else {
            let (answer, operation) = refusal;
            let denied = format!("denied {operation} ");
            ensure!(said.contains(answer), "{name}: {said:?}; {output}");
            context.with_lockc(|lockc| {
                lockc.wait_for_line(&format!("denial of {id}"), |line| {
                    line.contains(&denied) && line.contains(&format!("container={id} "))
                })
            })?;
        }
    }
    Ok(())
}

/// The refusal of a program that runs and may not read the token.
const MAY_NOT_READ: (&str, &str) = (" EPERM ", "open");

/// A startContainer hook is a program of the image.
fn start_container(context: &Context) -> Result<()> {
    let shared = context.scratch().join("shared");
    fs::create_dir_all(&shared)?;
    reads_token(context, "start-hook", &shared.join("said"), MAY_NOT_READ, |bundle| {
        let script = format!("/bin/probe read {SERVICE_ACCOUNT}/token >/data/said");
        bundle.bind(&shared, "/data").hook("startContainer", &["/bin/sh", "-c", &script]);
    })
}

/// A createContainer hook enters the root file system and runs a program of the image.
fn image_program_in_chroot(context: &Context) -> Result<()> {
    let busybox = busybox()?;
    let said = context.scratch().join("chroot.said");
    reads_token(context, "chroot-hook", &said, MAY_NOT_READ, |bundle| {
        let script = format!(
            "{busybox} chroot {} /bin/probe read {SERVICE_ACCOUNT}/token >{}; exit 0",
            context.image().display(),
            said.display()
        );
        bundle.hook("createContainer", &[&busybox, "sh", "-c", &script]);
    })
}

/// A createContainer hook runs a program of the image without entering it: the whole host would lie
/// before it, under names that no rule knows, so it may not start.
fn image_program(context: &Context) -> Result<()> {
    let busybox = busybox()?;
    let said = context.scratch().join("image.said");
    let may_not_start = ("Operation not permitted", "foreign-exec");
    reads_token(context, "image-hook", &said, may_not_start, |bundle| {
        let root = context.image();
        let root = root.display();
        let script = format!(
            "{root}/bin/probe read {root}{SERVICE_ACCOUNT}/token >{} 2>&1; exit 0",
            said.display()
        );
        bundle.hook("createContainer", &[&busybox, "sh", "-c", &script]);
    })
}
