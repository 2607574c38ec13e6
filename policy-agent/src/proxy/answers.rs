//! What DNS has answered about names: kept as long as it holds, and asked for once, however many
//! connections wait for it.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::OnceCell;

use crate::policy::Name;

/// Names that are remembered, of each family. A sandbox that may ask for any name can ask for new
/// ones for ever.
const REMEMBERED: usize = 8192;

/// The addresses of a name, of one family.
pub type Addresses = Arc<[IpAddr]>;

/// An answer, be it that there is none.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The addresses.
    pub addresses: Addresses,
    /// Until when it holds.
    pub until: Instant,
}

/// A question, and its answer once that is there.
#[derive(Debug)]
pub struct Question {
    asked: Instant,
    answer: OnceCell<Answer>,
}

impl Question {
    fn new() -> Arc<Self> {
        Arc::new(Self { asked: Instant::now(), answer: OnceCell::new() })
    }

    /// The answer that is there.
    pub fn answered(&self) -> Option<Addresses> {
        self.answer.get().map(|answer| Arc::clone(&answer.addresses))
    }

    /// The answer; one of those who wait for it asks.
    pub async fn answer(&self, ask: impl Future<Output = Answer>) -> Addresses {
        Arc::clone(&self.answer.get_or_init(|| ask).await.addresses)
    }

    /// How long ago somebody began to ask.
    pub fn age(&self) -> Duration {
        self.asked.elapsed()
    }

    fn is_current(&self, now: Instant) -> bool {
        self.answer.get().is_none_or(|answer| answer.until > now)
    }
}

/// The answers about one family.
#[derive(Debug, Default)]
pub struct Answers(Mutex<HashMap<Name, Arc<Question>>>);

impl Answers {
    /// The question for a name: one that holds or is being asked, or a new one.
    pub fn question(&self, name: &Name) -> Arc<Question> {
        let (mut questions, now) = (self.lock(), Instant::now());
        if let Some(known) = questions.get(name).filter(|known| known.is_current(now)) {
            return Arc::clone(known);
        }
        if questions.len() >= REMEMBERED {
            make_room(&mut questions, now);
        }
        let new = Question::new();
        questions.insert(name.clone(), Arc::clone(&new));
        new
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Name, Arc<Question>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forgets what does not hold any more; if that is little, half of the rest, whichever: a map that
/// is full of what one sandbox asks for must not be searched at each of its questions.
fn make_room(questions: &mut HashMap<Name, Arc<Question>>, now: Instant) {
    questions.retain(|_, question| question.is_current(now));
    let mut turn = 0;
    if questions.len() > REMEMBERED / 2 {
        questions.retain(|_, _| {
            turn += 1;
            turn % 2 == 0
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn name(text: &str) -> Name {
        Name::parse(text).expect(text)
    }

    fn answer(held: Duration) -> Answer {
        Answer { addresses: [IpAddr::from([192, 0, 2, 7])].into(), until: Instant::now() + held }
    }

    #[tokio::test]
    async fn many_who_wait_are_answered_at_once() {
        let (answers, asked) = (Arc::new(Answers::default()), Arc::new(AtomicUsize::new(0)));
        let mut waiting = tokio::task::JoinSet::new();
        for _ in 0..100 {
            let (answers, asked) = (Arc::clone(&answers), Arc::clone(&asked));
            waiting.spawn(async move {
                let ask = async {
                    asked.fetch_add(1, Ordering::Relaxed);
                    tokio::task::yield_now().await;
                    answer(Duration::from_secs(60))
                };
                answers.question(&name("a.example")).answer(ask).await.len()
            });
        }
        assert_eq!(waiting.join_all().await, [1; 100]);
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn who_gives_up_leaves_the_question_to_the_next() {
        let question = Answers::default().question(&name("a.example"));
        let mut first = Box::pin(question.answer(std::future::pending()));
        assert!(futures_util::poll!(&mut first).is_pending());
        drop(first);
        let answered = question.answer(async { answer(Duration::from_secs(60)) }).await;
        assert_eq!(answered.len(), 1);
    }

    #[tokio::test]
    async fn what_does_not_hold_any_more_is_asked_again() {
        let answers = Answers::default();
        let first = answers.question(&name("a.example"));
        first.answer(async { answer(Duration::ZERO) }).await;
        let second = answers.question(&name("a.example"));
        assert!(second.answered().is_none());
        second.answer(async { answer(Duration::from_secs(60)) }).await;
        assert!(answers.question(&name("a.example")).answered().is_some());
        assert!(answers.question(&name("b.example")).answered().is_none());
    }

    #[test]
    fn they_do_not_grow_without_bound() {
        let answers = Answers::default();
        for number in 0..3 * REMEMBERED {
            answers.question(&name(&format!("n{number}.example")));
            assert!(answers.lock().len() <= REMEMBERED);
        }
    }
}
