//! One question to every runtime at once.

use std::{fmt::Display, sync::Arc, time::Duration};

use ringfence_proto::limits;
use tokio::{task::JoinSet, time::timeout};

use super::{
    Facts, Kind, cri, docker,
    settings::{Settings, Source},
};

/// How long a runtime may take for the answer to one question, connecting included.
const DEADLINE: Duration = Duration::from_secs(2);
/// Bytes of one message of a runtime. An answer of an ordinary container has some 10 KiB.
pub(super) const MAX_BODY: usize = 4 << 20;

/// A container that a runtime has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub pid: u32,
    pub facts: Facts,
}

/// Why a runtime did not name a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Miss {
    /// It has no container of this id.
    Absent,
    /// There is no such runtime; one sentence.
    NotThere(String),
    /// It can't be asked, or its answer can't be used; one sentence.
    Failed(String),
}

impl Miss {
    /// Text of a runtime is clipped, and `Debug` keeps control characters out of the log.
    pub(super) fn said(what: &str, text: &str) -> Self {
        Self::Failed(format!("{what}: {:?}", limits::clip_error(text)))
    }

    pub(super) fn garbled(error: &impl Display) -> Self {
        Self::said("the answer can't be read", &error.to_string())
    }
}

/// What a runtime made of a question.
pub(super) type Reply = Result<Found, Miss>;

/// One reply for each source, in their order; `None` where a better source had the answer already.
pub(super) async fn ask(settings: &Settings, id: Arc<str>) -> Vec<Option<Reply>> {
    let mut replies = vec![None; settings.sources.len()];
    let mut asked = JoinSet::new();
    for (index, source) in settings.sources.iter().cloned().enumerate() {
        let (id, owner) = (Arc::clone(&id), settings.owner);
        let _task = asked.spawn(async move { (index, within(&source, owner, &id).await) });
    }
    while let Some(ended) = asked.join_next().await {
        if let Ok((index, reply)) = ended
            && let Some(slot) = replies.get_mut(index)
        {
            *slot = Some(reply);
        }
        // Not the first to answer wins but the best, or one container could have different facts at different times.
        let mut answered = replies.iter().map_while(Option::as_ref);
        if answered.any(Result::is_ok) {
            return replies;
        }
    }
    // A task that ended without a reply does not mean that nobody has it.
    for slot in &mut replies {
        let _reply =
            slot.get_or_insert_with(|| Err(Miss::Failed("asking it broke off".to_owned())));
    }
    replies
}

async fn within(source: &Source, owner: u32, id: &str) -> Reply {
    let asked = async {
        match source.kind {
            Kind::Docker => docker::ask(&source.path, owner, id).await,
            Kind::Cri => cri::ask(&source.path, owner, id).await,
        }
    };
    let late = || Miss::Failed(format!("no answer within {} s", DEADLINE.as_secs()));
    timeout(DEADLINE, asked).await.map_err(|_elapsed| late())?
}
