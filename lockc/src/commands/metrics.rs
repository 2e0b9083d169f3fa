//! `lockc metrics`: figures for Prometheus.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::state::{AskError, Containers, Query, Status, ask, metrics};

/// Prints figures in the text format of `OpenMetrics`; docs/operations.md describes them.
///
/// Needs root, or membership of the group that `daemon.group` names. While the daemon does not run there is one figure:
/// `lockc_up 0`.
#[derive(Debug, clap::Args)]
pub(super) struct Metrics {
    /// A file that gets them at one go, for the textfile collector of `node_exporter`; its directory must be there
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl Metrics {
    pub(super) fn execute(self) -> Result<()> {
        let text = match ask::<Status>(Query::Status) {
            Ok(status) => {
                let containers: Containers = ask(Query::Containers)?;
                metrics::text(&status, &containers.containers)
            }
            Err(AskError::NotRunning) => metrics::down(),
            Err(error) => return Err(error.into()),
        };
        match self.output {
            None => super::print(&text)?,
            Some(path) => {
                replace(&path, &text)
                    .with_context(|| format!("cannot write {}", path.display()))?;
            }
        }
        Ok(())
    }
}

/// Whoever reads sees the old file or the new one. The directory may be another user's, who could put a link where the
/// new one is made: it is followed by nobody.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = fs::File::options().create_new(true).write(true).mode(0o644).open(&new)?;
    file.write_all(text.as_bytes())?;
    fs::rename(new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lockc.prom");
        for text in ["longer", "new"] {
            replace(&path, text).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        assert!(replace(&directory.path().join("absent/lockc.prom"), "").is_err());
    }

    #[test]
    fn a_link_in_the_directory_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let (path, other) = (directory.path().join("lockc.prom"), directory.path().join("other"));
        fs::write(&other, "theirs").unwrap();
        std::os::unix::fs::symlink(&other, directory.path().join("lockc.prom.new")).unwrap();
        replace(&path, "text").unwrap();
        assert_eq!(fs::read_to_string(&other).unwrap(), "theirs");
        assert_eq!(fs::read_to_string(&path).unwrap(), "text");
    }
}
