//! `fragile`: crashes soon after the file /tmp/killme appears, as the critical container in examples/controller does.
#![forbid(unsafe_code)]

use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

/// Whoever wants it to crash makes this.
const FILE: &str = "/tmp/killme";

/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);

fn main() {
    println!("looking for {FILE}");
    while !Path::new(FILE).exists() {
        sleep(LOOK);
    }
    println!("found {FILE}");
    // Also the first process of a container, which no signal of its own ends, crashes by this.
    std::process::abort();
}
