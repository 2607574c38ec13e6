//! curl over HTTP/1.1 and HTTP/2, with the redirects of release downloads.

use policy_testbed::named_internet::web_pages::random_blocks;

use super::{
    CLIENT_LIST, UNRELATED_NAME,
    field_testbed::FieldTestbed,
    git_client::GIT_HOST,
    registry_content::{MEDIA_BYTES, RegistryContent},
};

/// The host of the release files.
const OBJECTS_HOST: &str = "objects.githubusercontent.com";
/// The size of a release in bytes.
const RELEASE_BYTES: usize = 2_000_000;

/// Adds a release, and another one on a host that no list allows.
pub(crate) fn add_release(goods: &mut RegistryContent) {
    let release = format!("{GIT_HOST}/team/tool/releases/download/v1.0.0/tool.tar.gz");
    goods.add_redirect(&release, &format!("https://{OBJECTS_HOST}/release/1"));
    goods.add_redirect(
        &format!("{GIT_HOST}/elsewhere"),
        &format!("https://{UNRELATED_NAME}/release/1"),
    );
    let body: Vec<u8> = random_blocks(RELEASE_BYTES).flatten().collect();
    goods.add_page(&format!("{OBJECTS_HOST}/release/1"), MEDIA_BYTES, body.clone());
    goods.add_page(&format!("{UNRELATED_NAME}/release/1"), MEDIA_BYTES, body);
}

#[test]
fn downloads_a_release_by_its_redirect() {
    let field = FieldTestbed::shared();
    let sandbox = field.sandbox_with_list(CLIENT_LIST, &[GIT_HOST, OBJECTS_HOST]);
    let url = format!("https://{GIT_HOST}/team/tool/releases/download/v1.0.0/tool.tar.gz");
    for (version, flag) in [("1.1", "--http1.1"), ("2", "--http2")] {
        let fetched = sandbox.curl(&url).with_arguments(&["--location", flag]).run();
        assert_eq!((fetched.status, &*fetched.version), (200, version), "{}", fetched.stderr);
        assert_eq!(fetched.body.len(), RELEASE_BYTES);
    }
}

#[test]
fn a_redirect_to_a_refused_name_is_refused() {
    let field = FieldTestbed::shared();
    let sandbox = field.sandbox_with_list(CLIENT_LIST, &[GIT_HOST, UNRELATED_NAME]);
    let url = format!("https://{GIT_HOST}/elsewhere");
    for flag in ["--http1.1", "--http2"] {
        let fetched = sandbox.curl(&url).with_arguments(&["--location", flag]).run();
        assert_eq!(
            fetched.exit_code,
            policy_testbed::named_internet::curl::EXIT_TLS_HANDSHAKE,
            "{}",
            fetched.stderr
        );
        let complaint = fetched.stderr.to_lowercase();
        assert!(complaint.contains("access denied"), "{complaint}");
    }
    sandbox.assert_name_denied(UNRELATED_NAME, "name_not_allowed");
}
