//! What the running lockc tells of itself: over a socket in its directory, to root, and to a group that the
//! configuration may name. It tells, and takes no orders.

mod ask;
pub mod metrics;

use std::path::PathBuf;

use lockc_common::{SELF_TEST, UNATTRIBUTED, UNATTRIBUTED_TASKS};
use serde::{Deserialize, Serialize};

pub use self::ask::{AskError, ask};

/// The daemon's own directory.
pub const DIRECTORY: &str = "/run/lockc";
/// Name of the socket in it.
pub const SOCKET: &str = "lockc.sock";
/// Version of what is told: grows when a key changes its meaning or goes, not when one is added.
pub const SCHEMA: u32 = 1;

/// What can be asked: one line, which is answered by one JSON document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Query {
    /// For a [`Status`].
    Status,
    /// For [`Containers`].
    Containers,
}

impl Query {
    const ALL: [Self; 2] = [Self::Status, Self::Containers];

    /// Its line, without the end.
    pub const fn line(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Containers => "containers",
        }
    }

    /// What a line asks for.
    pub fn parse(line: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|query| query.line().as_bytes() == line)
    }
}

/// The daemon as a whole. Times are in seconds since the epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// [`SCHEMA`] of who tells.
    pub schema: u32,
    /// Version of lockc.
    pub version: String,
    /// Release of the kernel.
    pub kernel: String,
    /// Process id of the daemon.
    pub pid: u32,
    /// When it was ready.
    pub since: u64,
    /// The configuration's main file.
    pub config: PathBuf,
    /// When what is in force was read.
    pub in_force_since: u64,
    /// Why the configuration on disk is not in force; nothing if it is.
    pub stale: Option<String>,
    /// Name of the default policy.
    pub default_policy: String,
    /// Its mode.
    pub default_mode: String,
    /// Number of rules.
    pub rules: usize,
    /// Number of files that are watched as runtimes.
    pub runtime_files: usize,
    /// Names of the programs that are attached, which are those of their hooks.
    pub hooks: Vec<String>,
    /// How their decisions get into the kernel: `lsm` or `modify_return`.
    pub backend: String,
    /// Why in that way.
    pub backend_reason: String,
    /// What cannot be enforced in that way on this kernel.
    pub gaps: Vec<String>,
    /// Number of containers that have a record.
    pub containers: usize,
    /// What the programs have counted since the first of them was loaded.
    pub counters: Counters,
    /// What the gate has done since the daemon started.
    pub gate: Gate,
    /// Events that this daemon could not keep in its file.
    pub unkept: u64,
    /// The last errors of the daemon, the oldest first.
    pub errors: Vec<Trouble>,
}

/// Counters of the programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counters {
    /// Operations that were denied.
    pub denied: u64,
    /// Operations that audit mode let pass.
    pub audited: u64,
    /// Events that were lost because nobody took them in time.
    pub lost: u64,
    /// Events that were not sent because their container made too many.
    pub suppressed: u64,
    /// Runtimes that were executed while no daemon was there to decide.
    pub unregistered: u64,
    /// Tasks that ran before lockc and are contained now.
    pub adopted: u64,
}

/// What the gate has answered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Gate {
    /// Executions of a runtime that went on.
    pub allowed: u64,
    /// Executions that were denied.
    pub denied: u64,
    /// Answers that came by the deadline, without a look. They are among the others.
    pub late: u64,
    /// How many answers took at most so many microseconds, and not less than the bucket before; the last has no bound.
    pub buckets: Vec<Bucket>,
    /// Microseconds that all answers took.
    pub sum_us: u64,
}

/// A part of [`Gate::buckets`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Bucket {
    /// Upper bound, in microseconds.
    pub up_to_us: Option<u64>,
    /// Answers.
    pub count: u64,
}

impl Gate {
    /// Microseconds that no more than `percent` % of the answers took longer than the rest: the upper bound of the bucket in
    /// which that falls. Nothing without answers, or if it falls in the last one.
    pub fn percentile(&self, percent: u64) -> Option<u64> {
        let all: u64 = self.buckets.iter().map(|bucket| bucket.count).sum();
        let wanted = (all * percent).div_ceil(100).max(1);
        let mut seen = 0;
        let bucket = self.buckets.iter().find(|bucket| {
            seen += bucket.count;
            seen >= wanted
        })?;
        bucket.up_to_us
    }
}

/// An error of the daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Trouble {
    /// When.
    pub time: u64,
    /// What it logged.
    pub message: String,
}

/// The containers of the node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Containers {
    /// [`SCHEMA`] of who tells.
    pub schema: u32,
    /// Whether a daemon told it: otherwise it comes from what is pinned, and less is known.
    pub daemon: bool,
    /// In the order of their start.
    pub containers: Vec<Container>,
}

/// A container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Container {
    /// Its id for its runtime; nothing if its runtime was not understood.
    pub id: Option<String>,
    /// Number of its record, in hexadecimal digits: no other container of this boot has it.
    pub record: String,
    /// User id of who started its runtime.
    pub owner: Option<u32>,
    /// Its engine.
    pub engine: Option<String>,
    /// Its name for its engine.
    pub name: Option<String>,
    /// Its image.
    pub image: Option<String>,
    /// Its Kubernetes namespace.
    pub namespace: Option<String>,
    /// Its pod.
    pub pod: Option<String>,
    /// Name of its policy.
    pub policy: Option<String>,
    /// Mode of its policy.
    pub mode: Option<String>,
    /// Why it has this policy.
    pub why: Option<String>,
    /// When its first process was contained, in seconds since the epoch; nothing if that has not come.
    pub started: Option<u64>,
    /// Tasks (threads) that are its.
    pub tasks: u64,
    /// What was denied it, or would have been if its policy were not in audit mode.
    pub denied: u64,
    /// How much of that was not reported, because there was too much.
    pub suppressed: u64,
}

impl Container {
    /// What a record of the programs says by itself; nothing of the self-test's, and of the one for tasks that nobody knows
    /// while there is none.
    pub fn of_record(handle: u64, record: &lockc_common::Container) -> Option<Self> {
        let unknown = if handle == UNATTRIBUTED { UNATTRIBUTED_TASKS } else { 0 };
        let tasks = record.tasks.saturating_sub(unknown);
        let is_shown = handle & SELF_TEST == 0 && (handle != UNATTRIBUTED || tasks > 0);
        is_shown.then(|| Self {
            record: format!("{handle:x}"),
            started: started(record),
            tasks,
            denied: record.denied,
            suppressed: record.suppressed,
            ..Self::default()
        })
    }

    /// How people know it.
    pub fn shown_id(&self) -> String {
        match &self.id {
            Some(id) => id.clone(),
            None => unattributed(&self.record),
        }
    }
}

/// How people know a container without an id, by the number of its record in hexadecimal digits.
pub fn unattributed(record: &str) -> String {
    if record == format!("{UNATTRIBUTED:x}") {
        return "unattributed".to_owned();
    }
    format!("unattributed-{record}")
}

/// When a container's first process was contained, in seconds since the epoch, by the clock that its record goes by: the
/// same whenever it is asked.
fn started(record: &lockc_common::Container) -> Option<u64> {
    let time = record.started.checked_add_signed(record.clock)?;
    (record.started != 0).then_some(time / 1_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_lines() {
        for query in Query::ALL {
            assert_eq!(Query::parse(query.line().as_bytes()), Some(query));
        }
        assert_eq!(Query::parse(b"status "), None);
        assert_eq!(Query::parse(b""), None);
    }

    #[test]
    fn records_that_are_no_container_are_not_shown() {
        let record = |tasks| lockc_common::Container { tasks, ..Default::default() };
        let shown = |handle, tasks| Container::of_record(handle, &record(tasks));
        assert_eq!(shown(SELF_TEST | 7, 1), None);
        assert_eq!(shown(UNATTRIBUTED, UNATTRIBUTED_TASKS), None);
        let some = shown(UNATTRIBUTED, UNATTRIBUTED_TASKS + 3).unwrap();
        assert_eq!((some.tasks, some.shown_id().as_str()), (3, "unattributed"));
        assert_eq!(shown(0xab, 0).unwrap().shown_id(), "unattributed-ab");
        let record = |started, clock| lockc_common::Container { started, clock, ..record(1) };
        assert_eq!(started(&record(0, 5)), None);
        assert_eq!(started(&record(2_500_000_000, 1_700_000_000_600_000_000)), Some(1_700_000_003));
        assert_eq!(started(&record(5, -6)), None);
    }

    #[test]
    fn percentiles_are_bounds_of_buckets() {
        let gate = |counts: [u64; 3]| Gate {
            buckets: [Some(100), Some(200), None]
                .into_iter()
                .zip(counts)
                .map(|(up_to_us, count)| Bucket { up_to_us, count })
                .collect(),
            ..Gate::default()
        };
        assert_eq!(gate([0, 0, 0]).percentile(50), None);
        assert_eq!(gate([1, 0, 0]).percentile(99), Some(100));
        assert_eq!(gate([50, 50, 0]).percentile(50), Some(100));
        assert_eq!(gate([49, 51, 0]).percentile(50), Some(200));
        assert_eq!(gate([98, 0, 2]).percentile(99), None);
    }

    #[test]
    fn what_an_older_daemon_does_not_tell_has_no_value() {
        let status: Status = serde_json::from_str(r#"{"pid": 7, "news": [1]}"#).unwrap();
        assert_eq!(status, Status { pid: 7, ..Status::default() });
    }
}
