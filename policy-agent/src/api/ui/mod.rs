//! `/ui`: a page that shows the sandboxes in a browser. It holds no data: it asks the API with the key
//! that its user enters. So the page itself needs no key, and what it shows does.

use axum::{
    Router,
    http::header::{
        CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY,
        X_CONTENT_TYPE_OPTIONS,
    },
    response::IntoResponse,
    routing::get,
};

/// The page may load its own files and ask this API, and nothing else. No other page may show it.
const CONTENT_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A file of the page.
struct PageFile {
    path: &'static str,
    content_type: &'static str,
    text: &'static str,
}

static FILES: [PageFile; 3] = [
    PageFile {
        path: "/ui",
        content_type: "text/html; charset=utf-8",
        text: include_str!("index.html"),
    },
    PageFile {
        path: "/ui/style.css",
        content_type: "text/css; charset=utf-8",
        text: include_str!("style.css"),
    },
    PageFile {
        path: "/ui/app.js",
        content_type: "text/javascript; charset=utf-8",
        text: include_str!("app.js"),
    },
];

/// Whether a path is one of the page's files.
pub(super) fn is_page_path(path: &str) -> bool {
    FILES.iter().any(|file| file.path == path)
}

/// The routes of the page.
pub(super) fn routes() -> Router {
    FILES
        .iter()
        .fold(Router::new(), |router, file| router.route(file.path, get(move || serve(file))))
}

async fn serve(file: &'static PageFile) -> impl IntoResponse {
    let headers = [
        (CONTENT_TYPE, file.content_type),
        (CONTENT_SECURITY_POLICY, CONTENT_POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-cache"),
    ];
    (headers, file.text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_asks_for_nothing_outside() {
        for file in &FILES {
            // A namespace is no request.
            let text = file.text.replace("http://www.w3.org/2000/svg", "");
            for outside in ["http://", "https://", "//cdn", "@import", "url("] {
                assert!(!text.contains(outside), "{}: {outside}", file.path);
            }
        }
    }

    #[test]
    fn the_page_has_no_script_or_style_of_its_own_and_never_parses_text_as_html() {
        let [page, _, script] = &FILES;
        for inline in ["<style", "style=", "onclick", "onload", "javascript:"] {
            assert!(!page.text.contains(inline), "{inline}");
        }
        assert_eq!(page.text.matches("<script").count(), 1);
        for unsafe_call in
            ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("]
        {
            assert!(!script.text.contains(unsafe_call), "{unsafe_call}");
        }
    }
}
