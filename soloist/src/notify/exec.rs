//! By a command, which is run again until it ends with 0. One that is overtaken is killed: what it was about to say is not
//! so any more.

use std::time::Duration;

use super::Notice;
use crate::commands::{Call, Commands, How};

/// Runs it once.
pub async fn tell(commands: &Commands, line: &str, limit: Duration, notice: &Notice) -> Result<(), String> {
    let ended = commands.run(&Call { line: line.to_owned(), environment: environment(notice), limit }).await;
    match ended.how {
        How::Code(0) => Ok(()),
        _ => Err(format!("the command {ended}")),
    }
}

/// As a hook finds it; what does not apply is taken away.
fn environment(notice: &Notice) -> Vec<(&'static str, Option<String>)> {
    vec![
        ("SOLOIST_ROLE", Some(notice.role.to_owned())),
        ("SOLOIST_MEMBER", Some(notice.member.clone())),
        ("SOLOIST_GROUP", Some(notice.group.clone())),
        ("SOLOIST_FENCING_TOKEN", notice.fencing_token.map(|token| token.to_string())),
        ("SOLOIST_ACTIVATION", notice.activation.clone()),
        // A notice is about the member, whatever its slot.
        ("SOLOIST_SLOT", None),
    ]
}
