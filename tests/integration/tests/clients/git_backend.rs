//! git's HTTP backend, a CGI program (RFC 3875).

use std::{path::PathBuf, process::Stdio};

use anyhow::{Context as _, Result};
use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, Request, Response, StatusCode},
};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::{io::AsyncWriteExt as _, process::Command};

use super::registry_server;

/// The request headers that the program receives, and their environment variables.
const CGI_HEADERS: [(&str, &str); 4] = [
    ("content-type", "CONTENT_TYPE"),
    ("content-length", "CONTENT_LENGTH"),
    ("content-encoding", "HTTP_CONTENT_ENCODING"),
    ("git-protocol", "GIT_PROTOCOL"),
];

/// Serves the git repositories of a directory.
pub(crate) async fn serve_git(repositories: PathBuf, request: Request<Incoming>) -> Response<Body> {
    match run_backend(repositories, request).await {
        Ok(response) => response,
        Err(error) => {
            registry_server::text_response(StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}"))
        }
    }
}

async fn run_backend(repositories: PathBuf, request: Request<Incoming>) -> Result<Response<Body>> {
    let mut git = Command::new("git");
    git.arg("http-backend").kill_on_drop(true);
    git.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    git.env("GIT_PROJECT_ROOT", repositories).env("GIT_HTTP_EXPORT_ALL", "1");
    git.env("REQUEST_METHOD", request.method().as_str()).env("PATH_INFO", request.uri().path());
    git.env("QUERY_STRING", request.uri().query().unwrap_or_default());
    for (name, variable) in CGI_HEADERS {
        if let Some(value) = request.headers().get(name).and_then(|value| value.to_str().ok()) {
            git.env(variable, value);
        }
    }
    let body = request.into_body().collect().await?.to_bytes();
    let mut child = git.spawn().context("running git http-backend")?;
    let mut stdin = child.stdin.take().context("its stdin")?;
    // git may not read the whole body, which is not an error.
    let _ = stdin.write_all(&body).await;
    drop(stdin);
    parse_cgi_response(&child.wait_with_output().await?.stdout)
}

/// Parses headers, an empty line, and the body.
fn parse_cgi_response(output: &[u8]) -> Result<Response<Body>> {
    let end = output.windows(4).position(|four| four == b"\r\n\r\n").context("no headers")?;
    let (head, body) = (std::str::from_utf8(&output[..end])?, output[end + 4..].to_vec());
    let mut response = Response::new(Body::from(body));
    for line in head.lines() {
        let (name, value) = line.split_once(": ").context("no header")?;
        if name == "Status" {
            *response.status_mut() = StatusCode::from_bytes(&value.as_bytes()[..3])?;
        } else {
            let name = HeaderName::from_bytes(name.as_bytes())?;
            response.headers_mut().insert(name, HeaderValue::from_str(value)?);
        }
    }
    Ok(response)
}
