//! A container does not act on the machine's kernel, its devices and its processes.

use std::{fs, process::Command};

use anyhow::{Context as _, Result};

use crate::harness::{
    Attack, Bundle, Context, Entry, Expect, attack,
    attack::no_preparation,
    fixture,
    runner::{Daemon, Test, With},
};

pub(crate) const TESTS: &[Test] = &[
    test("interfaces", With::Each, interfaces),
    test("devices", With::One, devices),
    test("calls", With::One, calls),
    test("processes", With::Each, processes),
];

const fn test(name: &'static str, with: With, run: fn(&Context) -> Result<()>) -> Test {
    Test { group: "machine", name, daemon: Daemon::OffThenOn, with, run }
}

fn try_to(name: &'static str, line: &str, operations: &'static [&'static str]) -> Attack {
    Attack {
        name,
        line: line.to_owned(),
        gain: "done".to_owned(),
        expect: Expect::Denied(operations),
    }
}

/// What must work with lockc as it does without.
fn ordinary(name: &'static str, line: &str) -> Attack {
    let expect = Expect::Same("OK done".to_owned());
    Attack { expect, ..try_to(name, line, &[]) }
}

const INTERFACE: &[&str] = &["kernel-interface"];
const DEVICE: &[&str] = &["device"];

/// Settings of the kernel, through file systems that the runtime mounts writable, at unusual places.
fn interfaces(context: &Context) -> Result<()> {
    let write = |name, path: &str| try_to(name, &format!("reach-write {path}"), INTERFACE);
    let attacks = [
        write("core-pattern", "/proc2/sys/kernel/core_pattern"),
        write("modprobe", "/proc2/sys/kernel/modprobe"),
        write("overcommit", "/proc2/sys/vm/overcommit_memory"),
        write("sysrq", "/proc2/sysrq-trigger"),
        write("part-of-proc", "/sysctl/core_pattern"),
        write("file-of-proc", "/etc/pattern"),
        write("ksm", "/sys2/kernel/mm/ksm/run"),
        write("module-setting", "/sys2/module/kernel/parameters/panic"),
        try_to("kcore", "reach /proc2/kcore", INTERFACE),
        try_to("debugfs", "reach /debug/sched", INTERFACE),
        try_to("tracefs", "reach /trace/available_tracers", INTERFACE),
        ordinary("own-score", "reach-write /proc/self/oom_score_adj"),
        ordinary("own-name", "reach-write /proc/self/comm"),
        ordinary("host-name", "reach-write /proc2/sys/kernel/hostname"),
        ordinary("forwarding", "reach-write /proc2/sys/net/ipv4/ip_forward"),
        ordinary("queues", "reach-write /proc2/sys/fs/mqueue/msg_max"),
        ordinary("read-setting", "reach /proc2/sys/kernel/core_pattern"),
        ordinary("read-sysfs", "reach /sys2/kernel/mm"),
    ];
    let setup = |bundle: &mut Bundle| {
        bundle
            .mount("/proc2", "proc", "proc", &[])
            .mount("/sys2", "sysfs", "sysfs", &[])
            .mount("/debug", "debugfs", "debugfs", &[])
            .mount("/trace", "tracefs", "tracefs", &[])
            .bind("/proc/sys/kernel".as_ref(), "/sysctl")
            .bind("/proc/sys/kernel/core_pattern".as_ref(), "/etc/pattern")
            .capabilities(&["CAP_SYS_ADMIN", "CAP_SYS_RAWIO", "CAP_NET_ADMIN", "CAP_SYS_RESOURCE"]);
    };
    attack(context, "interfaces", &Entry::Run, no_preparation, setup, &attacks)
}

/// Memory, ports and disks, and making devices.
fn devices(context: &Context) -> Result<()> {
    let attacks = [
        try_to("memory", "reach /dev/harmless", DEVICE),
        try_to("memory-write", "reach-write /dev/harmless", DEVICE),
        try_to("make-disk", "mknod /dev/disk b 8 0", DEVICE),
        try_to("make-memory", "mknod /dev/memory c 1 1", DEVICE),
        try_to("make-log", "mknod /dev/log2 c 1 11", DEVICE),
        try_to("make-raw", "mknod /data/tty c 4 64", DEVICE),
        ordinary("make-null", "mknod /dev/null2 c 1 3"),
        ordinary("make-tty", "mknod /dev/tty2 c 5 0"),
        ordinary("whiteout", "mknod /dev/gone c 0 0"),
        ordinary("null", "reach-write /dev/null"),
    ];
    let setup = |bundle: &mut Bundle| {
        bundle.device("/dev/harmless", 1, 1).mount("/data", "tmpfs", "tmpfs", &["mode=755"]);
        bundle.capabilities(&["CAP_SYS_RAWIO"]);
    };
    attack(context, "devices", &Entry::Run, no_preparation, setup, &attacks)
}

/// Calls that act on the kernel, by a process that has the capability for each.
fn calls(context: &Context) -> Result<()> {
    let capability = |name, line: &str| try_to(name, line, &["capability"]);
    let attacks = [
        Attack { gain: "map".to_owned(), ..try_to("bpf", "bpf", &["bpf"]) },
        Attack { gain: "event".to_owned(), ..try_to("perf", "perf", &["perf-event"]) },
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
        try_to("signal", "signal busybox-victim", &["signal"]),
        try_to("trace", "trace busybox-victim", &["trace"]),
        try_to("peek", "peek busybox-victim", &["trace"]),
        try_to("environ", "environ busybox-victim", &["trace"]),
        try_to("nice", "nice busybox-victim", &["schedule"]),
        try_to("affinity", "affinity busybox-victim", &["schedule"]),
        try_to("limit", "limit busybox-victim", &["schedule"]),
        ordinary("own-signal", "signal own-signal"),
        ordinary("own-peek", "peek own-peek"),
        ordinary("own-environ", "environ own-environ"),
        ordinary("own-nice", "nice own-nice"),
        ordinary("own-limit", "limit own-limit"),
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
