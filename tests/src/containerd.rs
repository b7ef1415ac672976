//! A private containerd in a sandbox, with pods and containers that really run, started through its CRI.
//!
//! ```text
//! let mut containerd = Containerd::new(sandbox);         // own storage, own mount namespace, serves its CRI
//! let pod = containerd.pod("shop", "web-0", &[("app", "web")], "/kubepods/pod1");
//! pod.sandbox.id; pod.sandbox.pid; pod.sandbox.cgroup;   // its pause container, below the guarded cgroup
//! let id = containerd.create(&pod, "web", &[]);          // with read-only mounts (host path, path inside)
//! let web = containerd.start(&id);                       // web.id, web.pid, web.cgroup
//! let outcome = containerd.exec(&web, "client", &["call", "tcp", "127.0.0.1:80"]).last();
//! let socket = containerd.socket();
//! containerd.stop(); containerd.serve();                 // containers go on meanwhile
//! containerd.remove(&pod);
//! ```
//!
//! Containers are in the sandbox's network namespace and find its programs (copies of the traffic tool) in
//! `/programs`. containerd and its shims run in the cgroup `/runtime` below the guarded one. Whatever still runs when the
//! sandbox is removed ends with it.

mod cri;
mod setup;

use std::{
    cell::Cell,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use crate::{
    Container, Running, Sandbox,
    container::{self, PROGRAMS},
    mounts::Mounts,
    podman::output,
    poll::poll,
};
use cri::{
    Client, ContainerConfig, ContainerSecurity, CreateContainer, Id, LinuxContainer, LinuxPod,
    Mount, Named, Namespaces, PodConfig, PodMetadata, PodSecurity, RunPodSandbox,
};

/// The one image, of pods and of containers.
pub const IMAGE: &str = "localhost/pause:1";
/// Where a container finds the token of its service account.
pub const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// A pod that runs.
pub struct Pod {
    /// Its pause container.
    pub sandbox: Container,
    /// What the API server would have called it.
    pub uid: String,
    config: PodConfig,
}

/// A containerd with its own storage.
pub struct Containerd<'s> {
    sandbox: &'s Sandbox,
    mounts: Mounts,
    dir: PathBuf,
    process: Option<Child>,
    client: Option<Client>,
    made: Cell<u32>,
}

impl<'s> Containerd<'s> {
    /// Starts it; one for each sandbox.
    #[must_use]
    pub fn new(sandbox: &'s Sandbox) -> Self {
        let dir = sandbox.files().join("containerd");
        fs::create_dir(&dir).unwrap();
        setup::write(&dir);
        let mut containerd = Self {
            sandbox,
            mounts: Mounts::new(),
            dir,
            process: None,
            client: None,
            made: Cell::new(0),
        };
        containerd.serve();
        let image = setup::image(&containerd.dir);
        let _imported = output(
            containerd
                .ctr(&["images", "import", "--snapshotter=native"])
                .arg(image),
        );
        containerd
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir.join("containerd.sock")
    }

    /// Starts it, and returns when it answers.
    pub fn serve(&mut self) {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.dir.join("log"))
            .unwrap();
        let mut command = self.mounts.command(self.sandbox, "containerd");
        let child = command
            .arg("--config")
            .arg(self.dir.join("config.toml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.process = Some(child);
        // It accepts some time before it answers.
        let client = poll(|| {
            let client = Client::connect(&self.socket())?;
            let pods = client.try_call::<(), ()>("ListPodSandbox", ());
            pods.is_ok().then_some(client)
        });
        self.client = Some(client.unwrap_or_else(|| panic!("no containerd:\n{}", self.log())));
    }

    /// Ends it; pods go on, and the socket file stays.
    pub fn stop(&mut self) {
        self.client = None;
        if let Some(mut process) = self.process.take() {
            let _ended_before = process.kill();
            let _status = process.wait();
        }
    }

    /// Runs a pod whose cgroups are in `below`, below the guarded one.
    #[must_use]
    pub fn pod(&self, namespace: &str, name: &str, labels: &[(&str, &str)], below: &str) -> Pod {
        let number = self.made.get() + 1;
        self.made.set(number);
        let uid = format!("00000000-0000-4000-8000-{number:012}");
        let parent = self.sandbox.cgroup(below);
        let parent = parent
            .strip_prefix(crate::sandbox::cgroup2_mount())
            .unwrap();
        let own = [
            ("io.kubernetes.pod.namespace", namespace),
            ("io.kubernetes.pod.name", name),
            ("io.kubernetes.pod.uid", uid.as_str()),
        ];
        let labels = labels.iter().copied().chain(own);
        let config = PodConfig {
            metadata: Some(PodMetadata {
                name: name.to_owned(),
                uid: uid.clone(),
                namespace: namespace.to_owned(),
            }),
            log_directory: self.dir.join("logs").display().to_string(),
            labels: labels
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
            linux: Some(LinuxPod {
                cgroup_parent: format!("/{}", parent.display()),
                security: Some(PodSecurity {
                    namespaces: Some(namespaces()),
                }),
            }),
        };
        let request = RunPodSandbox {
            config: Some(config.clone()),
        };
        let Id { id } = self.client().call("RunPodSandbox", request);
        Pod {
            sandbox: self.running(id),
            uid,
            config,
        }
    }

    /// Makes a container of a pod that is not started; its id.
    #[must_use]
    pub fn create(&self, pod: &Pod, name: &str, mounts: &[(&Path, &str)]) -> String {
        let mount = |host: &Path, inside: &Path| Mount {
            container_path: inside.display().to_string(),
            host_path: host.display().to_string(),
            readonly: true,
        };
        let own = container::volumes(self.sandbox);
        let own = own.iter().map(|(host, inside)| mount(host, inside));
        let more = mounts
            .iter()
            .map(|(host, inside)| mount(host, Path::new(inside)));
        let mut labels = pod.config.labels.clone();
        labels.retain(|key, _| key.starts_with("io.kubernetes."));
        let _new = labels.insert("io.kubernetes.container.name".to_owned(), name.to_owned());
        let config = ContainerConfig {
            metadata: Some(Named {
                name: name.to_owned(),
            }),
            image: Some(Named {
                name: IMAGE.to_owned(),
            }),
            command: vec!["/bin/sleep".to_owned(), "1000".to_owned()],
            mounts: own.chain(more).collect(),
            labels,
            linux: Some(LinuxContainer {
                security: Some(ContainerSecurity {
                    namespaces: Some(namespaces()),
                }),
            }),
        };
        let request = CreateContainer {
            pod: pod.sandbox.id.clone(),
            config: Some(config),
            pod_config: Some(pod.config.clone()),
        };
        let Id { id } = self.client().call("CreateContainer", request);
        id
    }

    /// Starts a container.
    #[must_use]
    pub fn start(&self, id: &str) -> Container {
        let request = Id { id: id.to_owned() };
        let () = self.client().call("StartContainer", request);
        self.running(id.to_owned())
    }

    /// Runs a program of the sandbox inside a container.
    #[must_use]
    pub fn exec(&self, container: &Container, program: &str, arguments: &[&str]) -> Running {
        let _copy = self.sandbox.program(program);
        let number = self.made.get() + 1;
        self.made.set(number);
        let mut command = self.ctr(&["tasks", "exec", "--exec-id"]);
        let _ = command
            .arg(format!("exec-{number}"))
            .arg(&container.id)
            .arg(Path::new(PROGRAMS).join(program));
        Running::spawn(command.args(arguments))
    }

    /// Ends a pod and its containers, and removes them.
    pub fn remove(&self, pod: &Pod) {
        self.remove_pod(&pod.sandbox.id);
    }

    fn remove_pod(&self, id: &str) {
        for method in ["StopPodSandbox", "RemovePodSandbox"] {
            let () = self.client().call(method, Id { id: id.to_owned() });
        }
    }

    /// What runs under this id, as containerd's own interface says, which is not the CRI.
    fn running(&self, id: String) -> Container {
        let tasks = output(&mut self.ctr(&["tasks", "ls"]));
        let pid = tasks.lines().find_map(|line| {
            let mut fields = line.split_ascii_whitespace();
            (fields.next()? == id).then(|| fields.next()?.parse().ok())?
        });
        Container::new(id, pid.unwrap_or_else(|| panic!("does not run: {tasks}")))
    }

    fn ctr(&self, arguments: &[&str]) -> Command {
        let mut command = self.mounts.command(self.sandbox, "ctr");
        let _ = command
            .arg("--address")
            .arg(self.socket())
            .arg("--namespace=k8s.io")
            .args(arguments);
        command
    }

    fn client(&self) -> &Client {
        self.client
            .as_ref()
            .unwrap_or_else(|| panic!("containerd is stopped"))
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }
}

impl Drop for Containerd<'_> {
    fn drop(&mut self) {
        // Pods, shims included, end with the sandbox's cgroup; what they mounted goes with the mount namespace.
        self.stop();
    }
}

fn namespaces() -> Namespaces {
    Namespaces {
        network: cri::NODE,
        pid: cri::CONTAINER,
    }
}
