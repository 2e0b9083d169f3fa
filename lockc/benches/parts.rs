//! What the parts of a decision and of a start cost that are no system calls: `cargo bench -p lockc --bench parts`.
//! Prints; compares nothing.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use divan::{Bencher, black_box};
use lockc::{
    bpf::{btf::Btf, layout},
    config::Config,
    policy::{Subject, decide},
    runtime::{
        argv::{Argv, Exec},
        bundle,
        cmdline::{self, Dialect},
        engine::{Engine, Fact, Identity},
    },
};
use nix::unistd::{Pid, Uid};

/// A container start as Docker 26 makes it: see the bench `gate`.
const CONFIG: &[u8] = include_bytes!("gate/config.json");
/// What containerd's shim executes.
const WORDS: &[&str] = &[
    "runc",
    "--root",
    "/var/run/docker/runtime-runc/moby",
    "--log",
    "/run/containerd/io.containerd.runtime.v2.task/moby/0123456789ab/log.json",
    "--log-format",
    "json",
    "create",
    "--bundle",
    "/run/containerd/io.containerd.runtime.v2.task/moby/0123456789ab",
    "--pid-file",
    "/run/containerd/io.containerd.runtime.v2.task/moby/0123456789ab/init.pid",
    "0123456789ab",
];
/// Where the task's list of arguments is.
const BASE: u64 = 0x7ffe_0000_0000;

fn main() {
    divan::main();
}

/// The list, and what it points at, as they lie in the memory of a task.
fn memory() -> Vec<u8> {
    let (mut list, mut texts) = (Vec::new(), Vec::new());
    let first = BASE + 8 * (WORDS.len() as u64 + 1);
    for word in WORDS {
        list.extend((first + texts.len() as u64).to_ne_bytes());
        texts.extend(word.bytes());
        texts.push(0);
    }
    list.extend([0; 8]);
    list.extend(texts);
    list
}

fn words() -> Argv {
    let memory = memory();
    let read = |address: u64, buffer: &mut [u8]| {
        let at = usize::try_from(address - BASE).unwrap_or(usize::MAX);
        let rest = memory.get(at..).unwrap_or_default();
        let len = rest.len().min(buffer.len());
        buffer[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    };
    let exec = Exec { argv: BASE, pointer_len: 8 };
    exec.words(Pid::this(), &read).unwrap_or(Argv { words: Vec::new(), cut: true })
}

/// Out of a task's memory, which takes four system calls besides.
#[divan::bench]
fn argv() -> Argv {
    words()
}

#[divan::bench]
fn command_line(bencher: Bencher<'_, '_>) {
    let argv = words();
    assert!(cmdline::parse(Dialect::Runc, &argv.words, argv.cut).is_ok());
    bencher.bench(|| cmdline::parse(Dialect::Runc, &black_box(&argv).words, argv.cut).is_ok());
}

#[divan::bench]
fn bundle(bencher: Bencher<'_, '_>) {
    assert!(bundle::parse(CONFIG, Path::new("config.json")).is_ok());
    bencher.bench(|| bundle::parse(black_box(CONFIG), Path::new("config.json")));
}

fn fact<T>(value: T) -> Fact<T> {
    Fact { value, source: "bench".to_owned(), trusted: true }
}

/// A container of Kubernetes that only the last rule matches.
fn identity() -> Identity {
    let text = |value: &str| Some(fact(value.to_owned()));
    Identity {
        engine: fact(Engine::Cri),
        namespace: text("shop"),
        pod: text("cart-7c9d8b6f5-x2x4z"),
        container: text("cart"),
        image: text("registry.example/shop/cart:1.2.3"),
        labels: BTreeMap::from([("app".to_owned(), fact("cart".to_owned()))]),
        annotations: BTreeMap::new(),
        notes: Vec::new(),
    }
}

/// So many rules, each with two globs, of which the last matches; 1024 can be configured.
#[divan::bench(args = [1, 10, 100, 1000])]
fn rules(bencher: Bencher<'_, '_>, count: usize) {
    let mut toml = String::new();
    for number in 1..count {
        // Writing to a string cannot fail.
        let _ = write!(
            toml,
            "[[rule]]\nname = \"{number}\"\npolicy = \"baseline\"\nmatch.namespace = \"s*\"\n\
             match.image = \"registry.example/*/service-{number}:*\"\n"
        );
    }
    toml.push_str(
        "[[rule]]\nname = \"last\"\npolicy = \"privileged\"\nmatch.label.app = \"cart\"\n",
    );
    let config = Config::parse(&toml, Path::new("bench.toml")).unwrap_or_default();
    let identity = identity();
    let subject = Subject { owner: Uid::from_raw(0), runtime: "runc", identity: &identity };
    assert_eq!(decide(subject, &config).policy, "privileged");
    bencher.bench(|| decide(black_box(subject), &config));
}

/// Of the kernel that this runs on.
#[divan::bench]
fn btf(bencher: Bencher<'_, '_>) {
    let data = fs::read("/sys/kernel/btf/vmlinux").unwrap_or_default();
    assert!(!data.is_empty(), "this kernel has no type information");
    bencher.bench(|| Btf::parse(black_box(&data)).is_ok_and(|btf| layout::resolve(&btf).is_ok()));
}
