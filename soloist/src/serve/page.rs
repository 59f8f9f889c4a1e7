//! `GET /`: the page for people, from files that are part of the program. It asks nobody but this member for anything.

use axum::Router;
use axum::http::HeaderName;
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY};
use axum::routing::get;

use super::Site;

type File = (&'static str, &'static str, &'static str);

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

const MEMBER: &str = include_str!("ui/page.html");

/// Path, kind and content of each file that a page of any kind needs.
const FILES: [File; 4] = [
    ("/dashboard.css", "text/css; charset=utf-8", include_str!("ui/page.css")),
    ("/dashboard.js", SCRIPT, include_str!("ui/page.js")),
    ("/shared.js", SCRIPT, include_str!("ui/shared.js")),
    ("/dashboard.svg", "image/svg+xml", include_str!("ui/icon.svg")),
];

/// A controller has a page for its groups, and that of the member that it is beside it.
const OF_A_MEMBER: [File; 1] = [("/", HTML, MEMBER)];
const OF_A_CONTROLLER: [File; 3] = [
    ("/", HTML, include_str!("ui/groups.html")),
    ("/groups.js", SCRIPT, include_str!("ui/groups.js")),
    ("/member", HTML, MEMBER),
];

/// Nothing from elsewhere, nothing inline, no markup made from text, and in no frame of another page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

const OPENER: HeaderName = HeaderName::from_static("cross-origin-opener-policy");

/// A route for each file.
pub(super) fn routes(has_groups: bool) -> Router<std::sync::Arc<Site>> {
    let pages: &[File] = if has_groups { &OF_A_CONTROLLER } else { &OF_A_MEMBER };
    FILES.iter().chain(pages).copied().fold(Router::new(), |router, (path, kind, content)| {
        let headers = [
            (CONTENT_TYPE, kind),
            (CONTENT_SECURITY_POLICY, POLICY),
            (REFERRER_POLICY, "no-referrer"),
            (OPENER, "same-origin"),
        ];
        router.route(path, get(move || async move { (headers, content) }))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_is_small() {
        let bytes: usize = FILES.iter().chain(&OF_A_CONTROLLER).map(|(_, _, content)| content.len()).sum();
        assert!(bytes <= 60_000, "{bytes}");
    }

    #[test]
    fn page_names_no_other_place_and_has_nothing_inline() {
        for (path, _, content) in FILES.iter().chain(&OF_A_CONTROLLER) {
            let content = content.replace("http://www.w3.org/2000/svg", "");
            for word in ["http:", "https:", "url(", "@import", "innerHTML", "eval(", " style=", " onclick", "<style"] {
                assert!(!content.contains(word), "{word} in {path}");
            }
            assert!(content.is_ascii(), "{path}");
        }
    }
}
