//! One binary: under the name `soloist-guard` it is the guard.

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::env::args_os().next().is_some_and(|name| name == soloist::workload::guard::NAME) {
        return soloist::workload::guard::main();
    }
    ExitCode::SUCCESS
}
