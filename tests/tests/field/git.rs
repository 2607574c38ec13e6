//! git, by its smart protocol over HTTP and HTTPS.

use std::{fs, process::Command};

use anyhow::Result;
use policy_tests::{names::pages::noise, world::command};

use super::{AGENT, OTHER, client::Client, goods::Goods, ground::Field};

/// Where the repository is.
pub const HOST: &str = "github.com";
/// Its path.
pub const REPOSITORY: &str = "/team/tool.git";
/// Bytes of its largest file, which take more than one record and one window.
const LARGE: usize = 1_000_000;

/// Makes the repository.
pub fn stock(goods: &Goods) -> Result<()> {
    let (work, bare) = (goods.path().join("work"), goods.repositories().join("team/tool.git"));
    fs::create_dir_all(&work)?;
    fs::write(work.join("README"), "from the repository\n")?;
    fs::write(work.join("large"), noise(LARGE).flatten().collect::<Vec<u8>>())?;
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
    let field = Field::shared();
    let sandbox = field.sandbox(AGENT, &[HOST]);
    for scheme in ["http", "https"] {
        let git = Client::new(&sandbox);
        let url = format!("{scheme}://{HOST}{REPOSITORY}");
        let ca = git.ca();
        let trusting = [("GIT_SSL_CAINFO", ca.as_os_str())];
        git.run("git", &["clone", "-q", &url, "tool"], &trusting).succeeded();
        assert_eq!(git.read("tool/README"), "from the repository\n");
        git.run("git", &["-C", "tool", "fetch", "-q", "origin"], &trusting).succeeded();
    }
}

#[test]
fn says_that_a_name_is_refused() {
    let field = Field::shared();
    let sandbox = field.sandbox(AGENT, &[HOST]);
    sandbox.may_only_reach(&[OTHER]);
    let git = Client::new(&sandbox);
    let clone = |scheme| {
        let url = format!("{scheme}://{HOST}{REPOSITORY}");
        let ca = git.ca();
        let trusting = [("GIT_SSL_CAINFO", ca.as_os_str())];
        git.run("git", &["clone", &url, "tool"], &trusting)
    };
    clone("http").failed_with("403");
    clone("https").failed_with_denial();
}
