//! The `soloist` binary: a member, its guard, or a verb.

use std::process::ExitCode;

use soloist::workload::guard;

fn main() -> ExitCode {
    if std::env::args_os().next().is_some_and(|name| name == guard::NAME) {
        return guard::main();
    }
    soloist::cli::main(std::env::args_os())
}
