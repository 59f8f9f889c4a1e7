//! By POST. Whoever answers with 2xx has understood; everybody else is told again.

use std::path::Path;

use hyper::{Method, Request, header};

use super::Notice;
use crate::ask::ask;
use crate::secret;
use crate::settings::target::Target;

/// Tells once.
pub async fn tell(target: &Target, token_file: Option<&Path>, notice: &Notice) -> Result<(), String> {
    let mut request = Request::builder().method(Method::POST).header(header::CONTENT_TYPE, "application/json");
    if let Some(file) = token_file {
        let token = secret::read(file).map_err(|error| format!("failed to read {}: {error}", file.display()))?;
        request = request.header(header::AUTHORIZATION, [b"Bearer ", &*token].concat());
    }
    ask(target, request, notice.text()?).await
}
