//! `lockc status`: what is in force.

use std::{fmt::Write as _, fs, io::ErrorKind, path::Path, process::ExitCode};

use anyhow::Result;

use super::{Format, screen, time};
use crate::{
    bpf::pin,
    explain::plain,
    state::{self, AskError, Gate, Query, ask},
};

/// Shows whether the daemon runs, what it enforces and has done, and whether the configuration on disk is in force.
///
/// Needs root, or membership of the group that `daemon.group` names. Exit codes: 0 it runs and the configuration is in
/// force, 1 it does not run or cannot be asked, 3 the configuration on disk is not in force.
#[derive(Debug, clap::Args)]
pub(super) struct Status {
    /// How it is printed; JSON is described in docs/operations.md
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl Status {
    pub(super) fn execute(self) -> Result<ExitCode> {
        let status = match ask::<state::Status>(Query::Status) {
            Ok(status) => status,
            Err(AskError::NotRunning) => {
                let said = format!("not running; {}\n", left(Path::new(pin::ROOT)));
                super::print(&screen::fold(&said, screen::width()))?;
                return Ok(ExitCode::FAILURE);
            }
            Err(error) => return Err(error.into()),
        };
        match self.format {
            Format::Text => super::show(&screen::fold(&text(&status), screen::width()))?,
            Format::Json => super::print(&super::json(&status)?)?,
        }
        Ok(if status.stale.is_some() { ExitCode::from(3) } else { ExitCode::SUCCESS })
    }
}

fn text(status: &state::Status) -> String {
    let state::Status { version, kernel, pid, since, counters, gate, .. } = status;
    let config = plain(&status.config.display().to_string());
    let mut text = String::new();
    let mut line = |what: &str, value: &str| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{what}: {value}");
    };
    line("running", &format!("pid {pid} since {}, version {version} on {kernel}", time(*since)));
    line("default policy", &format!("{} ({})", status.default_policy, status.default_mode));
    line("rules", &status.rules.to_string());
    line("runtime files", &status.runtime_files.to_string());
    line("programs", &format!("{} attached", status.hooks.len()));
    line("backend", &format!("{}, as {}", status.backend, status.backend_reason));
    for gap in &status.gaps {
        line("NOT ENFORCED", gap);
    }
    line("containers", &status.containers.to_string());
    line("operations", &format!("{} denied, {} audited", counters.denied, counters.audited));
    line(
        "events",
        &format!(
            "{} not sent, {} lost, {} not kept",
            counters.suppressed, counters.lost, status.unkept
        ),
    );
    line("starts", &starts(gate, counters.unregistered));
    match status.errors.split_last() {
        None => line("errors", "none"),
        Some((last, before)) => {
            for error in before {
                line("error", &format!("{} {}", time(error.time), error.message));
            }
            line("last error", &format!("{} {}", time(last.time), last.message));
        }
    }
    match &status.stale {
        None => {
            let since = time(status.in_force_since);
            line("configuration", &format!("{config} is in force since {since}"));
        }
        Some(problem) => line("configuration", &format!("{config} is NOT in force:\n{problem}")),
    }
    text
}

fn starts(gate: &Gate, unregistered: u64) -> String {
    let Gate { allowed, denied, late, .. } = gate;
    let mut text = format!("{allowed} allowed, {denied} denied, {late} late");
    if let (Some(half), Some(most)) = (gate.percentile(50), gate.percentile(99)) {
        let _ = write!(text, "; half within {}, 99 % within {}", span(half), span(most));
    }
    if unregistered > 0 {
        let _ = write!(text, "; {unregistered} while no daemon ran");
    }
    text
}

fn span(micros: u64) -> String {
    match micros {
        0..1_000 => format!("{micros} us"),
        1_000..1_000_000 => format!("{} ms", micros / 1_000),
        _ => format!("{} s", micros / 1_000_000),
    }
}

/// What is in force without a daemon.
pub(super) fn left(pins: &Path) -> &'static str {
    // Others than root may not look.
    match fs::symlink_metadata(pins) {
        Err(error) if error.kind() == ErrorKind::NotFound => "nothing is enforced",
        _ => "what was enforced stays so until `lockc unload`",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{Bucket, Counters, Trouble};

    #[test]
    fn without_pins_nothing_is_enforced() {
        let directory = tempfile::tempdir().unwrap();
        assert!(left(directory.path()).contains("stays so"));
        assert_eq!(left(&directory.path().join("lockc")), "nothing is enforced");
    }

    #[test]
    fn all_there_is_to_say() {
        let mut status = state::Status {
            version: "1.2.3".into(),
            kernel: "6.12.1".into(),
            pid: 7,
            since: 1_700_000_000,
            config: "/etc/lockc/lockc.toml".into(),
            in_force_since: 1_700_000_060,
            default_policy: "baseline".into(),
            default_mode: "enforce".into(),
            rules: 2,
            runtime_files: 1,
            hooks: vec!["file_open".into()],
            backend: "lsm".into(),
            backend_reason: "it is configured".into(),
            containers: 3,
            counters: Counters {
                denied: 5,
                audited: 6,
                lost: 1,
                suppressed: 2,
                ..Counters::default()
            },
            gate: Gate {
                allowed: 4,
                buckets: vec![Bucket { up_to_us: Some(2_000), count: 4 }],
                ..Gate::default()
            },
            ..state::Status::default()
        };
        let wanted = "\
running: pid 7 since 2023-11-14T22:13:20Z, version 1.2.3 on 6.12.1
default policy: baseline (enforce)
rules: 2
runtime files: 1
programs: 1 attached
backend: lsm, as it is configured
containers: 3
operations: 5 denied, 6 audited
events: 2 not sent, 1 lost, 0 not kept
starts: 4 allowed, 0 denied, 0 late; half within 2 ms, 99 % within 2 ms
errors: none
configuration: /etc/lockc/lockc.toml is in force since 2023-11-14T22:14:20Z
";
        assert_eq!(text(&status), wanted);
        for width in [40, 80, 200] {
            let folded = screen::fold(wanted, Some(width));
            assert!(folded.lines().all(|line| line.chars().count() <= width), "{folded}");
            let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
            assert_eq!(words(&folded), words(wanted));
        }
        assert_eq!(screen::fold(wanted, Some(200)), wanted);
        status.gaps = vec!["everything".into()];
        assert!(text(&status).contains("\nNOT ENFORCED: everything\n"));
        status.stale = Some("x: error".into());
        status.errors = vec![Trouble { time: 0, message: "one".into() }; 2];
        let said = text(&status);
        assert!(said.ends_with("is NOT in force:\nx: error\n"), "{said}");
        assert!(said.contains("\nerror: 1970-01-01T00:00:00Z one\nlast error: "), "{said}");
    }
}
