//! Signals become orders.

use std::future::Future;

use nix::libc;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::elector::Order;

/// Handles signals from now on; the task ends with the elector.
///
/// # Errors
/// A handler cannot be installed.
pub fn listen(
    orders: mpsc::Sender<Order>,
) -> std::io::Result<impl Future<Output = anyhow::Result<()>> + Send + 'static> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut user1 = signal(SignalKind::user_defined1())?;
    let mut user2 = signal(SignalKind::user_defined2())?;
    let mut window = signal(SignalKind::window_change())?;
    let ignored = ignore_terminal_stops()?;
    Ok(async move {
        let _ignored = ignored;
        loop {
            let order = tokio::select! {
                _ = terminate.recv() => Order::Leave,
                _ = interrupt.recv() => Order::Leave,
                _ = hangup.recv() => Order::Hangup,
                _ = user1.recv() => Order::Signal(libc::SIGUSR1),
                _ = user2.recv() => Order::Signal(libc::SIGUSR2),
                _ = window.recv() => Order::Signal(libc::SIGWINCH),
            };
            if orders.send(order).await.is_err() {
                return Ok(());
            }
        }
    })
}

/// A stopped elector would cost the role, so the terminal cannot stop it: a handler that does nothing.
fn ignore_terminal_stops() -> std::io::Result<[Signal; 3]> {
    let handle = |number| signal(SignalKind::from_raw(number));
    Ok([handle(libc::SIGTSTP)?, handle(libc::SIGTTIN)?, handle(libc::SIGTTOU)?])
}
