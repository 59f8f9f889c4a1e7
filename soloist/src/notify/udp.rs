//! By datagram, which may be lost or forged: a hint to ask who is active, and nothing more.

use std::time::Duration;

use tokio::net::{UdpSocket, lookup_host};
use tokio::time::sleep;

use super::Notice;

/// A notice is sent again after these, because nobody says whether it came. The first of them counts for whoever is
/// in a hurry.
const AGAIN_AFTER: [Duration; 2] = [Duration::from_millis(100), Duration::from_millis(900)];

/// Sends the notice three times, or `payload` once where a time of being active begins.
pub async fn tell(to: (&str, u16), payload: Option<&str>, notice: &Notice) -> Result<(), String> {
    match payload {
        Some(payload) if notice.is_promotion() => send(to, payload).await,
        Some(_) => Ok(()),
        None => {
            let text = notice.text()?;
            send(to, &text).await?;
            for pause in AGAIN_AFTER {
                sleep(pause).await;
                send(to, &text).await?;
            }
            Ok(())
        }
    }
}

async fn send(to: (&str, u16), text: &str) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("failed to send a datagram: {error}");
    let address = lookup_host(to).await.map_err(failed)?.next().ok_or("the name has no address")?;
    let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).await.map_err(failed)?;
    socket.send_to(text.as_bytes(), address).await.map_err(failed)?;
    Ok(())
}
