//! What the outcomes of attempts say of the programs.

use nix::errno::Errno;

use super::{
    SelfTestError,
    attempts::{Attempt, Outcome},
};

/// What came of one attempt: by the daemon itself, by a contained task that may, and by one that may not.
#[derive(Debug)]
pub(super) struct Trial<'a> {
    pub(super) attempt: &'a Attempt,
    pub(super) host: Outcome,
    pub(super) allowed: Outcome,
    pub(super) denied: Outcome,
}

/// Whether something other than lockc says no, or the kernel has no such call: then the program may not be asked.
pub(super) fn is_refused(host: Outcome) -> bool {
    match host {
        Outcome::Done => false,
        Outcome::NotTried | Outcome::Ended => true,
        Outcome::Failed(errno) => {
            matches!(errno, Errno::EPERM | Errno::EACCES | Errno::ENOSYS | Errno::EAFNOSUPPORT)
        }
    }
}

/// Whether the program denied what it should, and only that; `false` if that cannot be told here.
pub(super) fn judge(trial: &Trial<'_>) -> Result<bool, SelfTestError> {
    const DENIED: Outcome = Outcome::Failed(Errno::EPERM);
    let program = trial.attempt.program;
    if is_refused(trial.host)
        || trial.allowed == Outcome::NotTried
        || trial.denied == Outcome::NotTried
    {
        return Ok(false);
    }
    if trial.allowed == DENIED {
        return Err(SelfTestError::AllowFailed { program });
    }
    if trial.denied != DENIED {
        return Err(SelfTestError::DenyFailed { program, found: describe(trial.denied) });
    }
    Ok(true)
}

fn describe(outcome: Outcome) -> String {
    match outcome {
        Outcome::Done => "it succeeded".to_owned(),
        Outcome::Failed(errno) => format!("it failed with {errno}"),
        Outcome::NotTried | Outcome::Ended => "the process that tried it ended".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO: Outcome = Outcome::Failed(Errno::EPERM);
    const OTHER: Outcome = Outcome::Failed(Errno::ENODEV);

    fn trial(host: Outcome, allowed: Outcome, denied: Outcome) -> String {
        let attempt = Attempt { program: "sb_mount", is_denied: true, act: |_| Outcome::Done };
        match judge(&Trial { attempt: &attempt, host, allowed, denied }) {
            Ok(told) => told.to_string(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_program_denies_what_it_should() {
        assert_eq!(trial(OTHER, OTHER, NO), "true");
        assert_eq!(trial(Outcome::Done, Outcome::Done, NO), "true");
    }

    #[test]
    fn what_is_not_denied_is_an_error_that_names_the_program() {
        for (found, said) in
            [(Outcome::Done, "it succeeded"), (OTHER, "ENODEV"), (Outcome::Ended, "ended")]
        {
            let error = trial(OTHER, OTHER, found);
            assert!(error.contains("sb_mount") && error.contains(said), "{error}");
        }
    }

    #[test]
    fn what_is_denied_although_it_is_allowed_is_an_error() {
        let error = trial(OTHER, NO, NO);
        assert!(error.contains("sb_mount") && error.contains("allowed"), "{error}");
    }

    #[test]
    fn what_the_kernel_refuses_by_itself_tells_nothing() {
        for host in [NO, Outcome::Failed(Errno::ENOSYS), Outcome::NotTried, Outcome::Ended] {
            assert_eq!(trial(host, NO, NO), "false");
        }
    }
}
