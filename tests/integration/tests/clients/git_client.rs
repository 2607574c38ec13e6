//! git with its smart protocol over HTTP and HTTPS.

use std::{fs, process::Command};

use anyhow::Result;
use policy_testbed::{named_internet::web_pages::random_blocks, network::command};

use super::{
    CLIENT_LIST, UNRELATED_NAME, field_client::FieldClient, field_testbed::FieldTestbed,
    registry_content::RegistryContent,
};

/// The host of the repository.
pub(crate) const GIT_HOST: &str = "github.com";
/// The path of the repository.
pub(crate) const REPOSITORY_PATH: &str = "/team/tool.git";
/// The size of its largest file in bytes, more than one TLS record and one flow-control window.
const LARGE_FILE_BYTES: usize = 1_000_000;

/// Creates the repository.
pub(crate) fn create_repository(goods: &RegistryContent) -> Result<()> {
    let (work, bare) = (goods.directory().join("work"), goods.repositories().join("team/tool.git"));
    fs::create_dir_all(&work)?;
    fs::write(work.join("README"), "from the repository\n")?;
    fs::write(work.join("large"), random_blocks(LARGE_FILE_BYTES).flatten().collect::<Vec<u8>>())?;
    let git = |arguments: &[&str]| {
        let mut git = Command::new("git");
        git.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
        git.args(["-c", "user.name=tests", "-c", "user.email=tests@example.com"]);
        command::run(git.current_dir(&work).args(arguments))
    };
    git(&["init", "-q", "-b", "main"])?;
    git(&["add", "."])?;
    git(&["commit", "-q", "-m", "begin"])?;
    git(&["clone", "-q", "--bare", ".", &bare.to_string_lossy()])?;
    Ok(())
}

#[test]
fn clones_over_http_and_https() {
    let field = FieldTestbed::shared();
    let sandbox = field.sandbox_with_list(CLIENT_LIST, &[GIT_HOST]);
    for scheme in ["http", "https"] {
        let git = FieldClient::new(&sandbox);
        let url = format!("{scheme}://{GIT_HOST}{REPOSITORY_PATH}");
        let ca = git.ca_file();
        let trusting = [("GIT_SSL_CAINFO", ca.as_os_str())];
        git.run("git", &["clone", "-q", &url, "tool"], &trusting).assert_succeeded();
        assert_eq!(git.read_file("tool/README"), "from the repository\n");
        git.run("git", &["-C", "tool", "fetch", "-q", "origin"], &trusting).assert_succeeded();
    }
}

#[test]
fn says_that_a_name_is_refused() {
    let field = FieldTestbed::shared();
    let sandbox = field.sandbox_with_list(CLIENT_LIST, &[GIT_HOST]);
    sandbox.allow_only(&[UNRELATED_NAME]);
    let git = FieldClient::new(&sandbox);
    let clone = |scheme| {
        let url = format!("{scheme}://{GIT_HOST}{REPOSITORY_PATH}");
        let ca = git.ca_file();
        let trusting = [("GIT_SSL_CAINFO", ca.as_os_str())];
        git.run("git", &["clone", &url, "tool"], &trusting)
    };
    clone("http").assert_failed_with("403");
    clone("https").assert_failed_with_denial();
}
