//! A server whose binary is replaced under it: its sockets stay whose they are, and lists say who it is itself.

use std::fs;

use ringfence_tests::{
    Agent,
    policy::{policy, workload},
    poll::until,
    scene,
};

use crate::common::assert_held;

#[test]
fn a_server_whose_binary_was_replaced_keeps_its_listeners_and_is_explained() {
    scene("upgraded", |sandbox| {
        let db = sandbox.actor("db");
        let exe = format!("cgroup = \"/db\", exe = \"{}\"", db.program().display());
        let text = workload("db", &exe)
            + &workload("rest", "cgroup = \"/db\"")
            + &policy("rest", "default-deny = [\"egress\"]", &[]);
        let agent = Agent::start(sandbox, &text);
        let mut server = db.puppet();
        let pid = server.pid();
        for order in [
            "socket tcp 10",
            "bind 10 127.0.0.1:5432",
            "listen 10",
            "socket udp 11",
            "bind 11 127.0.0.1:5433",
            "socket tcp 12",
        ] {
            let _ = server.ask(order).expect_ok(order);
        }
        let client = agent.client();
        let who = || {
            let answer = client.explain_process(pid, "", 0).unwrap();
            let process = answer.process.clone().unwrap();
            let others = process.sockets_of_others.iter();
            let others: Vec<_> = others.map(|it| (it.workload.clone(), it.sockets)).collect();
            (process.workload, others, answer)
        };
        let endpoints = || {
            let mut found: Vec<_> = client.endpoints().unwrap();
            found.retain(|it| it.workload == "db");
            found.sort_by_key(|it| it.port);
            found.iter().map(|it| it.port).collect::<Vec<_>>()
        };
        until("the server is judged", || who().0 == "db");
        assert_eq!((who().1, endpoints()), (vec![], vec![5432, 5433]));

        let new = sandbox.files().join("new");
        let _bytes = fs::copy(db.program(), &new).unwrap();
        fs::rename(&new, db.program()).unwrap();
        until("the replacement is noticed", || who().0 != "db");
        let (name, others, answer) = who();
        assert_eq!(name, "pending");
        assert!(
            answer
                .reason
                .starts_with("the file that it runs was replaced or removed")
                && answer.reason.ends_with("by the selectors it will be rest"),
            "{answer:#?}"
        );
        assert_eq!(others, [("db".to_owned(), 2)]);
        assert!(
            answer
                .notes
                .iter()
                .any(|note| note.starts_with("of its sockets 2 are of db")),
            "{answer:#?}"
        );
        assert_eq!(endpoints(), [5432, 5433]);
        let held = client.processes(&["db"]).unwrap();
        let held: Vec<_> = held
            .iter()
            .map(|it| (it.pid, it.workload.as_str()))
            .collect();
        assert_eq!(held, [(pid, "pending")], "it holds sockets of db");

        // A new socket brings the judgement about, and is the rest's.
        assert_held("the old file", &server.ask("connect 12 127.0.0.1:81"));
        until("the old file is judged", || who().0 == "rest");
        let (_, others, answer) = who();
        assert_eq!(others, [("db".to_owned(), 2)], "{answer:#?}");
        assert_eq!(endpoints(), [5432, 5433]);

        // A change of the policy finds owners anew: these stay.
        agent.set_policy(&(text.clone() + &workload("other", "cgroup = \"/other\"")));
        assert_eq!(endpoints(), [5432, 5433]);
        // And the new file is the workload.
        let next = db.serve(&["tcp", "127.0.0.1:5434"]);
        until("the new file is judged", || {
            endpoints() == [5432, 5433, 5434]
        });
        drop(next);
        agent.assert_counters();
    });
}
