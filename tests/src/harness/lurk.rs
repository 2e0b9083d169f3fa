//! Processes that wait in a container, and try to read the token when they are told to: see the probe's verb `lurk`.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use super::{context::Context, fixture::SERVICE_ACCOUNT, process::wait_for};

/// Who waits.
const LURKERS: [&str; 6] = ["chain", "child", "chroot", "first", "nested", "thread"];
/// Where they find what they are told.
const SHARED: &str = "/shared";
const PATIENCE: Duration = Duration::from_mins(1);

/// The way to tell them, and what they say.
#[derive(Debug)]
pub(crate) struct Lurk {
    shared: PathBuf,
    round: usize,
}

impl Lurk {
    /// For one container, which needs [`Lurk::directory`] as `/shared`, and `CAP_SYS_ADMIN`.
    pub(crate) fn new(context: &Context, id: &str) -> Result<Self> {
        let shared = context.scratch().join("shared").join(id);
        fs::create_dir_all(&shared)?;
        // In a container of a user, root is somebody else.
        fs::set_permissions(&shared, fs::Permissions::from_mode(0o777))?;
        Ok(Self { shared, round: 0 })
    }

    /// The directory that is shared, and where the container has it.
    pub(crate) fn directory(&self) -> (&Path, &'static str) {
        (&self.shared, SHARED)
    }

    /// The container's first program.
    pub(crate) fn words() -> [String; 4] {
        ["/bin/probe", "lurk", SHARED, &format!("{SERVICE_ACCOUNT}/token")].map(str::to_owned)
    }

    /// Waits until they wait.
    pub(crate) fn wait_for_start(&self) -> Result<()> {
        let ready = self.shared.join("ready");
        wait_for("the container", PATIENCE, || Ok(ready.exists().then_some(())))
    }

    /// Has all of them try, and gives what they say, in the order of their names.
    pub(crate) fn try_it(&mut self) -> Result<Vec<String>> {
        let path = |what: &str| self.shared.join(format!("{what}.{}", self.round));
        fs::write(path("go"), "")?;
        let said = wait_for("what they say", PATIENCE, || {
            let text = fs::read_to_string(path("out")).unwrap_or_default();
            let said: Vec<_> = text.lines().map(str::to_owned).collect();
            Ok((said.len() >= LURKERS.len()).then_some(said))
        });
        let mut said = said.with_context(|| {
            format!("{:?}", fs::read_to_string(path("out")).unwrap_or_default())
        })?;
        self.round += 1;
        said.sort();
        Ok(said)
    }

    /// Has all of them try, and checks that each says `what`.
    pub(crate) fn ensure_all(&mut self, what: &str) -> Result<()> {
        let said = self.try_it()?;
        let wanted: Vec<_> = LURKERS.iter().map(|who| format!("{who} {what}")).collect();
        ensure!(said == wanted, "they say {said:?}, not {wanted:?}");
        Ok(())
    }
}
