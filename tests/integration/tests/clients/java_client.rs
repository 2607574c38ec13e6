//! Java's HttpClient, which uses HTTP/2 over TLS and offers an upgrade to it in cleartext.

use super::{
    CLIENT_LIST, UNRELATED_NAME,
    field_client::{ClientOutput, FieldClient},
    field_testbed::FieldTestbed,
    programs_directory,
};

/// Fetches URLs. A fragment names the version of HTTP; the default is HTTP/2.
#[track_caller]
pub(crate) fn java_fetch(java: &FieldClient<'_>, urls: &[&str]) -> ClientOutput {
    let program = programs_directory().join("Client.java").to_string_lossy().into_owned();
    let ca = java.ca_file().to_string_lossy().into_owned();
    let options = ["-XX:TieredStopAtLevel=1", &program, &ca];
    java.run("java", &[&options[..], urls].concat(), &[])
}

#[test]
fn http_client_gets_what_is_allowed_and_says_what_is_refused() {
    let field = FieldTestbed::shared();
    let sandbox = field.sandbox_with_list(CLIENT_LIST, &["api.openai.com", UNRELATED_NAME]);
    let java = FieldClient::new(&sandbox);
    let (http, https) = (format!("http://{UNRELATED_NAME}/"), format!("https://{UNRELATED_NAME}/"));
    let urls = ["http://api.openai.com/", "https://api.openai.com/", &http, &https];
    let ran = java_fetch(&java, &urls);
    ran.assert_succeeded();
    for (url, version) in urls.iter().zip(["HTTP_1_1", "HTTP_2"]) {
        ran.assert_mentions(&format!("{url} 200 {version} a page of api.openai.com"));
    }
    ran.line_starting_with(&format!("{http} ")).assert_mentions("403");
    ran.line_starting_with(&format!("{https} ")).assert_mentions_denial();
}
