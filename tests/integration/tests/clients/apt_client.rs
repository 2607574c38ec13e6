//! apt over HTTP, Debian's default, with pipelined requests, and over HTTPS.

use policy_testbed::named_internet::web_pages::random_blocks;

use super::{
    CLIENT_LIST, UNRELATED_NAME,
    field_client::{ClientOutput, FieldClient},
    field_testbed::FieldTestbed,
    registry_content::{MEDIA_BYTES, RegistryContent, sha256_hex},
};

/// The host of the mirror.
const MIRROR_HOST: &str = "deb.debian.org";
/// The packages to download.
const PACKAGES: [&str; 3] = ["tiny-one", "tiny-two", "tiny-three"];
/// The size of each package in bytes.
const PACKAGE_BYTES: usize = 200_000;

/// Adds a suite to the mirror. The contents of its packages are never read.
pub(crate) fn add_packages(goods: &mut RegistryContent) {
    let mut index = String::new();
    for (number, name) in PACKAGES.iter().enumerate() {
        let body: Vec<u8> = random_blocks(PACKAGE_BYTES + number).flatten().collect();
        let path = format!("pool/main/t/{name}/{name}_1.0_all.deb");
        index += &format!(
            "Package: {name}\nVersion: 1.0\nArchitecture: all\nMaintainer: tests <tests@example.com>\n\
             Filename: {path}\nSize: {}\nSHA256: {}\nDescription: tiny\n\n",
            body.len(),
            sha256_hex(&body),
        );
        goods.add_page(&format!("{MIRROR_HOST}/debian/{path}"), MEDIA_BYTES, body);
    }
    let suite = format!("{MIRROR_HOST}/debian/dists/bookworm");
    let release = format!(
        "Origin: Debian\nSuite: oldstable\nCodename: bookworm\nArchitectures: all amd64\n\
         Components: main\nDate: Thu, 01 Jan 2026 00:00:00 UTC\nSHA256:\n {} {} main/binary-amd64/Packages\n",
        sha256_hex(index.as_bytes()),
        index.len(),
    );
    goods.add_page(&format!("{suite}/Release"), MEDIA_BYTES, release);
    goods.add_page(&format!("{suite}/main/binary-amd64/Packages"), MEDIA_BYTES, index);
}

/// Configures an apt that uses this mirror only and ignores the machine's configuration.
#[track_caller]
fn configure_apt(apt: &FieldClient<'_>, scheme: &str) {
    let source = format!("deb [trusted=yes] {scheme}://{MIRROR_HOST}/debian bookworm main\n");
    apt.write_file("etc/sources.list", source);
    for directory in [
        "etc/apt.conf.d",
        "etc/preferences.d",
        "state/lists/partial",
        "cache/archives/partial",
        "log",
    ] {
        apt.write_file(&format!("{directory}/.keep"), "");
    }
    apt.write_file("status", "");
    let (home, ca) = (apt.home_path(""), apt.ca_file());
    let (home, ca) = (home.display(), ca.display());
    let config = format!(
        "Dir::Etc \"{home}/etc\";\nDir::State \"{home}/state\";\nDir::State::status \"{home}/status\";\n\
         Dir::Cache \"{home}/cache\";\nDir::Log \"{home}/log\";\n\
         APT::Architecture \"amd64\";\nAPT::Architectures {{ \"amd64\"; }};\n\
         APT::Sandbox::User \"root\";\nAcquire::Languages \"none\";\nAcquire::Retries \"0\";\n\
         APT::Update::Error-Mode \"any\";\nAcquire::https::CAInfo \"{ca}\";\n"
    );
    apt.write_file("apt.conf", config);
}

#[track_caller]
fn run_apt(apt: &FieldClient<'_>, arguments: &[&str]) -> ClientOutput {
    let config = apt.home_path("apt.conf");
    apt.run("apt-get", arguments, &[("APT_CONFIG", config.as_os_str())])
}

#[test]
fn updates_and_downloads_over_http_and_https() {
    let field = FieldTestbed::shared();
    let sandbox = field.sandbox_with_list(CLIENT_LIST, &[MIRROR_HOST]);
    for scheme in ["http", "https"] {
        let apt = FieldClient::new(&sandbox);
        configure_apt(&apt, scheme);
        run_apt(&apt, &["update"]).assert_succeeded();
        run_apt(&apt, &[&["download"], &PACKAGES[..]].concat()).assert_succeeded();
        for name in PACKAGES {
            assert!(apt.home_path(&format!("{name}_1.0_all.deb")).exists(), "{name} over {scheme}");
        }
    }
}

#[test]
fn says_that_a_name_is_refused() {
    let field = FieldTestbed::shared();
    let sandbox = field.sandbox_with_list(CLIENT_LIST, &[MIRROR_HOST]);
    sandbox.allow_only(&[UNRELATED_NAME]);
    let apt = FieldClient::new(&sandbox);
    configure_apt(&apt, "http");
    run_apt(&apt, &["update"]).assert_failed_with("403");
    configure_apt(&apt, "https");
    // apt does not report which alert it received.
    run_apt(&apt, &["update"]).assert_failed_with("alert");
}
