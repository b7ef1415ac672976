//! Containers of a real podman: the scene that other tests build on.

use std::fs;

use ringfence_tests::{Podman, podman::Spec, scene};

#[test]
fn containers_of_podman_run_below_the_guarded_cgroup() {
    let own_cgroup = || fs::read_to_string("/proc/self/cgroup").unwrap();
    let before = own_cgroup();
    scene("podman-scene", |sandbox| {
        let podman = Podman::new(sandbox);
        podman.import("localhost/web:1");
        let plain = podman.run("plain", &Spec::default());
        let web = podman.run(
            "web",
            &Spec {
                labels: &[("app", "web")],
                below: "/machine",
                image: Some("localhost/web:1"),
                ..Spec::default()
            },
        );
        for (container, below) in [(&plain, ""), (&web, "machine")] {
            let expected = sandbox.guarded().join(below);
            let name = format!("libpod-{}", container.id);
            assert_eq!(container.cgroup, expected.join(name), "{container:?}");
        }
        // They reach each other over the sandbox's network, and nothing beyond it.
        let mut server = podman.exec(&web, "server", &["serve", "tcp", "127.0.0.1:80"]);
        let _ready = server.line().expect_ok("a server in a container");
        let call = podman.exec(&plain, "client", &["call", "tcp", "127.0.0.1:80"]);
        let _answer = call.last().expect_ok("a call between containers");
        podman.remove(&web);
        assert!(!web.cgroup.exists());
    });
    assert_eq!(own_cgroup(), before, "podman moved processes of the host");
}
