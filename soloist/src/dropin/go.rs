//! How programs written in Go say things.

/// The signal that ended a command.
pub fn signal(number: i32) -> String {
    let name = match number {
        1 => "hangup",
        2 => "interrupt",
        3 => "quit",
        6 => "aborted",
        9 => "killed",
        11 => "segmentation fault",
        15 => "terminated",
        _ => return format!("signal: signal {number}"),
    };
    format!("signal: {name}")
}
