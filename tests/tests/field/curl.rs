//! curl over HTTP/1.1 and HTTP/2, and the redirects by which releases are downloaded.

use policy_tests::names::pages::noise;

use super::{
    AGENT, OTHER,
    git::HOST,
    goods::{BYTES, Goods},
    ground::Field,
};

/// Where releases are.
const OBJECTS: &str = "objects.githubusercontent.com";
/// Bytes of one.
const LENGTH: usize = 2_000_000;

/// Adds a release, and one that is where no list allows.
pub fn stock(goods: &mut Goods) {
    let release = format!("{HOST}/team/tool/releases/download/v1.0.0/tool.tar.gz");
    goods.redirect(&release, &format!("https://{OBJECTS}/release/1"));
    goods.redirect(&format!("{HOST}/elsewhere"), &format!("https://{OTHER}/release/1"));
    let body: Vec<u8> = noise(LENGTH).flatten().collect();
    goods.add(&format!("{OBJECTS}/release/1"), BYTES, body.clone());
    goods.add(&format!("{OTHER}/release/1"), BYTES, body);
}

#[test]
fn downloads_a_release_by_its_redirect() {
    let field = Field::shared();
    let sandbox = field.sandbox(AGENT, &[HOST, OBJECTS]);
    let url = format!("https://{HOST}/team/tool/releases/download/v1.0.0/tool.tar.gz");
    for (version, flag) in [("1.1", "--http1.1"), ("2", "--http2")] {
        let fetched = sandbox.curl(&url).with(&["--location", flag]).run();
        assert_eq!((fetched.status, &*fetched.version), (200, version), "{}", fetched.stderr);
        assert_eq!(fetched.body.len(), LENGTH);
    }
}

#[test]
fn a_redirect_to_a_refused_name_is_refused() {
    let field = Field::shared();
    let sandbox = field.sandbox(AGENT, &[HOST, OTHER]);
    let url = format!("https://{HOST}/elsewhere");
    for flag in ["--http1.1", "--http2"] {
        let fetched = sandbox.curl(&url).with(&["--location", flag]).run();
        assert_eq!(fetched.exit, policy_tests::names::curl::HANDSHAKE, "{}", fetched.stderr);
        let complaint = fetched.stderr.to_lowercase();
        assert!(complaint.contains("access denied"), "{complaint}");
    }
    sandbox.was_denied(OTHER, "name_not_allowed");
}
