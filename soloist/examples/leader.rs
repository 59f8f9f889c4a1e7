//! Leader election in a service: `cargo run --example leader -- ./app.lock`, in two terminals.

use std::time::Duration;

use soloist::candidate::{Candidate, Role, Roles};
use soloist::error::Failure;
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let lock = std::env::args().nth(1).unwrap_or("./app.lock".to_owned());
    let mut roles = Candidate::over(lock).lease(Duration::from_secs(4)).stand()?;
    let mut asked_to_end = signal(SignalKind::terminate())?;
    tokio::select! {
        ended = serve(&mut roles) => ended?,
        _ = asked_to_end.recv() => {}
    }
    Ok(roles.leave().await?)
}

async fn serve(roles: &mut Roles) -> Result<(), Failure> {
    while let Some(role) = roles.next().await {
        match role? {
            Role::Standby => println!("standing by"),
            Role::Leader(mut lead) => {
                println!("leading with token {}", lead.token());
                lead.over().await;
            }
        }
    }
    Ok(())
}
