//! The lockc binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    lockc::commands::main()
}
