//! What shows that enforcement never pauses: a container that tries all the while, and pins that look like those of
//! another layout.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use super::{
    bundle::LEVEL,
    container::{Container, Runtime},
    context::Context,
    daemon::PINS,
    fixture::SERVICE_ACCOUNT,
    process::wait_for,
};

/// Longest time until it has tried often enough, and until it says how often.
const PATIENCE: Duration = Duration::from_mins(1);

/// A container that tries all the while to read what is denied to it, and counts how often it could and could not.
#[derive(Debug)]
pub(crate) struct Loop {
    container: Container,
    shared: PathBuf,
}

impl Loop {
    /// Starts one with this policy, and waits until it has tried a hundred times. It rests
    /// for `pause` between two attempts.
    pub(crate) fn start(
        context: &Context,
        runtime: &Runtime,
        level: &str,
        pause: Duration,
    ) -> Result<Self> {
        let id = context.id("loop");
        let shared = context.scratch().join("shared").join(&id);
        fs::create_dir_all(&shared)?;
        let (token, pause) = (format!("{SERVICE_ACCOUNT}/token"), pause.as_micros().to_string());
        let args = ["/bin/probe", "retry", "/shared", &token, &pause];
        let mut bundle = context.token_bundle(&id, &args);
        bundle.bind(&shared, "/shared").annotation(LEVEL, level);
        let container = Container::new(runtime, &id, &bundle)?;
        container.start()?;
        wait_for("the loop", PATIENCE, || Ok(shared.join("ready").exists().then_some(())))?;
        Ok(Self { container, shared })
    }

    /// How often it could read, and how often it could not.
    pub(crate) fn end(self) -> Result<(u64, u64)> {
        fs::write(self.shared.join("stop"), "")?;
        let counts = wait_for("the counts", PATIENCE, || {
            Ok(fs::read_to_string(self.shared.join("counts")).ok())
        })?;
        drop(self.container);
        let mut numbers = counts.split_whitespace().map(str::parse::<u64>);
        match (numbers.next(), numbers.next(), numbers.next()) {
            (Some(Ok(read)), Some(Ok(refused)), None) => Ok((read, refused)),
            _ => bail!("the loop said {counts:?}"),
        }
    }
}

/// Makes the pins those of a layout that no daemon has.
pub(crate) fn rename_layout() -> Result<()> {
    const OTHER: &str = "v4000000000";
    let pins = Path::new(PINS);
    let current = fs::read_dir(pins)?.flatten().next().context("no pins")?;
    fs::rename(current.path(), pins.join(OTHER)).context("rename the pins")
}
