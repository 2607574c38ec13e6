//! Changes that wait for their turn, and then share it: what the kernel makes each wait for, it makes
//! all of them wait for once.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, PoisonError},
};

use tokio::sync::oneshot;

use super::{
    change::{Candidate, Change},
    error::Error,
    reconciler::{Outcomes, Reconciler},
};
use crate::policy::{NetworkConfig, SandboxId, SandboxSpec};

/// How many requests share a turn.
const AT_ONCE: usize = 64;

/// What somebody asks to be changed.
pub enum Request {
    /// Create or replace sandboxes, all of which are checked before the first is changed.
    Apply {
        /// The sandboxes.
        specs: Vec<SandboxSpec>,
        /// Whether they may be on an interface that the host needs for itself.
        force: bool,
    },
    /// Replace the egress fields of a sandbox.
    Network(String, Box<NetworkConfig>),
}

type Answer = Result<Outcomes, Error>;

/// Requests, in the order in which they came.
#[derive(Default)]
pub struct Queue(Mutex<VecDeque<(Request, oneshot::Sender<Answer>)>>);

impl Queue {
    /// Adds a request.
    pub fn push(&self, request: Request) -> oneshot::Receiver<Answer> {
        let (answer, answered) = oneshot::channel();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back((request, answer));
        answered
    }

    /// Does what has been asked for, if it has not been done in somebody else's turn. Of who has gone
    /// before it began nothing is done.
    pub fn serve(&self, reconciler: &mut Reconciler) {
        let (requests, answers): (Vec<_>, Vec<_>) = {
            let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.retain(|(_, answer)| !answer.is_closed());
            let some = waiting.len().min(AT_ONCE);
            waiting.drain(..some).unzip()
        };
        for (answer, outcome) in answers.into_iter().zip(reconciler.change_all(requests)) {
            let _ = answer.send(outcome); // they may have gone by now
        }
    }
}

/// Changes that are made ready and not yet in force.
#[derive(Default)]
struct Batch {
    staged: Vec<Change>,
    /// The number of the request that each is of.
    requests: BTreeMap<SandboxId, usize>,
}

impl Reconciler {
    /// Does what is asked for, in this order as far as anybody can tell.
    pub(super) fn change_all(&mut self, requests: Vec<Request>) -> Vec<Answer> {
        let mut answers = Vec::with_capacity(requests.len());
        let mut batch = Batch::default();
        for (number, request) in requests.into_iter().enumerate() {
            if !self.may_join(&request, &batch) {
                self.carry_out(&mut batch, &mut answers);
            }
            answers.push(self.candidates(request).map(|candidates| {
                let mut refused = Outcomes::new();
                for candidate in candidates {
                    let id = candidate.head.sandbox_id.clone();
                    match self.stage(candidate, None) {
                        Ok(change) => {
                            batch.requests.insert(id, number);
                            batch.staged.push(change);
                        }
                        Err(error) => refused.push((id, Err(error))),
                    }
                }
                refused
            }));
        }
        self.carry_out(&mut batch, &mut answers);
        answers
    }

    /// Whether a request needs to know nothing of what is in the batch: it is about other sandboxes,
    /// and none that moves to an interface, which may be taken by then.
    fn may_join(&self, request: &Request, batch: &Batch) -> bool {
        match request {
            Request::Network(id, _) => !batch.requests.contains_key(id.as_str()),
            Request::Apply { specs, .. } => specs.iter().all(|spec| {
                let known = self.table.get(&spec.sandbox_id);
                let stays = known.is_some_and(|sandbox| sandbox.is_where(spec));
                stays && !batch.requests.contains_key(&spec.sandbox_id)
            }),
        }
    }

    fn candidates(&mut self, request: Request) -> Result<Vec<Candidate>, Error> {
        match request {
            Request::Apply { specs, force } => self.check(specs, force),
            Request::Network(id, update) => Ok(vec![self.check_update(&id, &update)?]),
        }
    }

    fn carry_out(&mut self, batch: &mut Batch, answers: &mut [Answer]) {
        let Batch { staged, requests } = std::mem::take(batch);
        let mut outcomes = Outcomes::new();
        self.commit(staged, &mut outcomes);
        for (id, outcome) in outcomes {
            let number = requests.get(&id);
            if let Some(Ok(answer)) = number.and_then(|number| answers.get_mut(*number)) {
                answer.push((id, outcome));
            }
        }
    }
}
