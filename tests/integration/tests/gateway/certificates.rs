//! Certificates: the operator's, reloaded when they change, or one that the agent signs itself.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use policy_testbed::{
    named_internet::{certificate_authority::CertificateAuthority, curl::CurlCommand},
    network::host_router::HOST_UPLINK_V4,
    public_url::{self, GATEWAY_DOMAIN, SERVICE_PORT, recording_service::RecordingService},
    testbed::{OrFail as _, TestSandbox, Testbed},
    wait::eventually,
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use serde_json::json;
use tempfile::TempDir;

use crate::{TESTBED, recording_sandbox};

/// curl's exit status for an untrusted certificate.
const EXIT_UNTRUSTED: i32 = 60;

/// Files in the agent's state that contain this kind of PEM. Their location is an implementation
/// detail.
fn state_files_with(stage: &Testbed, kind: &str) -> Vec<PathBuf> {
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
pub(crate) fn self_signed_certificate(stage: &Testbed) -> PathBuf {
    state_files_with(stage, "BEGIN CERTIFICATE")
        .into_iter()
        .next()
        .or_fail("a certificate in the state")
}

/// A client that trusts only that certificate.
#[track_caller]
pub(crate) fn client_trusting_self_signed(stage: &Testbed) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let own =
        CertificateDer::from_pem_file(self_signed_certificate(stage)).or_fail("its certificate");
    roots.add(own).or_fail("a certificate to trust");
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().or_fail("versions");
    Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
}

/// A curl that trusts only the certificates of a file.
fn curl_trusting<'a>(stage: &'a Testbed, url: &str, file: &Path) -> CurlCommand<'a> {
    let curl =
        CurlCommand::new(&stage.network.internet, stage.named_internet().client_files(), url);
    curl.resolving_to(HOST_UPLINK_V4.into()).with_arguments(&["--cacert", &file.to_string_lossy()])
}

#[test]
fn without_a_certificate_the_agent_signs_one_for_the_whole_domain() {
    let stage = Testbed::with_names(public_url::GATEWAY_CONFIG);
    let file = self_signed_certificate(&stage);
    let before = fs::read(&file).or_fail("the certificate");
    for name in [
        GATEWAY_DOMAIN.to_owned(),
        public_url::public_host("any", 1),
        public_url::public_host("other", 65535),
    ] {
        let fetched = curl_trusting(&stage, &format!("https://{name}/"), &file).run();
        assert_eq!(fetched.exit_code, 0, "{name}: {fetched:?}");
    }
    for name in ["example.org", &format!("a.b.{GATEWAY_DOMAIN}")] {
        let fetched = curl_trusting(&stage, &format!("https://{name}/"), &file).run();
        assert_eq!(fetched.exit_code, EXIT_UNTRUSTED, "{name}: {fetched:?}");
    }
    for key in state_files_with(&stage, "PRIVATE KEY") {
        let mode = fs::metadata(&key).or_fail("the key's file").permissions().mode();
        assert_eq!(mode & 0o077, 0, "others may read {}", key.display());
    }
    stage.stop_agent();
    stage.restart_agent();
    let after = fs::read(&file).or_fail("the certificate");
    assert!(after == before, "a client would have to trust another");
    let fetched = curl_trusting(&stage, &format!("https://{GATEWAY_DOMAIN}/"), &file).run();
    assert_eq!(fetched.exit_code, 0, "{fetched:?}");
}

/// A gateway with certificate files, and the authority that issues them.
struct OperatorCertTestbed {
    authority: CertificateAuthority,
    files: TempDir,
    testbed: Arc<Testbed>,
}

impl OperatorCertTestbed {
    #[track_caller]
    fn new() -> Self {
        let files = tempfile::tempdir().or_fail("a directory");
        let authority = CertificateAuthority::new().or_fail("an authority");
        let at = |name: &str| files.path().join(name);
        fs::write(at("ca.pem"), authority.pem()).or_fail("writing");
        write_certificate(&files, &authority, &format!("*.{GATEWAY_DOMAIN}"));
        let config = format!(
            "{}tls_cert = {:?}\ntls_key = {:?}\n",
            public_url::GATEWAY_CONFIG,
            at("cert"),
            at("key")
        );
        Self { testbed: Testbed::with_names(&config), authority, files }
    }

    fn fetch(&self, sandbox: &TestSandbox) -> CurlCommand<'_> {
        let url = format!("https://{}/", sandbox.public_host(SERVICE_PORT));
        curl_trusting(&self.testbed, &url, &self.files.path().join("ca.pem"))
    }

    /// Waits until curl ends with this exit status, which shows whether clients accept the current
    /// certificate.
    #[track_caller]
    fn wait_for_curl_exit(&self, sandbox: &TestSandbox, exit: i32) {
        let what = format!("curl ends with {exit}");
        let found =
            eventually(&what, || (self.fetch(sandbox).run().exit_code == exit).then_some(()));
        found.or_fail("following the files");
    }
}

#[track_caller]
fn write_certificate(files: &TempDir, authority: &CertificateAuthority, name: &str) {
    let (certificate, key) = authority.issue(name).or_fail("a certificate");
    fs::write(files.path().join("key"), key).or_fail("writing the key");
    fs::write(files.path().join("cert"), certificate).or_fail("writing the certificate");
}

#[test]
fn the_operators_certificate_is_followed() {
    let operated = OperatorCertTestbed::new();
    let sandbox = operated.testbed.add_sandbox();
    sandbox.apply_network(json!({}));
    let _recorder =
        RecordingService::start(&sandbox.namespace, SERVICE_PORT).or_fail("the recorder");
    let fetched = operated.fetch(&sandbox).run();
    assert_eq!((fetched.exit_code, fetched.status), (0, 200), "{fetched:?}");
    let cert = |text: &str| fs::write(operated.files.path().join("cert"), text).or_fail("writing");

    // The files now contain a certificate for another name.
    write_certificate(&operated.files, &operated.authority, "*.example.org");
    operated.wait_for_curl_exit(&sandbox, EXIT_UNTRUSTED);
    write_certificate(&operated.files, &operated.authority, &format!("*.{GATEWAY_DOMAIN}"));
    operated.wait_for_curl_exit(&sandbox, 0);

    // Invalid files leave the current certificate in use.
    cert("no certificate");
    let complaint = eventually("the agent complains", || {
        operated.testbed.agent().log_tail().contains("certificate stays").then_some(())
    });
    complaint.or_fail("reading its log");
    assert_eq!(operated.fetch(&sandbox).run().exit_code, 0);
}

#[test]
fn every_domain_has_its_certificate() {
    let files = tempfile::tempdir().or_fail("a directory");
    let directory = tempfile::tempdir().or_fail("a directory");
    let authority = CertificateAuthority::new().or_fail("an authority");
    fs::write(files.path().join("ca.pem"), authority.pem()).or_fail("writing");
    let write = |file: &str, name: &str| {
        let (certificate, key) = authority.issue(name).or_fail("a certificate");
        let at = |extension: &str| directory.path().join(format!("{file}.{extension}"));
        fs::write(at("key"), key).or_fail("writing the key");
        fs::write(at("crt"), certificate).or_fail("writing the certificate");
    };
    write("first", &format!("*.{GATEWAY_DOMAIN}"));
    write("second", "*.other.test");
    let config = format!(
        "[gateway]\ndomain = [{GATEWAY_DOMAIN:?}, \"other.test\"]\nhttps = \"[::]:443\"\n\
         tls_directory = {:?}\n",
        directory.path()
    );
    let stage = Testbed::with_names(&config);
    let sandbox = stage.add_sandbox();
    sandbox.apply_network(json!({}));
    let _recorder =
        RecordingService::start(&sandbox.namespace, SERVICE_PORT).or_fail("the recorder");
    let fetch = |domain: &str| {
        let url = format!("https://{SERVICE_PORT}-{}.{domain}/", sandbox.id);
        curl_trusting(&stage, &url, &files.path().join("ca.pem")).run()
    };
    for domain in [GATEWAY_DOMAIN, "other.test"] {
        let fetched = fetch(domain);
        assert_eq!((fetched.exit_code, fetched.status), (0, 200), "{domain}: {fetched:?}");
    }
    assert_eq!(fetch("third.test").exit_code, EXIT_UNTRUSTED);
    // Files that change or appear are followed.
    write("second", "*.third.test");
    let ends_with = |domain: &str, exit: i32| {
        let what = format!("{domain} ends with {exit}");
        let found = eventually(&what, || (fetch(domain).exit_code == exit).then_some(()));
        found.or_fail("following the directory");
    };
    ends_with("third.test", 0);
    ends_with("other.test", EXIT_UNTRUSTED);
    write("another", "*.other.test");
    ends_with("other.test", 0);
    let path = format!("/agent/v1/sandboxes/{}/url?port=80", sandbox.id);
    let url = stage.request("GET", &path, &serde_json::Value::Null).json();
    assert_eq!(url["url"], format!("https://80-{}.{GATEWAY_DOMAIN}", sandbox.id));
}

#[test]
fn versions_and_protocols() {
    let (sandbox, recorder) = recording_sandbox(json!({}));
    for arguments in [&["--tls-max", "1.2"][..], &["--tlsv1.3"]] {
        let fetched = sandbox.curl_public_url("https", "/").with_arguments(arguments).run();
        assert_eq!((fetched.exit_code, fetched.status), (0, 200), "{arguments:?}: {fetched:?}");
    }
    let old = ["--tls-max", "1.1", "--ciphers", "DEFAULT@SECLEVEL=0"];
    let fetched = sandbox.curl_public_url("https", "/").with_arguments(&old).run();
    assert_eq!(fetched.exit_code, 35, "{fetched:?}");
    // Neither port accepts the other port's protocol.
    let came = recorder.connection_count();
    let stage = TESTBED.testbed();
    let port = |scheme: &str, port: u16| {
        format!("{scheme}://{}:{port}/", sandbox.public_host(SERVICE_PORT))
    };
    let at = HOST_UPLINK_V4;
    for (url, port) in [(port("http", 443), 443), (port("https", 80), 80)] {
        let resolve = format!("*:{port}:{at}");
        let fetched = stage.curl_from_internet(&url).with_arguments(&["--resolve", &resolve]).run();
        assert_ne!(fetched.status, 200, "{url}: {fetched:?}");
    }
    assert_eq!(recorder.connection_count(), came);
}

#[test]
fn files_that_do_not_fit_stop_the_agent() {
    let files = tempfile::tempdir().or_fail("a directory");
    let authority = CertificateAuthority::new().or_fail("an authority");
    write_certificate(&files, &authority, GATEWAY_DOMAIN);
    let other = CertificateAuthority::new()
        .or_fail("another")
        .issue(GATEWAY_DOMAIN)
        .or_fail("a certificate");
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
        let stage = Testbed::without_agent(&format!("{}{more}", public_url::GATEWAY_CONFIG));
        let started = stage.agent_mut().start(&stage.network.host);
        let error = started.err().map(|error| format!("{error:#}")).unwrap_or_default();
        assert!(error.contains(complaint), "{more}: {error:?}");
    }
}
