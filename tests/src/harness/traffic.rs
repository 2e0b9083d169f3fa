//! Host processes that do what the containers may not, at the same time.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Result, anyhow, ensure};

use super::fixture::TOKEN;

/// A thread of this process, which is of the host, that keeps reading the token.
#[derive(Debug)]
pub(crate) struct Traffic {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<u64>>>,
}

impl Traffic {
    pub(crate) fn start(token: PathBuf) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut reads = 0;
            loop {
                let text = std::fs::read_to_string(&token)?;
                ensure!(text.trim_end() == TOKEN, "the host read {text:?}");
                reads += 1;
                if stopped.load(Ordering::Relaxed) {
                    return Ok(reads);
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        Self { stop, thread: Some(thread) }
    }

    /// Stops reading; fails when any read has failed.
    pub(crate) fn end(mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().ok_or_else(|| anyhow!("ended twice"))?;
        let reads = thread.join().map_err(|_| anyhow!("the reader panicked"))?;
        reads.map(drop).map_err(|error| error.context("a host process could not read the token"))
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
