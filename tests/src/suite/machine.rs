//! A container does not act on the machine's kernel, its devices and its processes.

use std::{fs, process::Command};

use anyhow::{Context as _, Result};

use crate::harness::{
    Attack, Bundle, Context, Entry, attack,
    attack::no_preparation,
    fixture,
    runner::{Daemon, Test, With},
};

pub(crate) const TESTS: &[Test] = &[
    test("interfaces", With::EachKind, interfaces),
    test("devices", With::One, devices),
    test("calls", With::One, calls),
    test("processes", With::EachKind, processes),
];

const fn test(name: &'static str, with: With, run: fn(&Context) -> Result<()>) -> Test {
    Test { group: "machine", name, daemon: Daemon::OffThenOn, with, run }
}

const INTERFACE: &[&str] = &["kernel-interface"];
const DEVICE: &[&str] = &["device"];

/// Settings of the kernel, through file systems that the runtime mounts writable, at unusual places.
fn interfaces(context: &Context) -> Result<()> {
    let write = |name, path: &str| Attack::denied(name, &format!("reach-write {path}"), INTERFACE);
    let attacks = [
        write("core-pattern", "/proc2/sys/kernel/core_pattern"),
        write("modprobe", "/proc2/sys/kernel/modprobe"),
        write("overcommit", "/proc2/sys/vm/overcommit_memory"),
        write("sysrq", "/proc2/sysrq-trigger"),
        write("part-of-proc", "/sysctl/core_pattern"),
        write("file-of-proc", "/etc/pattern"),
        write("ksm", "/sys2/kernel/mm/ksm/run"),
        write("module-setting", "/sys2/module/kernel/parameters/panic"),
        Attack::denied("kcore", "reach /proc2/kcore", INTERFACE),
        Attack::denied("debugfs", "reach /debug/sched", INTERFACE),
        Attack::denied("tracefs", "reach /trace/available_tracers", INTERFACE),
        Attack::denied("pin-directory", "mkdir /bpf/directory", INTERFACE),
        Attack::denied("pin-link", "make-link /bpf/link", INTERFACE),
        Attack::denied("pin-mode", "chmod /bpf", INTERFACE),
        Attack::ordinary("own-score", "reach-write /proc/self/oom_score_adj"),
        Attack::ordinary("own-name", "reach-write /proc/self/comm"),
        Attack::ordinary("host-name", "reach-write /proc2/sys/kernel/hostname"),
        Attack::ordinary("forwarding", "reach-write /proc2/sys/net/ipv4/ip_forward"),
        Attack::ordinary("queues", "reach-write /proc2/sys/fs/mqueue/msg_max"),
        Attack::ordinary("read-setting", "reach /proc2/sys/kernel/core_pattern"),
        Attack::ordinary("read-sysfs", "reach /sys2/kernel/mm"),
    ];
    let setup = |bundle: &mut Bundle| {
        bundle
            .mount("/proc2", "proc", "proc", &[])
            .mount("/sys2", "sysfs", "sysfs", &[])
            .mount("/debug", "debugfs", "debugfs", &[])
            .mount("/trace", "tracefs", "tracefs", &[])
            .mount("/bpf", "bpf", "bpf", &[])
            .bind("/proc/sys/kernel".as_ref(), "/sysctl")
            .bind("/proc/sys/kernel/core_pattern".as_ref(), "/etc/pattern")
            .capabilities(&["CAP_SYS_ADMIN", "CAP_SYS_RAWIO", "CAP_NET_ADMIN", "CAP_SYS_RESOURCE"]);
    };
    attack(context, "interfaces", &Entry::Run, no_preparation, setup, &attacks)
}

/// Memory, ports and disks, and making devices.
fn devices(context: &Context) -> Result<()> {
    let attacks = [
        Attack::denied("memory", "reach /dev/harmless", DEVICE),
        Attack::denied("memory-write", "reach-write /dev/harmless", DEVICE),
        Attack::denied("make-disk", "mknod /dev/disk b 8 0", DEVICE),
        Attack::denied("make-memory", "mknod /dev/memory c 1 1", DEVICE),
        Attack::denied("make-log", "mknod /dev/log2 c 1 11", DEVICE),
        Attack::denied("make-raw", "mknod /data/tty c 4 64", DEVICE),
        Attack::ordinary("make-null", "mknod /dev/null2 c 1 3"),
        Attack::ordinary("make-tty", "mknod /dev/tty2 c 5 0"),
        Attack::ordinary("whiteout", "mknod /dev/gone c 0 0"),
        Attack::ordinary("null", "reach-write /dev/null"),
    ];
    let setup = |bundle: &mut Bundle| {
        bundle.device("/dev/harmless", 1, 1).mount("/data", "tmpfs", "tmpfs", &["mode=755"]);
        bundle.capabilities(&["CAP_SYS_RAWIO"]);
    };
    attack(context, "devices", &Entry::Run, no_preparation, setup, &attacks)
}

/// Calls that act on the kernel, by a process that has the capability for each.
fn calls(context: &Context) -> Result<()> {
    let capability = |name, line: &str| Attack::denied(name, line, &["capability"]);
    let attacks = [
        Attack { gain: "map".to_owned(), ..Attack::denied("bpf", "bpf", &["bpf"]) },
        Attack { gain: "event".to_owned(), ..Attack::denied("perf", "perf", &["perf-event"]) },
        capability("module", "module"),
        capability("kexec", "kexec"),
        capability("clock", "clock"),
        capability("accounting", "accounting"),
    ];
    let setup = |bundle: &mut Bundle| {
        bundle.capabilities(&[
            "CAP_SYS_MODULE",
            "CAP_SYS_BOOT",
            "CAP_SYS_TIME",
            "CAP_SYS_PACCT",
            "CAP_BPF",
            "CAP_PERFMON",
            // Debian asks for it besides (kernel.perf_event_paranoid = 3).
            "CAP_SYS_ADMIN",
        ]);
    };
    attack(context, "calls", &Entry::Run, no_preparation, setup, &attacks)
}

/// Processes of the host, in its PID namespace, by a process that has every capability for it.
fn processes(context: &Context) -> Result<()> {
    let victim = context.scratch().join("busybox-victim");
    fs::copy(fixture::busybox()?, &victim)?;
    let mut child =
        Command::new(&victim).args(["sleep", "1000"]).spawn().context("start a host process")?;
    let attacks = [
        Attack::denied("signal", "signal busybox-victim", &["signal"]),
        Attack::denied("trace", "trace busybox-victim", &["trace"]),
        Attack::denied("peek", "peek busybox-victim", &["trace"]),
        Attack::denied("environ", "environ busybox-victim", &["trace"]),
        Attack::denied("nice", "nice busybox-victim", &["schedule"]),
        Attack::denied("affinity", "affinity busybox-victim", &["schedule"]),
        Attack::denied("limit", "limit busybox-victim", &["schedule"]),
        Attack::ordinary("own-signal", "signal own-signal"),
        Attack::ordinary("own-peek", "peek own-peek"),
        Attack::ordinary("own-environ", "environ own-environ"),
        Attack::ordinary("own-nice", "nice own-nice"),
        Attack::ordinary("own-limit", "limit own-limit"),
    ];
    let setup = |bundle: &mut Bundle| {
        bundle.share("pid").capabilities(&["CAP_SYS_PTRACE", "CAP_SYS_NICE", "CAP_SYS_RESOURCE"]);
    };
    let result = attack(context, "processes", &Entry::Run, no_preparation, setup, &attacks);
    // It can only have ended already.
    let _ = child.kill();
    let _ = child.wait();
    result
}
