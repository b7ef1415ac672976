//! What real runtimes tell the agent about real containers.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use ringfence_agent::runtime::{
    Answer, Facts, Outcome, Question, RuntimeState, Settings, State, run,
};
use ringfence_tests::{
    Container, Containerd, Podman,
    containerd::{IMAGE, SERVICE_ACCOUNT},
    podman::Spec,
    scene,
};
use tokio::{
    runtime::Runtime,
    sync::{mpsc, watch},
};

const NOBODY: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// The task under test.
struct Asker {
    runtime: Runtime,
    questions: mpsc::Sender<Question>,
    answers: mpsc::Receiver<Answer>,
    state: watch::Receiver<Vec<RuntimeState>>,
}

impl Asker {
    fn new(docker: &[&Path], cri: &[&Path]) -> Self {
        let paths = |paths: &[&Path]| Some(paths.iter().map(PathBuf::from).collect());
        let settings = Settings::new(paths(docker), paths(cri));
        let runtime = Runtime::new().unwrap();
        let (questions, from) = mpsc::channel(1);
        let (to, answers) = mpsc::channel(1);
        let (tell, state) = watch::channel(Vec::new());
        let _task = runtime.spawn(run(settings, from, to, tell));
        Self {
            runtime,
            questions,
            answers,
            state,
        }
    }

    fn ask(&mut self, id: &str) -> Outcome {
        let question = Question::new(1, id).unwrap();
        let answer = self.runtime.block_on(async {
            self.questions.send(question).await.unwrap();
            self.answers.recv().await
        });
        answer.unwrap().outcome
    }

    /// The facts of a container that is found and runs.
    #[track_caller]
    fn facts(&mut self, container: &Container) -> Facts {
        let outcome = self.ask(&container.id);
        let Outcome::Found { pid, facts } = outcome else {
            panic!("{container:?}: {outcome:?}");
        };
        assert_eq!(pid, container.pid, "{container:?}");
        facts
    }
}

fn facts<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Facts {
    let pairs = pairs.into_iter();
    pairs
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect::<BTreeMap<_, _>>()
}

#[track_caller]
fn assert_failed(outcome: &Outcome, why: &str) {
    assert!(
        matches!(outcome, Outcome::Failed(text) if text.contains(why)),
        "{outcome:?}, expected {why}"
    );
}

#[test]
fn podman_tells_what_its_containers_are() {
    scene("runtime-podman", |sandbox| {
        let mut podman = Podman::new(sandbox);
        podman.import("localhost/web:1");
        let labels = [("app", "web"), ("com.example/tier", "front")];
        let web = Spec {
            labels: &labels,
            image: Some("localhost/web:1"),
            ..Spec::default()
        };
        let web = podman.run("web", &web);
        let plain = podman.run("plain", &Spec::default());
        let created = podman.create("created");
        let socket = podman.serve();
        let mut asker = Asker::new(&[&socket], &[]);
        let digest = podman.inspect("localhost/web:1", "{{.Digest}}");
        let expected = [
            ("container.name", "web"),
            ("container.image", "localhost/web:1"),
            ("container.image-digest", &digest),
            ("container.label.app", "web"),
            ("container.label.com.example/tier", "front"),
        ];
        assert_eq!(asker.facts(&web), facts(expected));
        let expected = facts([("container.name", "plain")]);
        assert_eq!(asker.facts(&plain), expected);
        let expected = Outcome::Found {
            pid: 0,
            facts: facts([("container.name", "created")]),
        };
        assert_eq!(asker.ask(&created), expected);
        assert_eq!(asker.ask(NOBODY), Outcome::Absent);
        podman.remove(&web);
        assert_eq!(asker.ask(&web.id), Outcome::Absent);
        podman.stop();
        assert_failed(&asker.ask(&plain.id), "is the runtime running?");
        fs::remove_file(&socket).unwrap();
        assert_failed(&asker.ask(&plain.id), "no such socket");
        let _socket = podman.serve();
        let _facts = asker.facts(&plain);
        let state = asker.state.borrow().first().unwrap().clone();
        assert_eq!((state.state, state.answered), (State::Ok, 4));
    });
}

#[test]
fn containerd_tells_what_its_containers_and_their_pods_are() {
    scene("runtime-containerd", |sandbox| {
        let mut containerd = Containerd::new(sandbox);
        let labels = [("app", "web"), ("app.kubernetes.io/part-of", "shop")];
        let pod = containerd.pod("shop", "web-0", &labels, "/kubepods/pod1");
        let volume = sandbox
            .files()
            .join("pods")
            .join(&pod.uid)
            .join("volumes/kubernetes.io~projected/kube-api-access-x7v2k");
        fs::create_dir_all(&volume).unwrap();
        // {"kubernetes.io":{"namespace":"shop","serviceaccount":{"name":"payments"}}}
        let claims = "eyJrdWJlcm5ldGVzLmlvIjp7Im5hbWVzcGFjZSI6InNob3AiLCJzZXJ2aWNlYWNjb3VudCI6eyJuYW1lIjoicGF5bWVudHMifX19";
        fs::write(volume.join("token"), format!("e30.{claims}.e30")).unwrap();
        let socket = containerd.socket();
        let mut asker = Asker::new(&[], &[&socket]);

        let of_pod = [
            ("k8s.namespace", "shop"),
            ("k8s.pod-name", "web-0"),
            ("k8s.pod-label.app", "web"),
            ("k8s.pod-label.app.kubernetes.io/part-of", "shop"),
            ("k8s.pod-label.io.kubernetes.pod.name", "web-0"),
            ("k8s.pod-label.io.kubernetes.pod.namespace", "shop"),
            ("k8s.pod-label.io.kubernetes.pod.uid", &pod.uid),
        ];
        assert_eq!(asker.facts(&pod.sandbox), facts(of_pod));
        let of_container = [
            ("container.name", "web"),
            ("container.image", IMAGE),
            ("container.label.io.kubernetes.container.name", "web"),
            ("container.label.io.kubernetes.pod.name", "web-0"),
            ("container.label.io.kubernetes.pod.namespace", "shop"),
            ("container.label.io.kubernetes.pod.uid", &pod.uid),
            ("k8s.service-account", "payments"),
        ];
        let expected = facts(of_pod.into_iter().chain(of_container));
        let id = containerd.create(&pod, "web", &[(&volume, SERVICE_ACCOUNT)]);
        let created = Outcome::Found {
            pid: 0,
            facts: expected.clone(),
        };
        assert_eq!(asker.ask(&id), created);
        let web = containerd.start(&id);
        assert_eq!(asker.facts(&web), expected);
        for container in [&pod.sandbox, &web] {
            let cgroup = sandbox.guarded().join("kubepods/pod1").join(&container.id);
            assert_eq!(container.cgroup, cgroup);
        }
        assert_eq!(asker.ask(NOBODY), Outcome::Absent);

        let mut server = containerd.exec(&web, "server", &["serve", "tcp", "127.0.0.1:80"]);
        let _ready = server.line().expect_ok("a server in a container");
        let call = sandbox.actor("client").tcp("127.0.0.1:80", &[]);
        let _answer = call.expect_ok("a call into a container");
        drop(server);

        containerd.stop();
        assert_failed(&asker.ask(&web.id), "is the runtime running?");
        containerd.serve();
        assert_eq!(asker.facts(&web), expected);
        containerd.remove(&pod);
        assert_eq!(asker.ask(&web.id), Outcome::Absent);
        assert_eq!(asker.ask(&pod.sandbox.id), Outcome::Absent);
    });
}

#[test]
fn each_of_two_runtimes_is_asked() {
    scene("runtime-both", |sandbox| {
        let mut podman = Podman::new(sandbox);
        let containerd = Containerd::new(sandbox);
        let web = podman.run("web", &Spec::default());
        let pod = containerd.pod("shop", "web-0", &[], "/kubepods/pod1");
        let mut asker = Asker::new(&[&podman.serve()], &[&containerd.socket()]);
        let name = |facts: &Facts, key: &str| facts.get(key).cloned();
        let of_web = asker.facts(&web);
        assert_eq!(name(&of_web, "container.name").as_deref(), Some("web"));
        let of_pod = asker.facts(&pod.sandbox);
        assert_eq!(name(&of_pod, "k8s.pod-name").as_deref(), Some("web-0"));
        assert_eq!(asker.ask(NOBODY), Outcome::Absent);
        podman.stop();
        let _facts = asker.facts(&pod.sandbox);
        assert_failed(&asker.ask(NOBODY), "podman.sock: ");
    });
}

#[test]
fn a_socket_of_root_that_another_user_serves_is_not_asked() {
    scene("runtime-stranger", |sandbox| {
        let socket = sandbox.files().join("runtime.sock");
        let listen = ["unix-listen", &socket.display().to_string(), "65534"];
        let mut stranger = sandbox.actor("stranger").start(&listen);
        let _ready = stranger.line().expect_ok("a server that is not root");
        for (docker, cri) in [(vec![&*socket], vec![]), (vec![], vec![&*socket])] {
            let outcome = Asker::new(&docker, &cri).ask(NOBODY);
            assert_failed(&outcome, "who serves the socket is user 65534");
        }
    });
}
