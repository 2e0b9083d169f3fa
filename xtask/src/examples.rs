//! `cargo xtask examples`: what is shipped beside the binary, checked by the tools that it is for. They are Debian's, in a
//! root directory of their own: nothing is installed on this machine, and no service of theirs runs on it.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result};

use crate::{
    apt::Suite,
    command::{self, check},
    debootstrap::{debootstrap, remove},
    kernel::Architecture,
    paths::{self, Digest},
    setup::{self, as_root},
};

/// Checks alerts, the Ansible role, collectors' configurations, units, cloud-init, Vagrant, the dashboard and every shell
/// script with the tools that they are for.
///
/// The tools are put into a directory of their own at first, which takes a few minutes.
#[derive(Debug, clap::Args)]
pub(crate) struct Examples {}

const SUITE: &str = "trixie";

const PACKAGES: [&str; 12] = [
    "ansible-lint",
    "cloud-init",
    "iproute2",
    "openssl",
    "prometheus",
    "python3",
    "rsyslog-gnutls",
    "shellcheck",
    "systemd",
    "systemd-journal-remote",
    "vagrant",
    "yamllint",
];

const EXCLUDED: [&str; 3] = ["/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*"];

/// Checks of which each is a shell's command line, in the workspace.
const CHECKS: [(&str, &str); 13] = [
    ("promtool check rules", "promtool check rules examples/prometheus/alerts.yml"),
    ("promtool test rules", "promtool test rules examples/prometheus/alerts.test.yml"),
    ("the dashboard is JSON", "python3 -m json.tool examples/grafana/lockc.json"),
    (
        "yamllint",
        "yamllint --strict -d '{extends: relaxed, rules: {line-length: disable}}' examples",
    ),
    (
        "ansible-playbook --syntax-check",
        "cd examples/ansible && ansible-playbook --syntax-check -i inventory.yml site.yml",
    ),
    (
        "ansible-lint",
        // It writes beside what it reads.
        "cp -RL examples/ansible /tmp && cd /tmp/ansible && \
         ansible-lint --offline --strict --profile production site.yml roles/lockc",
    ),
    ("rsyslog", "python3 xtask/src/examples/rsyslog.py examples/rsyslog"),
    (
        "systemd-journal-upload and -remote",
        "sh -eu xtask/src/examples/journal.sh /src/examples/systemd/journal",
    ),
    (
        "systemd-analyze verify",
        // Keys that it does not know, it only warns of.
        "systemd-analyze verify --man=no deb/*.service xtask/src/guest/*.service \
         examples/systemd/*.service examples/systemd/*.timer >/tmp/said 2>&1 && [ ! -s /tmp/said ] || \
         { cat /tmp/said; exit 1; }",
    ),
    ("cloud-init schema", "cloud-init schema --config-file examples/cloud-init/lockc.yaml"),
    ("ruby -c", "ruby -c vagrant/Vagrantfile"),
    (
        "vagrant validate",
        // It wants the directory that the machine gets.
        "mkdir -p /tmp/w/target/packages && cp -R vagrant /tmp/w && cd /tmp/w/vagrant && \
         vagrant validate --ignore-provider",
    ),
    // What cannot be had from Debian, and is checked no further.
    (
        "vector and fluent-bit are YAML",
        "python3 -c 'import sys, yaml; [yaml.safe_load(open(file)) for file in sys.argv[1:]]' \
         examples/vector/lockc.yaml examples/fluent-bit/lockc.yaml",
    ),
];

impl Examples {
    #[expect(clippy::unused_self, reason = "every verb is called the same way")]
    pub(crate) fn run(self) -> Result<ExitCode> {
        setup::packages()?;
        let tools = Tools::install()?;
        let mut ok = true;
        for (what, line) in CHECKS {
            ok &= check(what, tools.command("sh").args(["-c", line]));
        }
        ok &= check("shellcheck", tools.command("shellcheck").args(scripts()?));
        Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// The root directory with the tools.
#[derive(Debug)]
struct Tools {
    root: PathBuf,
    /// Held while they are used.
    _lock: fs::File,
}

impl Tools {
    fn install() -> Result<Self> {
        let lock = paths::lock("examples")?;
        let architecture = Architecture::host();
        let mut digest = Digest::new();
        digest.add(&Suite::open(SUITE, architecture.debian())?.release()?);
        for words in [&PACKAGES[..], &EXCLUDED] {
            digest.add(words.join(" ").as_bytes());
        }
        let dir = paths::vm("examples")?;
        let root = dir.join(digest.hex());
        if !root.exists() {
            remove(&dir)?;
            paths::create_dir(&dir)?;
            let fresh = dir.join("fresh");
            let options = EXCLUDED.map(|path| format!("--dpkgopt=path-exclude={path}"));
            let label = "installing tools (a minute or three)";
            debootstrap(&fresh, SUITE, architecture, &PACKAGES, &options, label)?;
            command::run(as_root("mv").args([&fresh, &root]), "installing tools")?;
        }
        Ok(Self { root, _lock: lock })
    }

    /// The program of the tools' directory, in the workspace, which it cannot write.
    fn command(&self, program: &str) -> Command {
        let mut command = as_root("unshare");
        command
            .args(["--mount", "--net", "--pid", "--fork", "--kill-child"])
            .args(["sh", "-eu", "xtask/src/examples/enter.sh"])
            .args([&self.root, paths::workspace()])
            .current_dir(paths::workspace())
            .arg(program);
        command
    }
}

/// Every shell script that git knows, or would: by name, or by its first line.
fn scripts() -> Result<Vec<String>> {
    let listed = command::output(
        Command::new("git")
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .current_dir(paths::workspace()),
        "listing files",
    )?;
    let mut scripts = Vec::new();
    for file in listed.split_terminator('\0') {
        if is_script(&paths::workspace().join(file))
            .with_context(|| format!("cannot read {file}"))?
        {
            scripts.push(file.to_owned());
        }
    }
    Ok(scripts)
}

fn is_script(path: &Path) -> std::io::Result<bool> {
    // Removed and not yet committed, or a link, whose file has a name of its own.
    if !path.is_file() || path.is_symlink() {
        return Ok(false);
    }
    if path.extension().is_some_and(|it| it == "sh") {
        return Ok(true);
    }
    let mut line = Vec::new();
    BufReader::new(fs::File::open(path)?).read_until(b'\n', &mut line)?;
    Ok(is_shells(&line))
}

/// Whether a first line says that a shell reads the rest: `#!/bin/sh -eu`, `#!/usr/bin/env bash`.
fn is_shells(line: &[u8]) -> bool {
    let Some(interpreter) = line.strip_prefix(b"#!") else { return false };
    let words = interpreter.split(|byte| byte.is_ascii_whitespace() || *byte == b'/');
    words.into_iter().any(|word| matches!(word, b"sh" | b"bash" | b"dash"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shells_scripts_are_known_by_their_first_line() {
        for line in ["#!/bin/sh\n", "#!/bin/sh -eu\n", "#!/usr/bin/env bash\n", "#! /bin/dash\n"] {
            assert!(is_shells(line.as_bytes()), "{line}");
        }
        for line in ["", "#!/usr/bin/python3\n", "#![no_std]\n", "//! sh\n", "sh\n"] {
            assert!(!is_shells(line.as_bytes()), "{line}");
        }
    }

    #[test]
    fn what_is_a_script_here() {
        let scripts = scripts().unwrap_or_default();
        for known in [".ci/run", "deb/postinst", "rpm/post.sh", "vagrant/provision.sh"] {
            assert!(scripts.iter().any(|it| it == known), "{known} is not among {scripts:?}");
        }
        assert!(!scripts.iter().any(|it| it == "lockc-ebpf/src/main.rs"), "{scripts:?}");
    }
}
