//! Hosts with several runtimes, and with runtimes that come and go.

use std::{sync::atomic::Ordering, time::Duration};

use super::{
    cri::{CONTAINER, runtime},
    docker::{DOCKER, DOCKER_ID, DOCKER_IMAGE, DOCKER_PID, serving},
    fake::{Cri, Fake, http, no_such_container},
    *,
};

fn docker() -> Fake {
    Fake::raw(serving(DOCKER, DOCKER_IMAGE))
}

#[tokio::test]
async fn one_runtime_has_it_although_others_fail_or_do_not() {
    let [docker, nobody] = [docker(), Fake::raw(|_| no_such_container())];
    let broken = Fake::raw(|_| http("500 Oops", ""));
    let sockets = [broken.path(), docker.path(), nobody.path()];
    let mut asker = Asker::new(named(&sockets, &[]));
    assert_eq!(found(asker.ask(DOCKER_ID).await).0, DOCKER_PID);
    let outcome = asker.ask(OTHER).await;
    assert_failed(
        &outcome,
        &format!("{}: the answer is 500", broken.path().display()),
    );
    let states = asker.state.borrow().clone();
    let [first, second, third] = states.as_slice() else {
        panic!("{states:?}");
    };
    assert!(matches!(first.state, State::Failed(_)), "{states:?}");
    assert_eq!((&second.state, second.answered), (&State::Ok, 1));
    assert_eq!((&third.state, third.answered), (&State::Ok, 0));
    assert_eq!(
        (second.socket.as_path(), second.kind),
        (docker.path(), Kind::Docker)
    );
}

#[tokio::test]
async fn the_runtime_that_knows_the_pod_is_believed_before_the_one_that_is_faster() {
    let same = DOCKER.replace(DOCKER_ID, CONTAINER);
    let docker = Fake::raw(serving(&same, DOCKER_IMAGE));
    let pause = Duration::from_millis(300);
    let cri = Fake::cri(Cri { pause, ..runtime() });
    let (_, known) = found(outcome(named(&[docker.path()], &[cri.path()]), CONTAINER).await);
    assert_eq!(known.get("container.name").unwrap(), "web");
    assert_eq!(known.get("k8s.namespace").unwrap(), "shop");
    // It is not waited for beyond the deadline.
    let pause = Duration::from_secs(60);
    let cri = Fake::cri(Cri { pause, ..runtime() });
    let (_, known) = found(outcome(named(&[docker.path()], &[cri.path()]), CONTAINER).await);
    assert_eq!(known.get("container.name").unwrap(), "shop-web-1");
}

#[tokio::test]
async fn a_socket_that_is_not_there_fails_only_where_it_should_be() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("no/docker.sock");
    let mut asker = Asker::new(well_known(&[&missing], &[&missing]));
    assert_eq!(asker.ask(OTHER).await, Outcome::Absent);
    assert_eq!(asker.states(), [State::Absent, State::Absent]);
    assert_failed(
        &outcome(named(&[&missing], &[]), OTHER).await,
        "no such socket",
    );
    assert_eq!(outcome(named(&[], &[]), OTHER).await, Outcome::Absent);
}

#[tokio::test]
async fn a_runtime_that_was_there_is_missed_and_welcome_back() {
    let fake = docker();
    let path = fake.path().to_owned();
    let mut asker = Asker::new(well_known(&[&path], &[]));
    let _before = found(asker.ask(DOCKER_ID).await);
    let fake = fake.replaced(|_| Vec::new());
    std::fs::remove_file(&path).unwrap();
    assert_failed(&asker.ask(DOCKER_ID).await, "no such socket");
    assert_eq!(asker.states(), [State::Failed("no such socket".to_owned())]);
    // The file of a runtime that has ended refuses.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert_failed(&asker.ask(DOCKER_ID).await, "is the runtime running?");
    let _back = fake.replaced(serving(DOCKER, DOCKER_IMAGE));
    let _after = found(asker.ask(DOCKER_ID).await);
    assert_eq!(asker.states(), [State::Ok]);
    assert_eq!(asker.state.borrow().first().unwrap().answered, 2);
}

#[tokio::test]
async fn sixteen_questions_are_under_way_at_a_time_and_none_is_forgotten() {
    let fake = Fake::raw_after(Duration::from_millis(50), |_| no_such_container());
    let mut asker = Asker::new(named(&[fake.path()], &[]));
    for cgroup in 0..60 {
        let question = Question::new(cgroup, OTHER).unwrap();
        asker.questions.send(question).await.unwrap();
    }
    let (closed, _) = mpsc::channel(1);
    asker.questions = closed;
    let mut seen = Vec::new();
    // It ends when there are no more questions, and answers those that there were.
    while let Some(answer) = asker.answers.recv().await {
        assert_eq!(answer.outcome, Outcome::Absent);
        seen.push(answer.cgroup);
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..60).collect::<Vec<u64>>());
    let most = fake.most.load(Ordering::SeqCst);
    assert!((2..=16).contains(&most), "{most}");
}

#[tokio::test]
async fn who_stops_taking_answers_ends_it() {
    let fake = Fake::raw(|_| no_such_container());
    let Asker {
        questions,
        answers,
        state,
    } = Asker::new(named(&[fake.path()], &[]));
    drop(answers);
    questions
        .send(Question::new(1, OTHER).unwrap())
        .await
        .unwrap();
    questions.closed().await;
    drop(state);
}
