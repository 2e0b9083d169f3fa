//! Ordinary containers notice nothing: the same work gives the same output, byte for byte.

use std::{fmt::Write as _, fs};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use crate::harness::{
    Bundle, Context,
    runner::{Daemon, Test, With},
    same_output,
};

pub(crate) const TESTS: &[Test] = &[
    test("work", With::Each, work),
    test("exec", With::EachAndYouki, exec),
    test("volumes", With::Each, volumes),
    test("user-namespace", With::Each, user_namespace),
    test("seccomp", With::Each, seccomp),
    test("life-cycle", With::Each, life_cycle),
];

const fn test(name: &'static str, with: With, run: fn(&Context) -> Result<()>) -> Test {
    Test { group: "ordinary", name, daemon: Daemon::OffThenOn, with, run }
}

/// What a shell does all day.
const SCRIPT: &str = r"
exec 2>&1
seq 1 100 | sort -rn | head -3
echo a b c | tr ' ' '\n' | tee /tmp/words | wc -l
cat /tmp/words /etc/hostname
cat /proc/self/comm /proc/1/comm /proc/sys/kernel/ostype
readlink /proc/self/exe /proc/self/root /proc/self/cwd
grep ^Cap /proc/self/status
cut -d ' ' -f 5- /proc/self/mountinfo | sed 's/ master:[0-9]*//; s/ - .*//' | wc -l
head -c 4 /dev/zero | od -An -tx1
head -c 8 /dev/urandom | wc -c
echo discarded >/dev/null && cat /dev/null | wc -c
ls /dev | sort
ls -d /bin /etc /proc /tmp
ls /proc/self/fd | wc -l
mkdir -p /tmp/a/b && touch /tmp/a/b/c && mv /tmp/a /tmp/z && ls /tmp/z/b && rm -r /tmp/z
ln -s /etc/hostname /tmp/link && cat /tmp/link && ln /tmp/words /tmp/hard && cat /tmp/hard | wc -l
sh -c 'exit 7'; echo $?
(sleep 0; echo background) & wait
kill -0 $$ && echo alive
test -e /run/secrets/kubernetes.io/absent; echo $?
cat /nowhere; echo $?
chroot / /bin/echo from a chroot
echo 'echo a script: $0' >/tmp/script && sh /tmp/script
/bin/probe list 'threads:threads 8' 'unix:unix-socket /tmp/socket' 'tcp:tcp' 'udp:udp' \
    'memfd:memfd' 'memfd-exec:memfd-exec' 'deleted:deleted /tmp/gone' 'user-ns:user-ns hello' \
    'orphan:orphan /etc/hostname' 'uring:uring /etc/hostname worker' 'handle:o-path /etc/hostname' \
    'chroot:chroot /etc /hostname' 'user-ns-exec:user-ns exec /bin/probe hello' \
    'at:at /etc hostname O_PATH' 'rename:rename /run/secrets/../secrets-not /run/x /run/x' \
    'fd:read /dev/fd/0'
";

fn shell(bundle: &mut Bundle, script: &str) {
    bundle.config["process"]["args"] = json!(["/bin/sh", "-c", script]);
}

fn work(context: &Context) -> Result<()> {
    same_output(
        context,
        "work",
        |bundle| shell(bundle, SCRIPT),
        |container| Ok(container.run()?.success("run")?.stdout),
    )
}

/// `exec` of programs, alone and again and again as health checks do it.
fn exec(context: &Context) -> Result<()> {
    let setup = |bundle: &mut Bundle| {
        bundle.config["process"]["args"] = json!(["/bin/sleep", "1000"]);
    };
    same_output(context, "exec", setup, |container| {
        container.start()?;
        let script = "exec 2>&1; seq 9 | sort -r | head -2; cat /proc/1/comm; echo a >/tmp/a; cat /tmp/a; \
                      /bin/probe list 'threads:threads 4' 'tcp:tcp' 'memfd-exec:memfd-exec'";
        let mut said = container.exec(&["/bin/sh", "-c", script])?.success("exec")?.stdout;
        for _ in 0..3 {
            let check = container.exec(&["/bin/sh", "-c", "test -d /proc/1 && echo healthy"])?;
            said.push_str(&check.stdout);
        }
        let failed = container.exec(&["/bin/sh", "-c", "exit 3"])?;
        writeln!(said, "exit code {:?}", failed.status.code())?;
        let absent = container.exec(&["/bin/absent"])?;
        writeln!(said, "absent program: {}", absent.status.success())?;
        Ok(said)
    })
}

/// Volumes of every kind, and a root file system that is read-only.
fn volumes(context: &Context) -> Result<()> {
    let volume = context.scratch().join("volume");
    fs::create_dir_all(&volume)?;
    fs::write(volume.join("given"), "from the host\n")?;
    let script = "exec 2>&1; cat /volume/given /ro/given; echo written >/volume/taken; \
                  echo no >/ro/given; echo no >/root/file; echo yes >/scratch/file; \
                  cat /scratch/file; ls /volume | sort; cat /file; echo changed >/file; cat /file";
    let file = volume.join("file");
    let setup = |bundle: &mut Bundle| {
        shell(bundle, script);
        bundle.bind(&volume, "/volume");
        bundle.mount("/ro", "bind", &volume.to_string_lossy(), &["rbind", "ro"]);
        bundle.mount("/scratch", "tmpfs", "tmpfs", &["size=1m"]);
        bundle.bind(&file, "/file");
        bundle.config["root"]["readonly"] = json!(true);
    };
    // The mount points must exist beforehand in a root file system that is read-only.
    for name in ["volume", "ro", "scratch"] {
        fs::create_dir_all(context.image().join(name))?;
    }
    fs::write(context.image().join("file"), "")?;
    same_output(context, "volumes", setup, |container| {
        fs::write(&file, "a file as a volume\n")?;
        let mut said = container.run()?.stdout;
        let taken = fs::read_to_string(volume.join("taken")).context("what the container wrote")?;
        said.push_str(&taken);
        said.push_str(&fs::read_to_string(&file)?);
        fs::remove_file(volume.join("taken"))?;
        Ok(said)
    })
}

/// A container whose root is nobody on the host.
fn user_namespace(context: &Context) -> Result<()> {
    let script = "exec 2>&1; id; cat /proc/self/uid_map; echo a >/tmp/a; stat -c %u /tmp/a; \
                  cat /etc/hostname; seq 3 | sort -r; ls /dev | sort; echo >/etc/denied";
    let setup = |bundle: &mut Bundle| {
        shell(bundle, script);
        bundle.user_namespace(100_000, 65_536);
    };
    same_output(context, "userns", setup, |container| {
        let output = container.run()?;
        ensure!(output.stdout.contains("uid=0"), "not root in its namespace: {output}");
        Ok(output.stdout)
    })
}

/// A filter that refuses one system call.
fn seccomp(context: &Context) -> Result<()> {
    let script =
        "exec 2>&1; grep ^Seccomp: /proc/self/status; mkdir /tmp/refused; echo $?; ls /tmp";
    let setup = |bundle: &mut Bundle| {
        shell(bundle, script);
        bundle.config["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [ { "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO" } ],
        });
    };
    same_output(context, "seccomp", setup, |container| {
        let output = container.run()?.success("run")?;
        ensure!(output.stdout.contains("Seccomp:\t2"), "no filter: {output}");
        Ok(output.stdout)
    })
}

/// `create`, `state`, `start`, `pause`, `kill`, `delete`, and `list` in between.
fn life_cycle(context: &Context) -> Result<()> {
    let setup = |bundle: &mut Bundle| {
        bundle.config["process"]["args"] = json!(["/bin/sleep", "1000"]);
    };
    same_output(context, "life", setup, |container| {
        let mut said = String::new();
        let mut note = |what: &str| -> Result<()> {
            let status = container.state()?["status"].to_string();
            writeln!(said, "{what}: {status}")?;
            Ok(())
        };
        container.create()?;
        note("create")?;
        container.verb("start", &[])?.success("start")?;
        note("start")?;
        let again = container.create().is_err();
        container.verb("kill", &["KILL"])?.success("kill")?;
        crate::harness::process::wait_for(
            "the end of the container",
            crate::harness::container::DEADLINE,
            || Ok((!container.is_running()).then_some(())),
        )?;
        container.verb("delete", &[])?.success("delete")?;
        let gone = container.state().is_err();
        writeln!(said, "created twice: {}, gone: {gone}", !again)?;
        Ok(said)
    })
}
