//! `lockc check`: is the configuration usable, and can it be enforced here?

use std::{fmt::Write as _, path::PathBuf, process::ExitCode};

use serde_json::{Value, json};

use crate::{
    bpf::host::{self, Finding},
    config::{self, Checked, Config, ConfigError, Place, expand},
};

/// Checks the configuration, all of it at once.
///
/// Prints every mistake and every warning with its file, line and column. Exit codes: 0 if lockc
/// can run with this configuration (there may be warnings), 1 if not, 2 if the command line is
/// wrong.
#[derive(Debug, clap::Args)]
pub(super) struct Check {
    /// The configuration; *.toml in lockc.d beside it are read as well
    #[arg(long, value_name = "FILE", default_value = config::PATH)]
    config: PathBuf,
    /// How the outcome is printed
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Check this machine too: kernel, BTF, security modules, boot parameter, runtimes
    #[arg(long)]
    host: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For people
    #[default]
    Text,
    /// One JSON object
    Json,
}

/// Everything that was found out.
#[derive(Debug)]
struct Outcome {
    path: PathBuf,
    checked: Result<Checked, ConfigError>,
    host: Option<Vec<Finding>>,
}

impl Check {
    #[expect(clippy::print_stdout, reason = "it prints what it found")]
    pub(super) fn execute(self) -> ExitCode {
        let mut checked = Checked::read(&self.config);
        if let Ok(checked) = &mut checked {
            checked.check_runtimes(|glob| expand(&[glob]).files.is_empty());
        }
        let host = self.host.then(|| host_findings(checked.as_ref().ok()));
        let outcome = Outcome { path: self.config, checked, host };
        match self.format {
            Format::Text => print!("{}", outcome.text()),
            Format::Json => println!("{:#}", outcome.json()),
        }
        if outcome.is_usable() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// What the machine has; without a configuration the built-in runtimes are looked for.
fn host_findings(checked: Option<&Checked>) -> Vec<Finding> {
    let mut findings = host::examine();
    let built_in = Config::default();
    let config = checked.and_then(|checked| checked.config.as_ref()).unwrap_or(&built_in);
    let mut found = false;
    for runtime in &config.runtimes {
        for file in expand(&runtime.paths).files {
            found = true;
            let what = format!("runtime {}", runtime.name);
            findings.push(Finding { what, found: file.display().to_string(), remedy: None });
        }
    }
    if !found {
        findings.push(Finding {
            what: "runtimes".to_owned(),
            found: "none".to_owned(),
            remedy: Some("name their files in [[runtime]], or install an engine".to_owned()),
        });
    }
    findings
}

impl Outcome {
    fn is_usable(&self) -> bool {
        let config = self.checked.as_ref().is_ok_and(|checked| !checked.report.is_fatal());
        let host = self.host.iter().flatten().all(|finding| finding.remedy.is_none());
        config && host
    }

    fn text(&self) -> String {
        let mut out = String::new();
        match &self.checked {
            Err(error) => {
                let _ = writeln!(out, "error: {}", chain(error));
            }
            Ok(checked) => {
                if !checked.report.is_empty() {
                    let _ = writeln!(out, "{}", checked.report);
                }
                if let Some(config) = checked.config.as_ref().filter(|_| !checked.report.is_fatal())
                {
                    let _ = writeln!(out, "{}: {}", self.path.display(), summary(config));
                }
            }
        }
        for Finding { what, found, remedy } in self.host.iter().flatten() {
            let _ = match remedy {
                None => writeln!(out, "{what}: {found}"),
                Some(remedy) => writeln!(out, "error: {what}: {found}\n  help: {remedy}"),
            };
        }
        out
    }

    fn json(&self) -> Value {
        let (problems, error) = match &self.checked {
            Ok(checked) => (checked.report.places().iter().map(place).collect(), Value::Null),
            Err(error) => (Vec::new(), Value::from(chain(error))),
        };
        let host = self.host.as_ref().map(|findings| {
            let finding = |it: &Finding| {
                let Finding { what, found, remedy } = it;
                json!({ "what": what, "found": found, "ok": remedy.is_none(), "help": remedy })
            };
            findings.iter().map(finding).collect::<Vec<_>>()
        });
        json!({
            "usable": self.is_usable(),
            "error": error,
            "problems": problems,
            "host": host,
        })
    }
}

fn chain(error: &ConfigError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn summary(config: &Config) -> String {
    let own = config.policies.len().saturating_sub(crate::policy::Level::ALL.len());
    format!(
        "usable: default policy {} ({}), {} rules, {own} own policies, {} runtimes",
        config.default.policy,
        config.default_mode(),
        config.rules.len(),
        config.runtimes.len()
    )
}

fn place(place: &Place) -> Value {
    let Place { problem, path, line, column, width, also, .. } = place;
    json!({
        "file": path,
        "line": line,
        "column": column,
        "width": width,
        "severity": problem.severity.name(),
        "message": problem.message,
        "help": problem.help,
        "also": also,
    })
}
