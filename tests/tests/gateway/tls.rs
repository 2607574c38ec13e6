//! Certificates: the operator's, read anew when they change, or one that the agent signs itself.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use policy_tests::{
    gateway::{self, DOMAIN, PORT, recorder::Recorder},
    names::{authority::Authority, curl::Curl},
    patience::eventually,
    stage::{Guest, OrFail as _, Stage},
    world::host::HOST_V4,
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use serde_json::json;
use tempfile::TempDir;

use crate::{STAGE, recorded};

/// curl's exit status when a certificate is not trusted.
const UNTRUSTED: i32 = 60;

/// Files of the agent's state that hold a kind of PEM. Where it keeps them is its own business.
fn kept(stage: &Stage, kind: &str) -> Vec<PathBuf> {
    let (mut found, mut places) = (Vec::new(), vec![stage.agent().state_dir()]);
    while let Some(place) = places.pop() {
        for entry in fs::read_dir(&place).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                places.push(path);
            } else if fs::read_to_string(&path).is_ok_and(|text| text.contains(kind)) {
                found.push(path);
            }
        }
    }
    found
}

/// The certificate that the agent has signed itself.
#[track_caller]
fn own_certificate(stage: &Stage) -> PathBuf {
    kept(stage, "BEGIN CERTIFICATE").into_iter().next().or_fail("a certificate in the state")
}

/// A client that trusts it, and nothing else.
#[track_caller]
pub fn trusting_own(stage: &Stage) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let own = CertificateDer::from_pem_file(own_certificate(stage)).or_fail("its certificate");
    roots.add(own).or_fail("a certificate to trust");
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().or_fail("versions");
    Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
}

/// A curl that trusts the certificates of a file, and nothing else.
fn trusting<'a>(stage: &'a Stage, url: &str, file: &Path) -> Curl<'a> {
    let curl = Curl::fetching(&stage.world.internet, stage.names().files(), url);
    curl.misled_to(HOST_V4.into()).with(&["--cacert", &file.to_string_lossy()])
}

#[test]
fn without_a_certificate_the_agent_signs_one_for_the_whole_domain() {
    let stage = Stage::with_names(gateway::CONFIG);
    let file = own_certificate(&stage);
    let before = fs::read(&file).or_fail("the certificate");
    for name in [DOMAIN.to_owned(), gateway::host("any", 1), gateway::host("other", 65535)] {
        let fetched = trusting(&stage, &format!("https://{name}/"), &file).run();
        assert_eq!(fetched.exit, 0, "{name}: {fetched:?}");
    }
    for name in ["example.org", &format!("a.b.{DOMAIN}")] {
        let fetched = trusting(&stage, &format!("https://{name}/"), &file).run();
        assert_eq!(fetched.exit, UNTRUSTED, "{name}: {fetched:?}");
    }
    for key in kept(&stage, "PRIVATE KEY") {
        let mode = fs::metadata(&key).or_fail("the key's file").permissions().mode();
        assert_eq!(mode & 0o077, 0, "others may read {}", key.display());
    }
    stage.stop();
    stage.restart();
    let after = fs::read(&file).or_fail("the certificate");
    assert!(after == before, "a client would have to trust another");
    let fetched = trusting(&stage, &format!("https://{DOMAIN}/"), &file).run();
    assert_eq!(fetched.exit, 0, "{fetched:?}");
}

/// A gateway with files of a certificate, and the authority that issues it.
struct Operated {
    authority: Authority,
    files: TempDir,
    stage: Arc<Stage>,
}

impl Operated {
    #[track_caller]
    fn set() -> Self {
        let files = tempfile::tempdir().or_fail("a directory");
        let authority = Authority::new().or_fail("an authority");
        let at = |name: &str| files.path().join(name);
        fs::write(at("ca.pem"), authority.pem()).or_fail("writing");
        issue(&files, &authority, &format!("*.{DOMAIN}"));
        let config =
            format!("{}tls_cert = {:?}\ntls_key = {:?}\n", gateway::CONFIG, at("cert"), at("key"));
        Self { stage: Stage::with_names(&config), authority, files }
    }

    fn fetch(&self, sandbox: &Guest) -> Curl<'_> {
        let url = format!("https://{}/", sandbox.host(PORT));
        trusting(&self.stage, &url, &self.files.path().join("ca.pem"))
    }

    /// Whether clients accept the certificate in force, once they do or once they do not.
    #[track_caller]
    fn comes_to_be(&self, sandbox: &Guest, exit: i32) {
        let what = format!("curl ends with {exit}");
        let found = eventually(&what, || (self.fetch(sandbox).run().exit == exit).then_some(()));
        found.or_fail("following the files");
    }
}

#[track_caller]
fn issue(files: &TempDir, authority: &Authority, name: &str) {
    let (certificate, key) = authority.issue(name).or_fail("a certificate");
    fs::write(files.path().join("key"), key).or_fail("writing the key");
    fs::write(files.path().join("cert"), certificate).or_fail("writing the certificate");
}

#[test]
fn the_operators_certificate_is_followed() {
    let operated = Operated::set();
    let sandbox = operated.stage.sandbox();
    sandbox.network(json!({}));
    let _recorder = Recorder::start(&sandbox.inside, PORT).or_fail("the recorder");
    let fetched = operated.fetch(&sandbox).run();
    assert_eq!((fetched.exit, fetched.status), (0, 200), "{fetched:?}");
    let cert = |text: &str| fs::write(operated.files.path().join("cert"), text).or_fail("writing");

    // One for another name is what the files say now.
    issue(&operated.files, &operated.authority, "*.example.org");
    operated.comes_to_be(&sandbox, UNTRUSTED);
    issue(&operated.files, &operated.authority, &format!("*.{DOMAIN}"));
    operated.comes_to_be(&sandbox, 0);

    // What cannot be read leaves what is in force.
    cert("no certificate");
    let complaint = eventually("the agent complains", || {
        operated.stage.agent().log().contains("certificate stays").then_some(())
    });
    complaint.or_fail("reading its log");
    assert_eq!(operated.fetch(&sandbox).run().exit, 0);
}

#[test]
fn versions_and_protocols() {
    let (sandbox, recorder) = recorded(json!({}));
    for arguments in [&["--tls-max", "1.2"][..], &["--tlsv1.3"]] {
        let fetched = sandbox.fetch("https", "/").with(arguments).run();
        assert_eq!((fetched.exit, fetched.status), (0, 200), "{arguments:?}: {fetched:?}");
    }
    let old = ["--tls-max", "1.1", "--ciphers", "DEFAULT@SECLEVEL=0"];
    let fetched = sandbox.fetch("https", "/").with(&old).run();
    assert_eq!(fetched.exit, 35, "{fetched:?}");
    // Neither port takes what is for the other.
    let came = recorder.connections();
    let stage = STAGE.stage();
    let port = |scheme: &str, port: u16| format!("{scheme}://{}:{port}/", sandbox.host(PORT));
    let at = HOST_V4;
    for (url, port) in [(port("http", 443), 443), (port("https", 80), 80)] {
        let resolve = format!("*:{port}:{at}");
        let fetched = stage.visitor(&url).with(&["--resolve", &resolve]).run();
        assert_ne!(fetched.status, 200, "{url}: {fetched:?}");
    }
    assert_eq!(recorder.connections(), came);
}

#[test]
fn files_that_do_not_fit_stop_the_agent() {
    let files = tempfile::tempdir().or_fail("a directory");
    let authority = Authority::new().or_fail("an authority");
    issue(&files, &authority, DOMAIN);
    let other = Authority::new().or_fail("another").issue(DOMAIN).or_fail("a certificate");
    fs::write(files.path().join("other"), other.1).or_fail("writing");
    let at = |name: &str| files.path().join(name);
    for (cert, key, complaint) in [
        (Some("cert"), Some("other"), "tls_key"),
        (Some("missing"), Some("key"), "tls_cert"),
        (Some("key"), Some("key"), "tls_cert"),
        (Some("cert"), None, "tls_key"),
        (None, Some("key"), "tls_cert"),
    ] {
        let line = |name, value: Option<&str>| {
            value.map(|value| format!("{name} = {:?}\n", at(value))).unwrap_or_default()
        };
        let more = line("tls_cert", cert) + &line("tls_key", key);
        let stage = Stage::without_agent(&format!("{}{more}", gateway::CONFIG));
        let started = stage.agent_mut().start(&stage.world.host);
        let error = started.err().map(|error| format!("{error:#}")).unwrap_or_default();
        assert!(error.contains(complaint), "{more}: {error:?}");
    }
}
