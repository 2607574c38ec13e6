//! Go with its default module proxy.

use anyhow::Result;

use super::{
    CLIENT_LIST, UNRELATED_NAME,
    field_client::{ClientOutput, FieldClient},
    field_testbed::FieldTestbed,
    registry_content::{MEDIA_BYTES, MEDIA_JSON, RegistryContent},
};

/// The host of the module proxy.
pub(crate) const MODULE_PROXY_HOST: &str = "proxy.golang.org";

/// Adds the module to the proxy.
pub(crate) fn add_module(goods: &mut RegistryContent) -> Result<()> {
    let version = format!("{MODULE_PROXY_HOST}/example.com/tiny/@v/v1.0.0");
    let info = r#"{"Version":"v1.0.0","Time":"2026-01-01T00:00:00Z"}"#;
    goods.add_page(&format!("{version}.info"), MEDIA_JSON, info);
    goods.add_page(&format!("{version}.mod"), MEDIA_BYTES, "module example.com/tiny\n");
    goods.add_page(&format!("{version}.zip"), MEDIA_BYTES, goods.archive("module")?);
    Ok(())
}

/// Gets the module.
#[track_caller]
pub(crate) fn go_get(go: &FieldClient<'_>) -> ClientOutput {
    go.write_file("go.mod", "module field\n");
    let (ca, path, cache) = (go.ca_file(), go.home_path("go"), go.home_path("cache"));
    let variables = [
        ("SSL_CERT_FILE", ca.as_os_str()),
        ("GOPATH", path.as_os_str()),
        ("GOCACHE", cache.as_os_str()),
        ("GOENV", "off".as_ref()),
        ("GOFLAGS", "-mod=mod -modcacherw".as_ref()),
        ("GONOSUMDB", "*".as_ref()),
    ];
    go.run("go", &["get", "example.com/tiny@v1.0.0"], &variables)
}

#[test]
fn gets_a_module() {
    let field = FieldTestbed::shared();
    let sandbox = field.sandbox_with_list(CLIENT_LIST, &[MODULE_PROXY_HOST]);
    let go = FieldClient::new(&sandbox);
    go_get(&go).assert_succeeded();
    assert_eq!(go.read_file("go/pkg/mod/example.com/tiny@v1.0.0/tiny.go"), "package tiny\n");
}

#[test]
fn says_that_a_name_is_refused() {
    let field = FieldTestbed::shared();
    let sandbox = field.sandbox_with_list(CLIENT_LIST, &[MODULE_PROXY_HOST]);
    sandbox.allow_only(&[UNRELATED_NAME]);
    go_get(&FieldClient::new(&sandbox)).assert_failed_with_denial();
}
