//! apt, over HTTP as Debian has it by default, which asks for more before it has an answer, and over
//! HTTPS.

use policy_tests::names::pages::noise;

use super::{
    AGENT, OTHER,
    client::{Client, Ran},
    goods::{BYTES, Goods, sha256},
    ground::Field,
};

/// The mirror.
const MIRROR: &str = "deb.debian.org";
/// Packages, of which each is downloaded.
const PACKAGES: [&str; 3] = ["tiny-one", "tiny-two", "tiny-three"];
/// Bytes of each.
const LENGTH: usize = 200_000;

/// Adds a suite to the mirror. Nobody looks into its packages.
pub fn stock(goods: &mut Goods) {
    let mut index = String::new();
    for (number, name) in PACKAGES.iter().enumerate() {
        let body: Vec<u8> = noise(LENGTH + number).flatten().collect();
        let path = format!("pool/main/t/{name}/{name}_1.0_all.deb");
        index += &format!(
            "Package: {name}\nVersion: 1.0\nArchitecture: all\nMaintainer: tests <tests@example.com>\n\
             Filename: {path}\nSize: {}\nSHA256: {}\nDescription: tiny\n\n",
            body.len(),
            sha256(&body),
        );
        goods.add(&format!("{MIRROR}/debian/{path}"), BYTES, body);
    }
    let suite = format!("{MIRROR}/debian/dists/bookworm");
    let release = format!(
        "Origin: Debian\nSuite: oldstable\nCodename: bookworm\nArchitectures: all amd64\n\
         Components: main\nDate: Thu, 01 Jan 2026 00:00:00 UTC\nSHA256:\n {} {} main/binary-amd64/Packages\n",
        sha256(index.as_bytes()),
        index.len(),
    );
    goods.add(&format!("{suite}/Release"), BYTES, release);
    goods.add(&format!("{suite}/main/binary-amd64/Packages"), BYTES, index);
}

/// An apt that knows this mirror and nothing of the machine's.
#[track_caller]
fn configure(apt: &Client<'_>, scheme: &str) {
    let source = format!("deb [trusted=yes] {scheme}://{MIRROR}/debian bookworm main\n");
    apt.write("etc/sources.list", source);
    for directory in [
        "etc/apt.conf.d",
        "etc/preferences.d",
        "state/lists/partial",
        "cache/archives/partial",
        "log",
    ] {
        apt.write(&format!("{directory}/.keep"), "");
    }
    apt.write("status", "");
    let (home, ca) = (apt.path(""), apt.ca());
    let (home, ca) = (home.display(), ca.display());
    let config = format!(
        "Dir::Etc \"{home}/etc\";\nDir::State \"{home}/state\";\nDir::State::status \"{home}/status\";\n\
         Dir::Cache \"{home}/cache\";\nDir::Log \"{home}/log\";\n\
         APT::Architecture \"amd64\";\nAPT::Architectures {{ \"amd64\"; }};\n\
         APT::Sandbox::User \"root\";\nAcquire::Languages \"none\";\nAcquire::Retries \"0\";\n\
         APT::Update::Error-Mode \"any\";\nAcquire::https::CAInfo \"{ca}\";\n"
    );
    apt.write("apt.conf", config);
}

#[track_caller]
fn run(apt: &Client<'_>, arguments: &[&str]) -> Ran {
    let config = apt.path("apt.conf");
    apt.run("apt-get", arguments, &[("APT_CONFIG", config.as_os_str())])
}

#[test]
fn updates_and_downloads_over_http_and_https() {
    let field = Field::shared();
    let sandbox = field.sandbox(AGENT, &[MIRROR]);
    for scheme in ["http", "https"] {
        let apt = Client::new(&sandbox);
        configure(&apt, scheme);
        run(&apt, &["update"]).succeeded();
        run(&apt, &[&["download"], &PACKAGES[..]].concat()).succeeded();
        for name in PACKAGES {
            assert!(apt.path(&format!("{name}_1.0_all.deb")).exists(), "{name} over {scheme}");
        }
    }
}

#[test]
fn says_that_a_name_is_refused() {
    let field = Field::shared();
    let sandbox = field.sandbox(AGENT, &[MIRROR]);
    sandbox.may_only_reach(&[OTHER]);
    let apt = Client::new(&sandbox);
    configure(&apt, "http");
    run(&apt, &["update"]).failed_with("403");
    configure(&apt, "https");
    // It does not say which alert it was.
    run(&apt, &["update"]).failed_with("alert");
}
