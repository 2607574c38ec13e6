//! Why it is unclear whether the policy of a container's sandbox covers all that the container sends.

use std::sync::{Mutex, PoisonError};

use crate::policy::ContainerReference;

/// What is wrong with the container of a sandbox. The sandbox may have another container later.
#[derive(Debug, Default)]
pub(crate) struct ContainerProblem(Mutex<Option<(ContainerReference, String)>>);

impl ContainerProblem {
    /// Records what is wrong with a container, or that nothing is. Returns whether that is news.
    pub(crate) fn set(&self, container: &ContainerReference, problem: Option<String>) -> bool {
        let problem = problem.map(|problem| (container.clone(), problem));
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = *known != problem;
        *known = problem;
        is_news
    }

    /// What is wrong with this container.
    pub(crate) fn of(&self, container: &ContainerReference) -> Option<String> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (of, problem) = known.as_ref()?;
        (of == container).then(|| problem.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_that_of_one_container() {
        let [web, db] = ["docker:web", "docker:db"].map(|text| text.parse().expect(text));
        let problem = ContainerProblem::default();
        assert!(problem.set(&web, Some("lost".to_owned())));
        assert!(!problem.set(&web, Some("lost".to_owned())));
        assert_eq!((problem.of(&web), problem.of(&db)), (Some("lost".to_owned()), None));
        assert!(problem.set(&web, None));
        assert_eq!(problem.of(&web), None);
    }
}
