//! The task that takes questions and gives answers.

use std::sync::Arc;

use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};

use super::{
    Answer, Outcome, Question, RuntimeState, State,
    ask::{self, Miss, Reply},
    is_id,
    settings::{Settings, Source},
    socket,
};

/// Questions that are under way at a time; the others wait in the order in which they came.
const CONCURRENT: usize = 16;

/// Answers `questions` until they end and all are answered, or until nobody takes `answers`. `state` is told how the
/// runtimes are, at the start and after every question.
///
/// Who asks must take answers while it waits for room in `questions`: when nobody takes answers, no more questions are taken.
pub async fn run(
    settings: Settings,
    mut questions: mpsc::Receiver<Question>,
    answers: mpsc::Sender<Answer>,
    state: watch::Sender<Vec<RuntimeState>>,
) {
    let settings = Arc::new(settings);
    let mut runtimes = Runtimes::new(&settings).await;
    let _before = state.send_replace(runtimes.states());
    let mut asked = JoinSet::new();
    let mut open = true;
    while open || !asked.is_empty() {
        tokio::select! {
            question = questions.recv(), if open && asked.len() < CONCURRENT => match question {
                Some(question) => {
                    let settings = Arc::clone(&settings);
                    let _task = asked.spawn(async move {
                        let replies = replies(&settings, &question.id).await;
                        (question, replies)
                    });
                }
                None => open = false,
            },
            Some(ended) = asked.join_next() => {
                // A question that panicked has no answer; nothing in here panics.
                let Ok((Question { cgroup, id }, replies)) = ended else {
                    continue;
                };
                let outcome = runtimes.outcome(replies);
                let _before = state.send_replace(runtimes.states());
                if answers.send(Answer { cgroup, id, outcome }).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// The id becomes part of a request: one that was not checked is nobody's.
async fn replies(settings: &Settings, id: &str) -> Vec<Option<Reply>> {
    if is_id(id) {
        ask::ask(settings, id.into()).await
    } else {
        Vec::new()
    }
}

/// What is known about each runtime, in the order of preference.
struct Runtimes(Vec<Runtime>);

struct Runtime {
    state: RuntimeState,
    /// It must be there: it is named in the configuration, or was there before.
    expected: bool,
}

impl Runtimes {
    /// Looks who is there.
    async fn new(settings: &Settings) -> Self {
        let mut runtimes = Vec::new();
        for Source { kind, path, named } in settings.sources.clone() {
            let there = socket::open(&path, settings.owner).await;
            let state = RuntimeState {
                socket: path,
                kind,
                state: State::Absent,
                answered: 0,
            };
            let mut runtime = Runtime {
                state,
                expected: named,
            };
            runtime.state.state = match there {
                Ok(_stream) => State::Ok,
                Err(miss) => runtime.miss(miss),
            };
            runtimes.push(runtime);
        }
        Self(runtimes)
    }

    fn states(&self) -> Vec<RuntimeState> {
        self.0.iter().map(|it| it.state.clone()).collect()
    }

    /// Found wins; else whoever failed is named; else nobody has it.
    fn outcome(&mut self, replies: Vec<Option<Reply>>) -> Outcome {
        let mut found = None;
        let mut failed = Vec::new();
        for (runtime, reply) in self.0.iter_mut().zip(replies) {
            match reply {
                // Not needed any more.
                None => {}
                Some(Ok(container)) => {
                    runtime.state.state = State::Ok;
                    runtime.state.answered += 1;
                    runtime.expected = true;
                    let _first = found.get_or_insert(container);
                }
                Some(Err(miss)) => {
                    runtime.state.state = runtime.miss(miss);
                    if let State::Failed(why) = &runtime.state.state {
                        failed.push(format!("{}: {why}", runtime.state.socket.display()));
                    }
                }
            }
        }
        match found {
            Some(container) => Outcome::Found {
                pid: container.pid,
                facts: container.facts,
            },
            None if failed.is_empty() => Outcome::Absent,
            None => Outcome::Failed(failed.join("; ")),
        }
    }
}

impl Runtime {
    fn miss(&mut self, miss: Miss) -> State {
        match miss {
            Miss::Absent => {
                self.expected = true;
                State::Ok
            }
            Miss::NotThere(_) if !self.expected => State::Absent,
            Miss::NotThere(why) | Miss::Failed(why) => State::Failed(why),
        }
    }
}
