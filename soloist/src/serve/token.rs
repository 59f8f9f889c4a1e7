//! The token of `--http-token-file`. Read anew each time, so that it can be replaced under a running member.

use std::path::Path;

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode};
use subtle::ConstantTimeEq;

use super::peer::Peer;
use super::problem::Problem;

/// Lets trusted processes of this host pass, and everybody who brings the token.
pub(super) fn check(file: Option<&Path>, peer: Peer, headers: &HeaderMap) -> Result<(), Problem> {
    if peer.is_trusted() {
        return Ok(());
    }
    let refuse = |sentence: &str| Problem::new(StatusCode::UNAUTHORIZED, sentence);
    let Some(file) = file else {
        return Err(refuse("requests need a token here, and without --http-token-file there is none"));
    };
    let expected = crate::secret::read(file).map_err(|error| {
        tracing::warn!("failed to read the token file {}: {error}", file.display());
        refuse("the token file cannot be read: nobody may make requests")
    })?;
    if expected.is_empty() {
        return Err(refuse("the token file is empty: nobody may make requests"));
    }
    let given = bearer(headers).ok_or_else(|| refuse("a request needs the header Authorization: Bearer TOKEN"))?;
    if bool::from(given.ct_eq(&expected)) { Ok(()) } else { Err(refuse("the token is wrong")) }
}

fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: Peer = Peer::Unknown;

    fn headers(value: &str) -> HeaderMap {
        [(AUTHORIZATION, value.parse().unwrap())].into_iter().collect()
    }

    #[test]
    fn only_the_token_of_the_file_passes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, " s3cret\n").unwrap();
        let check = |value: &str| check(Some(&path), PEER, &headers(value)).map_err(|problem| problem.sentence);
        assert_eq!(check("Bearer s3cret"), Ok(()));
        assert_eq!(check("bearer  s3cret"), Ok(()));
        for wrong in ["Bearer s3cre", "Bearer s3crets", "Bearer", "Bearer ", "Basic s3cret", "s3cret", ""] {
            assert!(check(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn file_that_holds_no_token_lets_nobody_pass() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let is_refused = || check(Some(&path), PEER, &headers("Bearer ")).is_err();
        assert!(is_refused(), "missing");
        std::fs::write(&path, " \n").unwrap();
        assert!(is_refused(), "empty");
        std::fs::write(&path, "x".repeat(5000)).unwrap();
        assert!(check(Some(&path), PEER, &headers(&format!("Bearer {}", "x".repeat(5000)))).is_err(), "too long");
        assert!(check(Some(folder.path()), PEER, &headers("Bearer x")).is_err(), "a folder");
        assert!(check(None, PEER, &headers("Bearer x")).unwrap_err().sentence.contains("--http-token-file"));
    }
}
