//! From what was audited to a policy that allows it, and nothing else.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    path::Path,
};

use super::{Change, advise, quoted};
use crate::{config::Config, event::record::Record, explain::plain};

/// So many entries of one directory become the directory.
const SIBLINGS: usize = 5;
/// Fewer components than this has no directory that entries become: `/usr` says too much.
const LEAST_DEPTH: usize = 2;
/// Programs that a comment names.
const NAMES: usize = 4;
/// Different things that are kept: who is in a container can ask for as many as it likes, of 2 KiB each.
const MOST_CHANGES: usize = 50_000;

/// Who needed something, and how often.
#[derive(Clone, Debug, Default)]
struct Use {
    count: u64,
    programs: BTreeSet<String>,
}

impl Use {
    fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.programs.extend(other.programs.iter().cloned());
    }

    fn comment(&self) -> String {
        let mut names: Vec<_> = self.programs.iter().take(NAMES).map(|it| plain(it)).collect();
        if self.programs.len() > NAMES {
            names.push("…".to_owned());
        }
        let times =
            if self.count == 1 { "once".to_owned() } else { format!("{} times", self.count) };
        format!("{}, {times}", names.join(", "))
    }
}

/// What events ask for, by the policy that they were judged by.
#[derive(Debug)]
pub struct Learner<'c> {
    config: &'c Config,
    policies: BTreeMap<&'c str, BTreeMap<Change, (Use, String)>>,
    /// Changes that are kept.
    kept: usize,
    /// Events that would have been more.
    left_out: u64,
}

impl<'c> Learner<'c> {
    /// Nothing is known yet.
    pub fn new(config: &'c Config) -> Self {
        Self { config, policies: BTreeMap::new(), kept: 0, left_out: 0 }
    }

    /// Takes an event up, if it asks for a change of a policy that is configured.
    pub fn add(&mut self, record: &Record) {
        if record.verdict != "audited" && record.verdict != "denied" {
            return;
        }
        let Some(policy) = self.config.policies.get(&record.policy) else { return };
        let (_, change) = advise(record, policy);
        let needs = self.policies.entry(&policy.name).or_default();
        if !needs.contains_key(&change) {
            if self.kept == MOST_CHANGES {
                self.left_out += 1;
                return;
            }
            self.kept += 1;
        }
        let (used, operation) = needs.entry(change).or_default();
        operation.clone_from(&record.operation);
        used.count += 1;
        // One more than are named says that there are more.
        if used.programs.len() <= NAMES {
            used.programs.insert(record.comm.clone());
        }
    }

    /// A policy per policy that the events were judged by, which extends it and allows them: TOML with a comment to each
    /// line. `name` is what it is called; with more than one, the name of the extended policy is added. Nothing if no event
    /// asks for a change.
    pub fn finish(self, name: &str) -> Option<String> {
        let Self { policies, left_out, .. } = self;
        if policies.is_empty() {
            return None;
        }
        let is_one = policies.len() == 1;
        let tables = policies.into_iter().map(|(base, needs)| {
            let name = if is_one { name.to_owned() } else { format!("{name}-{base}") };
            table(&name, base, needs)
        });
        let mut text = tables.collect::<Vec<_>>().join("\n");
        if left_out > 0 {
            // Writing to a string does not fail.
            let _ = writeln!(
                text,
                "# left out: {left_out} events, which ask for more than {MOST_CHANGES} different things"
            );
        }
        Some(text)
    }
}

fn table(name: &str, base: &str, needs: BTreeMap<Change, (Use, String)>) -> String {
    let mut out = format!("[policy.{}]\nextends = {}\n", key(name), quoted(base));
    let mut lists: BTreeMap<&str, BTreeMap<String, Use>> = BTreeMap::new();
    let mut left = String::new();
    for (change, (used, operation)) in needs {
        // Writing to a string does not fail.
        let _ = match &change {
            Change::Entry { key, value } => {
                lists.entry(key).or_default().insert(value.clone(), used);
                Ok(())
            }
            Change::Value { key, value } => writeln!(out, "{key} = {value} # {}", used.comment()),
            Change::None { instead } => {
                writeln!(left, "# not allowed: {operation} ({}): {instead}", used.comment())
            }
        };
    }
    for (key, mut entries) in lists {
        if matches!(key, "paths.allow" | "exec.allow") {
            entries = generalise(entries);
        }
        let _ = writeln!(out, "{key} = [");
        for (value, used) in entries {
            let _ = writeln!(out, "    {}, # {}", quoted(&value), used.comment());
        }
        let _ = writeln!(out, "]");
    }
    out + &left
}

/// A bare key where that is possible.
fn key(name: &str) -> String {
    let is_bare = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if !name.is_empty() && name.bytes().all(is_bare) { name.to_owned() } else { quoted(name) }
}

/// Processes have directories of their own below `/proc`; many entries of one directory become the directory.
fn generalise(entries: BTreeMap<String, Use>) -> BTreeMap<String, Use> {
    let mut all: BTreeMap<String, Use> = BTreeMap::new();
    for (path, used) in entries {
        let path = if is_of_process(&path) { "/proc".to_owned() } else { path };
        all.entry(path).or_default().add(&used);
    }
    loop {
        let mut directories: BTreeMap<String, usize> = BTreeMap::new();
        for path in all.keys() {
            if let Some(above) = above(path) {
                *directories.entry(above).or_default() += 1;
            }
        }
        directories.retain(|_, count| *count >= SIBLINGS);
        if directories.is_empty() {
            break;
        }
        // Those below another one of them have nothing left when it is their turn.
        for directory in directories.keys() {
            fold(&mut all, directory);
        }
    }
    // What lies below another entry is allowed by that.
    for directory in all.keys().cloned().collect::<Vec<_>>() {
        fold(&mut all, &directory);
    }
    all
}

/// All entries below a directory become the directory, if there are any.
fn fold(all: &mut BTreeMap<String, Use>, directory: &str) {
    // What begins alike stands together.
    let prefix = format!("{}/", directory.trim_end_matches('/'));
    let from = all.range(prefix.clone()..).map(|(path, _)| path);
    let paths: Vec<String> = from.take_while(|path| path.starts_with(&prefix)).cloned().collect();
    for path in paths {
        if let Some(used) = all.remove(&path) {
            all.entry(directory.to_owned()).or_default().add(&used);
        }
    }
}

fn is_of_process(path: &str) -> bool {
    let rest = path.strip_prefix("/proc/").unwrap_or_default();
    let first = rest.split('/').next().unwrap_or_default();
    first == "self"
        || first == "thread-self"
        || (!first.is_empty() && first.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The directory that a path is in, if it is deep enough to stand for all that is in it.
fn above(path: &str) -> Option<String> {
    let directory = Path::new(path).parent()?;
    let depth = directory.components().count().checked_sub(1)?;
    (depth >= LEAST_DEPTH).then(|| directory.to_str().map(str::to_owned))?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learn<'r>(
        records: impl Iterator<Item = &'r Record>,
        config: &Config,
        name: &str,
    ) -> Option<String> {
        let mut learner = Learner::new(config);
        records.for_each(|record| learner.add(record));
        learner.finish(name)
    }

    #[test]
    fn what_containers_ask_for_filled_the_memory() {
        let config = config();
        let mut learner = Learner::new(&config);
        for number in 0..MOST_CHANGES + 3 {
            learner.add(&audited("open", &format!("/a/{number}"), "x"));
        }
        // What is known already is counted on.
        for number in 0..100 {
            learner.add(&audited("open", "/a/1", &format!("program-{number}")));
        }
        let kept = &learner.policies["web"];
        assert_eq!((kept.len(), learner.left_out), (MOST_CHANGES, 3));
        let (used, _) = &kept[&Change::Entry { key: "paths.allow", value: "/a/1".into() }];
        assert_eq!((used.count, used.programs.len()), (101, NAMES + 1));
        let learnt = learner.finish("x").unwrap();
        assert!(
            learnt.ends_with(
                "\n# left out: 3 events, which ask for more than 50000 different things\n"
            ),
            "{learnt}"
        );
    }

    fn config() -> Config {
        let text = "[policy.web]\nextends = \"restricted\"\nmode = \"audit\"\npaths.default = \"deny\"\nexec.allow = []\nnetwork.default = \"deny\"\n";
        Config::parse(text, "x.toml".as_ref()).unwrap()
    }

    fn audited(operation: &str, path: &str, comm: &str) -> Record {
        Record {
            policy: "web".into(),
            path: Some(path.into()),
            comm: comm.into(),
            ..Record::now("audited", operation)
        }
    }

    #[test]
    fn a_policy_is_learnt_that_the_configuration_accepts() {
        let mut records = vec![
            audited("exec", "/usr/sbin/httpd", "sh"),
            audited("open", "/etc/passwd", "httpd"),
            audited("open", "/etc/passwd", "httpd"),
            audited("open", "/proc/17/stat", "httpd"),
            audited("open", "/proc/18/stat", "httpd"),
            audited("mount", "/mnt", "mount"),
            Record {
                address: Some("10.0.0.1:53".parse().unwrap()),
                ..audited("connect", "", "httpd")
            },
            Record { operation: "io-uring".into(), ..audited("", "", "httpd") },
            // Another policy's, which is not known any more, and what needed nothing.
            Record { policy: "gone".into(), ..audited("open", "/x", "x") },
            Record { verdict: "allowed".into(), ..audited("open", "/x", "x") },
        ];
        records.extend((0..6).map(|n| audited("open", &format!("/srv/www/{n}/index"), "httpd")));
        records.extend((0..6).map(|n| audited("open", &format!("/srv/www/img/{n}.png"), "httpd")));
        let learnt = learn(records.iter(), &config(), "web-learned").unwrap();
        let wanted = r#"[policy.web-learned]
extends = "web"
io_uring = "allow" # httpd, once
exec.allow = [
    "/usr/sbin/httpd", # sh, once
]
network.allow = [
    "10.0.0.1:53", # httpd, once
]
paths.allow = [
    "/etc/passwd", # httpd, 2 times
    "/proc", # httpd, 2 times
    "/srv/www/0/index", # httpd, once
    "/srv/www/1/index", # httpd, once
    "/srv/www/2/index", # httpd, once
    "/srv/www/3/index", # httpd, once
    "/srv/www/4/index", # httpd, once
    "/srv/www/5/index", # httpd, once
    "/srv/www/img", # httpd, 6 times
]
# not allowed: mount (mount, once): no key of a policy allows it; a rule can give this container a policy that does not deny it, such as `privileged`
"#;
        assert_eq!(learnt, wanted);
        let whole = format!(
            "[policy.web]\nextends = \"restricted\"\nmode = \"audit\"\npaths.default = \"deny\"\nexec.allow = []\nnetwork.default = \"deny\"\n{learnt}"
        );
        Config::parse(&whole, "x.toml".as_ref()).unwrap();
    }

    #[test]
    fn nothing_is_learnt_from_nothing() {
        assert_eq!(learn([].iter(), &config(), "x"), None);
    }

    #[test]
    fn directories_near_the_root_stand_for_nothing() {
        let paths = (0..9).map(|n| (format!("/etc/{n}"), Use::default()));
        assert_eq!(generalise(paths.collect()).len(), 9);
        let paths = (0..9).map(|n| (format!("/etc/ssl/{n}"), Use::default()));
        assert_eq!(generalise(paths.collect()).into_keys().collect::<Vec<_>>(), ["/etc/ssl"]);
    }
}
