//! Java's HttpClient, which speaks HTTP/2 over TLS, and offers it in the clear.

use super::{AGENT, OTHER, client::Client, ground::Field, programs};

#[test]
fn http_client_gets_what_is_allowed_and_says_what_is_refused() {
    let field = Field::shared();
    let sandbox = field.sandbox(AGENT, &["api.openai.com", OTHER]);
    let java = Client::new(&sandbox);
    let program = programs().join("Client.java").to_string_lossy().into_owned();
    let ca = java.ca().to_string_lossy().into_owned();
    let (http, https) = (format!("http://{OTHER}/"), format!("https://{OTHER}/"));
    let urls = ["http://api.openai.com/", "https://api.openai.com/", &http, &https];
    let options = ["-XX:TieredStopAtLevel=1", &program, &ca];
    let ran = java.run("java", &[&options[..], &urls].concat(), &[]);
    ran.succeeded();
    for (url, version) in urls.iter().zip(["HTTP_1_1", "HTTP_2"]) {
        ran.says(&format!("{url} 200 {version} a page of api.openai.com"));
    }
    ran.line(&format!("{http} ")).says("403");
    ran.line(&format!("{https} ")).says_denial();
}
