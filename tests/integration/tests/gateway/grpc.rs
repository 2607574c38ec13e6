//! gRPC through public URLs, with the client and the server of the gRPC project.

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Stdio},
};

use policy_testbed::{
    network::NetworkNamespace,
    public_url::{self, SERVICE_PORT},
    testbed::{OrFail as _, TestSandbox},
};
use serde_json::{Value, json};

use crate::{gateway_sandbox, private_network};

/// Debian's Python, for which the package with gRPC is.
const PYTHON: &str = "/usr/bin/python3";

fn program(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(name)
}

/// A running gRPC service. It ends on drop.
struct GrpcService {
    child: Child,
    reports: BufReader<ChildStdout>,
}

impl GrpcService {
    #[track_caller]
    fn start(namespace: &NetworkNamespace, certificate: &[&Path]) -> Self {
        let mut command = namespace.command(PYTHON).or_fail("a command");
        command.arg(program("grpc_service.py")).arg(SERVICE_PORT.to_string()).args(certificate);
        command.env_clear().stdout(Stdio::piped());
        let mut child = command.spawn().or_fail("starting the gRPC service (python3-grpcio)");
        let reports = BufReader::new(child.stdout.take().or_fail("its reports"));
        let mut service = Self { child, reports };
        assert_eq!(service.next_report(), "listening");
        service
    }

    /// Waits for the next line that the service prints.
    #[track_caller]
    fn next_report(&mut self) -> String {
        let mut line = String::new();
        self.reports.read_line(&mut line).or_fail("a report of the gRPC service");
        line.trim().to_owned()
    }
}

impl Drop for GrpcService {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[track_caller]
fn grpc_sandbox(network: Value) -> (TestSandbox, GrpcService) {
    let sandbox = gateway_sandbox(network);
    let service = GrpcService::start(&sandbox.namespace, &[]);
    (sandbox, service)
}

/// Makes a call from the internet, and returns what the client prints.
#[track_caller]
fn call(sandbox: &TestSandbox, method: &str, token: &[&str]) -> String {
    let mut command = sandbox.testbed.network.internet.command(PYTHON).or_fail("a command");
    command.arg(program("grpc_client.py")).arg(public_url::http_address().to_string());
    command.arg(sandbox.public_host(SERVICE_PORT)).arg(method).args(token).env_clear();
    let output = command.output().or_fail("running the gRPC client (python3-grpcio)");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
fn calls_of_every_kind_are_answered() {
    let (sandbox, _service) = grpc_sandbox(json!({}));
    assert_eq!(call(&sandbox, "unary", &[]), "b'hello'");
    assert_eq!(call(&sandbox, "large", &[]), "3000000");
    assert_eq!(call(&sandbox, "server_stream", &[]), "499500");
    assert_eq!(call(&sandbox, "client_stream", &[]), "1000000");
    assert_eq!(call(&sandbox, "both_streams", &[]), "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]");
}

#[test]
fn metadata_and_errors_pass_in_trailers() {
    let (sandbox, _service) = grpc_sandbox(json!({}));
    assert_eq!(call(&sandbox, "metadata", &[]), "(b'this', 'first', 'last')");
    assert_eq!(call(&sandbox, "fail", &[]), "('RESOURCE_EXHAUSTED', 'no more of it', 'why')");
}

#[test]
fn a_call_that_the_client_gives_up_ends_at_the_service() {
    let (sandbox, mut service) = grpc_sandbox(json!({}));
    assert_eq!(call(&sandbox, "cancel", &[]), "b'begun'");
    assert_eq!(service.next_report(), "remaining True");
    assert_eq!(service.next_report(), "ended");
}

#[test]
fn a_deadline_passes_and_ends_the_call() {
    let (sandbox, mut service) = grpc_sandbox(json!({}));
    assert_eq!(call(&sandbox, "deadline", &[]), "DEADLINE_EXCEEDED");
    assert_eq!(service.next_report(), "remaining True");
    assert_eq!(service.next_report(), "ended");
}

#[test]
fn a_private_service_needs_the_token() {
    let (sandbox, _service) = grpc_sandbox(private_network());
    assert_eq!(call(&sandbox, "unary", &[]), "PERMISSION_DENIED");
    assert_eq!(call(&sandbox, "unary", &[&sandbox.traffic_token()]), "b'hello'");
}

#[test]
fn a_service_with_tls_is_found_by_alpn() {
    let sandbox = gateway_sandbox(json!({ "httpsPorts": [SERVICE_PORT] }));
    let certificate = crate::certificates::self_signed_certificate(&sandbox.testbed);
    let key = certificate.with_extension("key");
    let _service = GrpcService::start(&sandbox.namespace, &[&certificate, &key]);
    assert_eq!(call(&sandbox, "unary", &[]), "b'hello'");
    assert_eq!(call(&sandbox, "both_streams", &[]), "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]");
}

#[test]
fn without_a_service_a_call_fails_at_once() {
    let sandbox = gateway_sandbox(json!({}));
    assert_eq!(call(&sandbox, "unary", &[]), "UNAVAILABLE");
}
