//! System calls that are told by their number, because no hook sees them.
//!
//! Each asks for `CAP_SYS_ADMIN`, and is refused there.

/// By which table a number is to be read: that of the architecture, or that of its 32-bit programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abi {
    /// `arch/x86/entry/syscalls/syscall_64.tbl`, 6.12.
    X86_64,
    /// `arch/x86/entry/syscalls/syscall_32.tbl`, 6.12.
    I386,
    /// include/uapi/asm-generic/unistd.h, 6.12.
    Arm64,
    /// arch/arm/tools/syscall.tbl, 6.12.
    Arm,
}

/// What is done to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// `setns(2)`.
    JoinNamespace,
    /// `swapon(2)`, `swapoff(2)`, `quotactl(2)`, `quotactl_fd(2)`: memory and disks of the machine.
    Machine,
    /// Any other.
    Other,
}

impl Call {
    /// The call with this number.
    #[inline]
    pub const fn of(abi: Abi, number: u32) -> Self {
        match (abi, number) {
            (Abi::X86_64, 308) | (Abi::Arm64, 268) | (Abi::I386, 346) | (Abi::Arm, 375) => {
                Self::JoinNamespace
            }
            // `quotactl_fd` is as new as to have one number everywhere.
            (_, 443)
            | (Abi::X86_64, 167 | 168 | 179)
            | (Abi::Arm64, 224 | 225 | 60)
            | (Abi::I386 | Abi::Arm, 87 | 115 | 131) => Self::Machine,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What may look like one of them to somebody who reads the wrong table.
    #[test]
    fn numbers_of_other_tables_are_other_calls() {
        for (abi, number) in [
            (Abi::X86_64, 87),  // unlink
            (Abi::X86_64, 115), // getgroups
            (Abi::X86_64, 131), // sigaltstack
            (Abi::X86_64, 268), // fchmodat
            (Abi::Arm64, 167),  // prctl
            (Abi::Arm64, 131),  // tgkill
            (Abi::I386, 308),   // pselect6
            (Abi::I386, 168),   // poll
            (Abi::Arm, 346),
        ] {
            assert_eq!(Call::of(abi, number), Call::Other, "{abi:?} {number}");
        }
    }

    #[test]
    fn known_calls() {
        assert_eq!(Call::of(Abi::X86_64, 308), Call::JoinNamespace);
        assert_eq!(Call::of(Abi::Arm64, 268), Call::JoinNamespace);
        assert_eq!(Call::of(Abi::X86_64, 168), Call::Machine);
        assert_eq!(Call::of(Abi::Arm64, 225), Call::Machine);
        assert_eq!(Call::of(Abi::I386, 131), Call::Machine);
        assert_eq!(Call::of(Abi::Arm, 443), Call::Machine);
    }
}
