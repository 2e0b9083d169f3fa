//! The two ways in which the decisions get into the kernel.
//!
//! LSM programs run where the kernel's list of security modules has `bpf`. Programs that modify return values attach to
//! the functions that ask the modules (`security_file_open`), run before them, and deny in their place; the list does
//! not matter to them (`check_attach_modify_return`, kernel/bpf/verifier.c, 6.1 to 7.0). Both are the same programs,
//! compiled once: what the function gets is what the hook gets. Where it is not, the function has a program of its own.

use aya::programs::Program;

/// How the decisions get into the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// As LSM programs.
    Lsm,
    /// As programs that modify what `security_…` functions return.
    ModifyReturn,
}

/// How they are to get there: `daemon.backend`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wanted {
    /// As LSM programs where the kernel runs them.
    #[default]
    Auto,
    /// In this way only.
    Only(Backend),
}

/// Prefix of the functions, and of the programs that are for a function and no hook.
const FUNCTION: &str = "security_";

impl Backend {
    /// As `daemon.backend` and `lockc status` name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lsm => "lsm",
            Self::ModifyReturn => "modify_return",
        }
    }

    /// The kernel's function that a program attaches to, which has the name of its hook, or of the function itself;
    /// `None` if the program is not for this backend.
    pub fn function(self, program: &str) -> Option<String> {
        let is_own = program.starts_with(FUNCTION);
        match self {
            Self::Lsm => (!is_own).then(|| format!("bpf_lsm_{program}")),
            Self::ModifyReturn if is_own => Some(program.to_owned()),
            Self::ModifyReturn => match program {
                // The hook gets the protection that results, the function the one that was asked for.
                "mmap_file" => None,
                "bprm_check_security" => Some("security_bprm_check".to_owned()),
                "userns_create" => Some("security_create_user_ns".to_owned()),
                hook => Some(format!("{FUNCTION}{hook}")),
            },
        }
    }

    /// Whether aya loads and attaches a program of the object.
    pub(super) fn loads(self, name: &str, program: &Program) -> bool {
        match program {
            Program::Lsm(_) => self == Self::Lsm && self.function(name).is_some(),
            Program::FEntry(_) => self == Self::ModifyReturn || !name.starts_with(FUNCTION),
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_program_has_a_function_in_each_backend_or_another_has() {
        let functions = |program| {
            [Backend::Lsm, Backend::ModifyReturn]
                .map(|backend| backend.function(program).unwrap_or_default())
        };
        for (program, expected) in [
            ("file_open", ["bpf_lsm_file_open", "security_file_open"]),
            ("bprm_check_security", ["bpf_lsm_bprm_check_security", "security_bprm_check"]),
            ("userns_create", ["bpf_lsm_userns_create", "security_create_user_ns"]),
            ("mmap_file", ["bpf_lsm_mmap_file", ""]),
            ("security_mmap_file", ["", "security_mmap_file"]),
        ] {
            assert_eq!(functions(program), expected, "{program}");
        }
    }
}
