//! Go, with the proxy of modules that it has by default.

use anyhow::Result;

use super::{
    AGENT, OTHER,
    client::{Client, Ran},
    goods::{BYTES, Goods, JSON},
    ground::Field,
};

/// The proxy of modules.
const PROXY: &str = "proxy.golang.org";

/// Adds the module to the proxy.
pub fn stock(goods: &mut Goods) -> Result<()> {
    let version = format!("{PROXY}/example.com/tiny/@v/v1.0.0");
    let info = r#"{"Version":"v1.0.0","Time":"2026-01-01T00:00:00Z"}"#;
    goods.add(&format!("{version}.info"), JSON, info);
    goods.add(&format!("{version}.mod"), BYTES, "module example.com/tiny\n");
    goods.add(&format!("{version}.zip"), BYTES, goods.archive("module")?);
    Ok(())
}

#[track_caller]
fn get(go: &Client<'_>) -> Ran {
    go.write("go.mod", "module field\n");
    let (ca, path, cache) = (go.ca(), go.path("go"), go.path("cache"));
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
    let field = Field::shared();
    let sandbox = field.sandbox(AGENT, &[PROXY]);
    let go = Client::new(&sandbox);
    get(&go).succeeded();
    assert_eq!(go.read("go/pkg/mod/example.com/tiny@v1.0.0/tiny.go"), "package tiny\n");
}

#[test]
fn says_that_a_name_is_refused() {
    let field = Field::shared();
    let sandbox = field.sandbox(AGENT, &[PROXY]);
    sandbox.may_only_reach(&[OTHER]);
    get(&Client::new(&sandbox)).failed_with_denial();
}
