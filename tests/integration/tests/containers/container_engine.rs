//! A real Docker Engine or Podman in the host of a test network, with a mount namespace, storage and
//! cgroups of its own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::Arc,
};

use policy_testbed::{
    network::unique_name,
    testbed::{OrFail as _, Testbed},
    wait::eventually,
};

/// Mounts what the engine writes to, and waits until the test's end of the pipe is closed.
const NAMESPACE_SCRIPT: &str = "mount -t tmpfs tmpfs /run && touch /run/mounted && exec cat";
/// What precedes a script that calls crun, in a mount namespace: crun refuses machines with both
/// versions of cgroups.
pub(crate) const ONLY_CGROUP2: &str = "[ -e /sys/fs/cgroup/cgroup.controllers ] || mount -t cgroup2 cgroup2 /sys/fs/cgroup || exit 1; ";
/// The image that every container is from: busybox alone.
const IMAGE: &str = "busybox:test";
/// The networks of containers, which the testbed's internet has a route to.
const DOCKER_BRIDGE: &str = "10.11.241.1/24";
const PODMAN_SUBNET: &str = "10.11.242.0/24";

/// An engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EngineKind {
    Docker,
    Podman,
}

/// A running engine, and the agent that knows its socket.
pub(crate) struct ContainerEngine {
    pub(crate) stage: Arc<Testbed>,
    kind: EngineKind,
    /// What answers on the socket.
    service: Option<Child>,
    /// Keeps the mount namespace.
    holder: Child,
    directory: tempfile::TempDir,
    cgroup: String,
}

impl ContainerEngine {
    /// Starts an engine with its API, and then the agent.
    #[track_caller]
    pub(crate) fn start(kind: EngineKind) -> Self {
        let directory = tempfile::tempdir().or_fail("a directory");
        let at = |name: &str| directory.path().join(name);
        let config = format!(
            "[containers]\ndocker_socket = {:?}\npodman_socket = {:?}\n",
            at("engine.sock"),
            at("engine.sock")
        );
        // The namespace below holds the file systems that are mounted by now, that of the pins
        // included.
        let stage = Testbed::without_agent(&config);
        let mut unshare = stage.network.host.command("unshare").or_fail("a command");
        let script = match kind {
            EngineKind::Docker => NAMESPACE_SCRIPT.to_owned(),
            EngineKind::Podman => format!("{ONLY_CGROUP2}{NAMESPACE_SCRIPT}"),
        };
        unshare.args(["--mount", "--propagation", "private", "sh", "-c", &script]);
        let holder = unshare.stdin(Stdio::piped()).stdout(Stdio::null()).spawn();
        let holder = holder.or_fail("unshare");
        let cgroup = unique_name("engine");
        let mut engine = Self { stage, kind, service: None, holder, directory, cgroup };
        let mounted = || engine.inside("test").args(["-e", "/run/mounted"]).status().ok();
        eventually("it is mounted", || mounted().filter(|status| status.success()))
            .or_fail("mounting");
        engine.service = Some(engine.start_service());
        let socket = engine.directory.path().join("engine.sock");
        eventually("the engine listens", || socket.exists().then_some(())).or_fail("the engine");
        engine.import_image();
        engine.stage.agent_mut().set_launch_prefix(engine.prefix());
        engine.stage.restart_agent();
        engine
    }

    fn prefix(&self) -> Vec<String> {
        vec!["nsenter".to_owned(), format!("--mount=/proc/{}/ns/mnt", self.holder.id())]
    }

    /// A command in the engine's namespaces.
    fn inside(&self, program: &str) -> Command {
        let prefix = self.prefix();
        let mut command = self.stage.network.host.command(&prefix[0]).or_fail("a command");
        command.args(&prefix[1..]).arg(program).stdin(Stdio::null());
        command.env("CONTAINERS_CONF", self.path("containers.conf"));
        command
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn socket_url(&self) -> String {
        format!("unix://{}", self.path("engine.sock").display())
    }

    fn start_service(&self) -> Child {
        let log = fs::File::create(self.path("engine.log")).or_fail("a log");
        let mut service = match self.kind {
            EngineKind::Docker => {
                let mut daemon = self.inside("dockerd");
                daemon.arg("--data-root").arg(self.path("data"));
                daemon.args(["--exec-root", "/run/docker", "--pidfile", "/run/docker.pid"]);
                daemon.args(["--storage-driver", "vfs", "--bip", DOCKER_BRIDGE]);
                // The container's packets are the agent's to judge.
                daemon.args(["--iptables=false", "--ip6tables=false", "-H", &self.socket_url()]);
                daemon.arg("--cgroup-parent").arg(format!("/{}", self.cgroup));
                daemon
            }
            EngineKind::Podman => {
                let config = "[network]\nnetwork_backend = \"netavark\"\n";
                fs::write(self.path("containers.conf"), config).or_fail("writing a configuration");
                self.run(&["network", "create", "--subnet", PODMAN_SUBNET, "tests"]);
                let mut podman = self.engine_command();
                podman.args(["system", "service", "--time", "0", &self.socket_url()]);
                podman
            }
        };
        service.stdout(log.try_clone().or_fail("a log")).stderr(log).spawn().or_fail("the engine")
    }

    /// The engine's command line.
    fn engine_command(&self) -> Command {
        match self.kind {
            EngineKind::Docker => {
                let mut docker = self.inside("docker");
                docker.args(["-H", &self.socket_url()]);
                docker
            }
            EngineKind::Podman => {
                let mut podman = self.inside("podman");
                podman.arg("--root").arg(self.path("storage"));
                podman.arg("--network-config-dir").arg(self.path("networks"));
                podman.args(["--runroot", "/run/podman-storage", "--tmpdir", "/run/podman"]);
                podman.args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"]);
                podman.args(["--events-backend", "file"]);
                podman.arg("--hooks-dir").arg(self.path("hooks"));
                podman
            }
        }
    }

    fn import_image(&self) {
        let bin = self.path("image/bin");
        fs::create_dir_all(&bin).or_fail("a directory");
        fs::copy("/bin/busybox", bin.join("busybox")).or_fail("copying busybox");
        for name in ["sh", "sleep", "ping"] {
            std::os::unix::fs::symlink("busybox", bin.join(name)).or_fail("a link");
        }
        let archive = self.path("image.tar");
        let mut tar = Command::new("tar");
        tar.arg("-C").arg(self.path("image")).arg("-cf").arg(&archive).arg(".");
        assert!(tar.status().or_fail("tar").success());
        let imported = || {
            let output = self.output(&["import", &archive.to_string_lossy(), IMAGE]);
            output.status.success().then_some(())
        };
        eventually("the engine answers", imported).or_fail("importing the image");
    }

    fn output(&self, words: &[&str]) -> Output {
        self.engine_command().args(words).output().or_fail("calling the engine")
    }

    /// Calls the engine and asserts that it succeeds. Returns its output.
    #[track_caller]
    pub(crate) fn run(&self, words: &[&str]) -> String {
        let output = self.output(words);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        let log = fs::read_to_string(self.path("engine.log")).unwrap_or_default();
        assert!(output.status.success(), "{words:?}: {}\n{log}", text(&output.stderr));
        text(&output.stdout)
    }

    /// Starts a container that sleeps, with further options.
    #[track_caller]
    pub(crate) fn start_container(&self, name: &str, options: &[&str]) {
        let mut words = vec!["run", "--detach", "--name", name];
        if self.kind == EngineKind::Podman {
            let limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"];
            words.extend(limits);
            words.extend(["--cgroups", "disabled", "--pull", "never", "--network", "tests"]);
        }
        words.extend(options);
        words.extend([IMAGE, "sleep", "1000"]);
        self.run(&words);
    }

    /// Whether a ping from a container comes back.
    pub(crate) fn pings(&self, container: &str, address: &str) -> bool {
        let words = ["exec", container, "ping", "-c", "1", "-W", "1", address];
        self.output(&words).status.success()
    }

    /// Makes Podman call the agent's hook for containers that ask for it.
    #[track_caller]
    pub(crate) fn write_hook(&self, hook: &serde_json::Value) {
        fs::create_dir_all(self.path("hooks")).or_fail("a directory");
        let file = self.path("hooks/policy-agent.json");
        fs::write(file, hook.to_string()).or_fail("writing a hook");
    }

    /// A directory for files of the test.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }
}

impl Drop for ContainerEngine {
    fn drop(&mut self) {
        let listed = self.output(&["ps", "--all", "--quiet"]);
        for id in String::from_utf8_lossy(&listed.stdout).split_whitespace() {
            let _ = self.output(&["rm", "--force", id]);
        }
        if let Some(service) = &mut self.service {
            let pid = nix::unistd::Pid::from_raw(service.id().cast_signed());
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
            let _ = service.wait();
        }
        let _ = self.holder.kill();
        let _ = self.holder.wait();
        for hierarchy in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            let _ = fs::remove_dir(hierarchy.path().join(&self.cgroup));
        }
    }
}
