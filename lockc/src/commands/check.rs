//! `lockc check`: is the configuration usable, and can it be enforced here?

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Result;
use serde_json::{Value, json};

use super::Format;
use crate::{
    bpf::host::{self, Finding},
    config::{self, Checked, Config, ConfigError, Exposed, Place, expand},
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
    /// Check this machine too: user, PID namespace, kernel, BTF, security modules, boot parameter,
    /// runtimes, and who can write the configuration
    #[arg(long)]
    host: bool,
}

/// Everything that was found out.
#[derive(Debug)]
struct Outcome {
    path: PathBuf,
    checked: Result<Checked, ConfigError>,
    host: Option<Vec<Finding>>,
}

impl Check {
    pub(super) fn execute(self) -> Result<ExitCode> {
        let mut checked = Checked::read(&self.config);
        if let Ok(checked) = &mut checked {
            checked.check_runtimes(|glob| expand(&[glob]).files.is_empty());
        }
        let host = self.host.then(|| {
            let mut findings = host_findings(checked.as_ref().ok());
            findings.extend(writers(&self.config));
            findings
        });
        let outcome = Outcome { path: self.config, checked, host };
        super::print(&match self.format {
            Format::Text => outcome.text(),
            Format::Json => format!("{:#}\n", outcome.json()),
        })?;
        Ok(if outcome.is_usable() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// What the machine has; without a configuration the built-in runtimes are looked for.
fn host_findings(checked: Option<&Checked>) -> Vec<Finding> {
    let built_in = Config::default();
    let config = checked.and_then(|checked| checked.config.as_ref()).unwrap_or(&built_in);
    let mut findings = host::examine(config.daemon.backend, config.daemon.require_full);
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

/// Who can write the configuration at `path`.
fn writers(path: &Path) -> Vec<Finding> {
    let what = || "configuration".to_owned();
    let files = config::files(path);
    let exposed = config::exposed(files.iter().map(PathBuf::as_path));
    if exposed.is_empty() {
        let found = "nobody but root can write it".to_owned();
        return vec![Finding { what: what(), found, remedy: None }];
    }
    let finding = |(path, Exposed { owner, mode }): (PathBuf, Exposed)| {
        let path = path.display();
        let found = format!("{path} can be written by others (owner {owner}, mode {mode:04o})");
        let remedy = format!("chown root {path}, and chmod go-w {path}");
        Finding { what: what(), found, remedy: Some(remedy) }
    };
    exposed.into_iter().map(finding).collect()
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

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{PermissionsExt as _, chown},
    };

    use super::*;
    use crate::config::Source;

    fn outcome(text: &str, host: Option<Vec<Finding>>) -> Outcome {
        let source = Source { path: "lockc.toml".into(), text: text.to_owned() };
        Outcome { path: "lockc.toml".into(), checked: Ok(Checked::new(vec![source])), host }
    }

    fn finding(remedy: Option<&str>) -> Finding {
        let remedy = remedy.map(str::to_owned);
        Finding { what: "kernel".into(), found: "5.10".into(), remedy }
    }

    const WARNING: &str =
        "[[rule]]\nname = \"r\"\npolicy = \"baseline\"\nmatch.runtime = \"rucn\"\n";

    #[test]
    fn warnings_leave_it_usable() {
        let fine = outcome("", None);
        assert!(fine.is_usable());
        assert_eq!(
            fine.text(),
            "lockc.toml: usable: default policy baseline (enforce), 0 rules, 0 own policies, 3 \
             runtimes\n"
        );
        let warned = outcome(WARNING, None);
        assert!(warned.is_usable());
        assert_eq!(
            warned.text(),
            "lockc.toml:4:17: warning: no [[runtime]] is named `rucn`\n  4 | match.runtime = \
             \"rucn\"\n    |                 ^^^^^^\n  help: did you mean `runc`?\nlockc.toml: \
             usable: default policy baseline (enforce), 1 rules, 0 own policies, 3 runtimes\n"
        );
        assert_eq!(
            warned.json(),
            json!({
                "usable": true,
                "error": null,
                "problems": [{
                    "file": "lockc.toml",
                    "line": 4,
                    "column": 17,
                    "width": 6,
                    "severity": "warning",
                    "message": "no [[runtime]] is named `rucn`",
                    "help": "did you mean `runc`?",
                    "also": null,
                }],
                "host": null,
            })
        );
    }

    #[test]
    fn mistakes_do_not() {
        for text in ["[daemon\n", "x = 1\n"] {
            let outcome = outcome(text, None);
            assert!(!outcome.is_usable(), "{text}");
            assert!(!outcome.text().contains("usable"), "{text}");
            assert_eq!(outcome.json()["usable"], json!(false), "{text}");
            assert_eq!(outcome.json()["problems"][0]["severity"], json!("error"), "{text}");
        }
        let path = PathBuf::from("/absent/lockc.toml");
        let missing = Outcome { checked: Checked::read(&path), path, host: None };
        assert!(!missing.is_usable());
        assert!(missing.text().starts_with("error: /absent/lockc.toml does not exist"));
    }

    #[test]
    fn a_machine_that_lacks_something_is_not_usable() {
        let fine = outcome("", Some(vec![finding(None)]));
        assert!(fine.is_usable() && fine.text().ends_with("kernel: 5.10\n"));
        let old = outcome("", Some(vec![finding(Some("use a newer one"))]));
        assert!(!old.is_usable());
        assert!(old.text().ends_with("error: kernel: 5.10\n  help: use a newer one\n"));
        let host = &old.json()["host"][0];
        assert_eq!((&host["ok"], &host["help"]), (&json!(false), &json!("use a newer one")));
    }

    #[test]
    fn whoever_else_can_write_the_configuration_is_found() {
        // Needs root.
        let dir = tempfile::Builder::new().prefix("lockc-test-").tempdir_in("/run").unwrap();
        let mode = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        let (main, drop_ins) = (dir.path().join("lockc.toml"), dir.path().join("lockc.d"));
        fs::create_dir(&drop_ins).unwrap();
        let text = || {
            let host = Some(writers(&main));
            Outcome { host, ..outcome("", None) }
                .text()
                .replace(&*dir.path().to_string_lossy(), "D")
        };
        for file in [main.clone(), drop_ins.join("10-site.toml")] {
            fs::write(&file, "").unwrap();
            mode(&file, 0o644);
        }
        mode(&drop_ins, 0o755);
        assert!(text().ends_with("\nconfiguration: nobody but root can write it\n"), "{}", text());
        mode(&drop_ins.join("10-site.toml"), 0o666);
        mode(&drop_ins, 0o775);
        chown(&main, Some(1000), None).unwrap();
        let expected = "\
            error: configuration: D/lockc.d can be written by others (owner 0, mode 0775)\n  \
            help: chown root D/lockc.d, and chmod go-w D/lockc.d\n\
            error: configuration: D/lockc.d/10-site.toml can be written by others (owner 0, mode 0666)\n  \
            help: chown root D/lockc.d/10-site.toml, and chmod go-w D/lockc.d/10-site.toml\n\
            error: configuration: D/lockc.toml can be written by others (owner 1000, mode 0644)\n  \
            help: chown root D/lockc.toml, and chmod go-w D/lockc.toml\n";
        assert!(text().ends_with(expected), "{}", text());
    }
}
