//! What a decision by many rules costs: `cargo bench -p lockc --bench decide`. Prints percentiles;
//! compares nothing.

#![expect(clippy::print_stdout, reason = "a bench prints what it measured")]

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    hint::black_box,
    path::Path,
    time::{Duration, Instant},
};

use lockc::{
    config::Config,
    policy::{Subject, decide},
    runtime::engine::{Engine, Fact, Identity},
};
use nix::unistd::Uid;

/// The most that can be configured is 1024.
const RULES: usize = 1000;
const DECISIONS: usize = 10_000;

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

fn main() {
    let mut toml = String::new();
    for number in 1..RULES {
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
    let config = match Config::parse(&toml, Path::new("bench.toml")) {
        Ok(config) => config,
        Err(error) => {
            println!("{error}");
            return;
        }
    };
    let identity = identity();
    let subject = Subject { owner: Uid::from_raw(0), runtime: "runc", identity: &identity };
    let mut times: Vec<Duration> = (0..DECISIONS)
        .map(|_| {
            let start = Instant::now();
            black_box(decide(black_box(subject), &config));
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100];
    println!("decision by {RULES} rules, {DECISIONS} times: p50 {:?}, p99 {:?}", at(50), at(99));
}
