//! Both clients against servers that answer, stall, lie and go away.
#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

mod cri;
mod docker;
mod fake;
mod hosts;
mod service_account;

use std::{collections::BTreeMap, path::Path};

use tokio::sync::{mpsc, watch};

use super::*;

/// An id that no fixture has.
const OTHER: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// The user who runs the tests, whom they take for root.
fn own() -> u32 {
    nix::unistd::geteuid().as_raw()
}

/// Sockets that are named in the configuration.
fn named(docker: &[&Path], cri: &[&Path]) -> Settings {
    let paths = |sockets: &[&Path]| Some(sockets.iter().map(|path| path.to_path_buf()).collect());
    Settings::new(paths(docker), paths(cri)).trusting(own())
}

/// The same sockets, as if they were the well-known ones.
fn well_known(docker: &[&Path], cri: &[&Path]) -> Settings {
    let mut settings = named(docker, cri);
    for source in &mut settings.sources {
        source.named = false;
    }
    settings
}

/// A running task to which questions can be put.
struct Asker {
    questions: mpsc::Sender<Question>,
    answers: mpsc::Receiver<Answer>,
    state: watch::Receiver<Vec<RuntimeState>>,
}

impl Asker {
    fn new(settings: Settings) -> Self {
        let (questions, from) = mpsc::channel(64);
        let (to, answers) = mpsc::channel(64);
        let (tell, state) = watch::channel(Vec::new());
        let _task = tokio::spawn(run(settings, from, to, tell));
        Self {
            questions,
            answers,
            state,
        }
    }

    async fn ask(&mut self, id: &str) -> Outcome {
        let question = Question::new(7, id).unwrap();
        self.questions.send(question).await.unwrap();
        let answer = self.answers.recv().await.unwrap();
        assert_eq!((answer.cgroup, answer.id.as_str()), (7, id));
        answer.outcome
    }

    fn states(&self) -> Vec<State> {
        let states = self.state.borrow();
        states.iter().map(|it| it.state.clone()).collect()
    }
}

/// One question to a fresh task.
async fn outcome(settings: Settings, id: &str) -> Outcome {
    Asker::new(settings).ask(id).await
}

#[track_caller]
fn found(outcome: Outcome) -> (u32, Facts) {
    let Outcome::Found { pid, facts } = outcome else {
        panic!("{outcome:?}");
    };
    (pid, facts)
}

#[track_caller]
fn assert_failed(outcome: &Outcome, why: &str) {
    let Outcome::Failed(text) = outcome else {
        panic!("{outcome:?}, expected {why}");
    };
    assert!(text.contains(why), "{text}, expected {why}");
}

fn facts(pairs: &[(&str, &str)]) -> Facts {
    let pairs = pairs.iter().map(|(key, value)| (*key, *value));
    pairs
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect::<BTreeMap<_, _>>()
}

#[test]
fn a_question_holds_an_id_as_runtimes_write_it() {
    assert!(Question::new(1, OTHER).is_some());
    let upper = OTHER.to_uppercase();
    let long = format!("{OTHER}0");
    for bad in [
        "",
        "abc",
        &upper,
        &long,
        "../json?x=0123456789abcdef0123456789abcdef0123456789abcdef0123456",
    ] {
        assert_eq!(Question::new(1, bad), None, "{bad}");
    }
}

#[tokio::test]
async fn an_id_that_was_not_checked_is_not_sent() {
    let mut asker = Asker::new(named(&[Path::new("/nowhere/docker.sock")], &[]));
    let question = Question {
        cgroup: 1,
        id: "x/json HTTP/1.1\r\n".to_owned(),
    };
    asker.questions.send(question).await.unwrap();
    let answer = asker.answers.recv().await.unwrap();
    assert_eq!(answer.outcome, Outcome::Absent);
    let untouched = State::Failed("no such socket".to_owned());
    assert_eq!(asker.states(), [untouched]);
}
