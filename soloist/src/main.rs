//! The `soloist` binary: a member, its guard, a verb, or a program that it stands in for.

use std::process::ExitCode;

use soloist::dropin;
use soloist::workload::guard;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_default();
    if name == guard::NAME {
        return guard::main();
    }
    if let Some(door) = dropin::called_as(&name) {
        let code = door(arguments.collect());
        return ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX));
    }
    soloist::cli::main(std::env::args_os())
}
