//! Kernels that can skip a program.
//!
//! Until 6.1 a processor runs each LSM program once at a time: a task that comes to a hook while another
//! one was preempted in it passes unchecked (`prog->active` in `__bpf_prog_enter`, `kernel/bpf/trampoline.c`,
//! 6.1), and task storage answers "no value" while it is in use on the processor (`bpf_task_storage_trylock`,
//! `kernel/bpf/bpf_task_storage.c`, 6.1). 6.2 took both away from LSM programs. Before it, only a kernel that
//! does not preempt itself enforces everything.
//!
//! Of programs that modify return values the same is true on every kernel (`bpf_prog_check_recur`,
//! `include/linux/bpf_verifier.h`, 6.1 to 7.0).

use std::fs;

/// First kernel whose hooks cannot be skipped.
const MENDED: (u32, u32) = (6, 2);
/// Where a kernel whose model can be chosen says which one it has, with `(…)` around it.
const MODEL: &str = "/sys/kernel/debug/sched/preempt";
/// What to do about it.
pub(super) const REMEDY: &str = "use a kernel from 6.2 on, or add preempt=voluntary to its boot parameters \
     (where it is built with CONFIG_PREEMPT_DYNAMIC)";

/// How the kernel's own code gives way to other tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Model {
    /// At chosen places: `none` or `voluntary`.
    Voluntary,
    /// Almost everywhere: `full`, `lazy` or real-time.
    Full,
    /// Nothing says it.
    Unknown,
}

/// What may tell about the model; empty where it is not to be had.
#[derive(Debug, Default)]
struct Signs<'a> {
    /// `uname -v`.
    version: &'a str,
    /// Contents of [`MODEL`].
    chosen: &'a str,
    /// `/proc/cmdline`.
    command_line: &'a str,
    /// `/boot/config-RELEASE`.
    config: &'a str,
}

impl Signs<'_> {
    fn model(&self) -> Model {
        let has = |word| self.version.split_ascii_whitespace().any(|it| it == word);
        if has("PREEMPT_RT") || has("PREEMPT") {
            return Model::Full;
        }
        if !has("PREEMPT_DYNAMIC") {
            return Model::Voluntary;
        }
        let chosen = self.chosen.split_once('(').and_then(|(_, rest)| rest.split_once(')'));
        if let Some((model, _)) = chosen {
            return named(model);
        }
        let words = self.command_line.split_ascii_whitespace();
        // The kernel takes the last one that it knows, and ignores others.
        let mut asked = words.filter_map(|word| word.strip_prefix("preempt=")).map(named);
        if let Some(model) = asked.rfind(|model| *model != Model::Unknown) {
            return model;
        }
        let built = |option: &str| self.config.lines().any(|line| line == option);
        if built("CONFIG_PREEMPT=y") {
            Model::Full
        } else if built("CONFIG_PREEMPT_VOLUNTARY=y") || built("CONFIG_PREEMPT_NONE=y") {
            Model::Voluntary
        } else {
            Model::Unknown
        }
    }
}

fn named(model: &str) -> Model {
    match model {
        "none" | "voluntary" => Model::Voluntary,
        "full" | "lazy" => Model::Full,
        _ => Model::Unknown,
    }
}

/// Whether a kernel of this release can skip hooks, if its model lets it.
pub(super) fn can_skip(release: (u32, u32)) -> bool {
    release < MENDED
}

/// What programs that modify return values cannot enforce on a kernel of this model.
pub(super) fn gap(model: Model) -> Option<String> {
    let how = match model {
        Model::Voluntary => return None,
        Model::Full => "is fully preemptible",
        Model::Unknown => "does not tell whether it is fully preemptible",
    };
    Some(format!(
        "this kernel {how}: a container that tries often enough gets past any check, when one of its tasks is \
         preempted in the check and another comes to it on the same processor"
    ))
}

/// The model of the running kernel, whose full release is `release`.
pub(super) fn model(release: &str) -> Model {
    let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
    Signs {
        version: &text("/proc/sys/kernel/version"),
        chosen: &text(MODEL),
        command_line: &text("/proc/cmdline"),
        config: &text(&format!("/boot/config-{release}")),
    }
    .model()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DYNAMIC: &str = "#1 SMP PREEMPT_DYNAMIC Debian 6.1.148-1 (2025-08-26)";

    #[test]
    fn the_model_is_taken_from_what_is_surest() {
        let debian =
            "CONFIG_PREEMPT_BUILD=y\nCONFIG_PREEMPT_VOLUNTARY=y\n# CONFIG_PREEMPT is not set\n";
        for (version, chosen, command_line, config, expected) in [
            ("#1 SMP Debian 6.1", "", "", "", Model::Voluntary),
            ("#1 SMP PREEMPT Debian 6.1", "", "preempt=voluntary", debian, Model::Full),
            ("#1 SMP PREEMPT_RT Debian 6.1", "", "preempt=none", debian, Model::Full),
            (DYNAMIC, "none (voluntary) full ", "preempt=full", "", Model::Voluntary),
            (DYNAMIC, "none voluntary (full) ", "preempt=none", debian, Model::Full),
            (DYNAMIC, "", "quiet preempt=none", "CONFIG_PREEMPT=y", Model::Voluntary),
            (DYNAMIC, "", "preempt=none preempt=full preempt=x", debian, Model::Full),
            (DYNAMIC, "", "quiet", debian, Model::Voluntary),
            (DYNAMIC, "", "", "CONFIG_PREEMPT=y\n", Model::Full),
            (DYNAMIC, "", "", "", Model::Unknown),
            (DYNAMIC, "none (odd", "preempt=odd", "", Model::Unknown),
        ] {
            let signs = Signs { version, chosen, command_line, config };
            assert_eq!(signs.model(), expected, "{signs:?}");
        }
    }

    #[test]
    fn from_6_2_on_the_model_does_not_matter() {
        assert!(can_skip((6, 1)));
        assert!(!can_skip((6, 2)) && !can_skip((7, 0)));
    }
}
