//! Races connection attempts: the first to succeed wins (RFC 8305, 5). The egress proxy dials the
//! addresses of a name this way, and the gateway those of a sandbox.

use std::{
    future::poll_fn,
    io,
    net::IpAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::timeout;

/// Alternates between IPv6 and IPv4, so that a broken family costs one attempt (RFC 8305, 4).
#[must_use]
pub fn interleave_families(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let of_family = |v6: bool| addresses.iter().filter(move |address| address.is_ipv6() == v6);
    let (mut v6, mut v4) = (of_family(true), of_family(false));
    let mut mixed = Vec::with_capacity(addresses.len());
    while mixed.len() < addresses.len() {
        mixed.extend(v6.next());
        mixed.extend(v4.next());
    }
    mixed
}

/// One connection attempt.
pub type ConnectAttempt<'a, T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send + 'a>>;

/// Starts one attempt after the other: the next one as soon as all earlier ones have failed or
/// `attempt_delay` has passed. Returns the index and the result of the first attempt to succeed.
/// After a "connection refused", the attempts still running get `grace` to finish. With `None` they
/// have no time limit.
///
/// # Errors
/// All attempts failed. The error is that of the first failed attempt, except that "connection
/// refused" wins over all others: it comes from the destination itself, while the others only
/// describe the path to it.
pub async fn race_attempts<'a, T>(
    attempts: Vec<ConnectAttempt<'a, T>>,
    attempt_delay: Duration,
    grace: Option<Duration>,
) -> io::Result<(usize, T)> {
    let mut race = RunningAttempts { running: Vec::new(), first_error: None };
    for attempt in attempts.into_iter().enumerate() {
        race.running.push(attempt);
        if let Ok(Some(winner)) = timeout(attempt_delay, race.first_success()).await {
            return Ok(winner);
        }
    }
    let winner = match grace {
        None => race.first_success().await,
        Some(grace) => match race.first_success_or_refusal().await {
            None => timeout(grace, race.first_success()).await.unwrap_or_default(),
            winner => winner,
        },
    };
    winner.ok_or_else(|| race.first_error.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into()))
}

struct RunningAttempts<'a, T> {
    running: Vec<(usize, ConnectAttempt<'a, T>)>,
    first_error: Option<io::Error>,
}

impl<T> RunningAttempts<'_, T> {
    fn has_refusal(&self) -> bool {
        self.first_error.as_ref().is_some_and(is_connection_refused)
    }

    /// Returns the first success, or `None` when all attempts have failed.
    async fn first_success(&mut self) -> Option<(usize, T)> {
        poll_fn(|cx| self.poll_attempts(cx)).await
    }

    /// Like [`Self::first_success`], but returns `None` also as soon as one attempt was refused.
    async fn first_success_or_refusal(&mut self) -> Option<(usize, T)> {
        poll_fn(|cx| match self.poll_attempts(cx) {
            Poll::Pending if self.has_refusal() => Poll::Ready(None),
            polled => polled,
        })
        .await
    }

    fn poll_attempts(&mut self, cx: &mut Context<'_>) -> Poll<Option<(usize, T)>> {
        let mut position = 0;
        while let Some((index, attempt)) = self.running.get_mut(position) {
            let index = *index;
            match attempt.as_mut().poll(cx) {
                Poll::Ready(Ok(value)) => return Poll::Ready(Some((index, value))),
                Poll::Ready(Err(error)) => {
                    drop(self.running.swap_remove(position));
                    if self.first_error.is_none() || is_connection_refused(&error) {
                        self.first_error = Some(error);
                    }
                }
                Poll::Pending => position += 1,
            }
        }
        if self.running.is_empty() { Poll::Ready(None) } else { Poll::Pending }
    }
}

fn is_connection_refused(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ConnectionRefused
}

#[cfg(test)]
mod tests {
    use std::{future::pending, io::ErrorKind};

    use tokio::time::sleep;

    use super::*;

    const ATTEMPT_DELAY: Duration = Duration::from_millis(50);

    fn resolved_after(
        millis: u64,
        result: Result<&'static str, ErrorKind>,
    ) -> ConnectAttempt<'static, &'static str> {
        Box::pin(async move {
            sleep(Duration::from_millis(millis)).await;
            result.map_err(io::Error::from)
        })
    }

    fn never_resolving() -> ConnectAttempt<'static, &'static str> {
        Box::pin(pending())
    }

    async fn race_result(
        attempts: Vec<ConnectAttempt<'static, &'static str>>,
        grace: Option<Duration>,
    ) -> Result<(usize, &'static str), ErrorKind> {
        race_attempts(attempts, ATTEMPT_DELAY, grace).await.map_err(|error| error.kind())
    }

    #[tokio::test]
    async fn a_stalled_attempt_does_not_delay_the_next() {
        assert_eq!(
            race_result(vec![never_resolving(), resolved_after(1, Ok("b"))], None).await,
            Ok((1, "b"))
        );
        let failed = resolved_after(5, Err(ErrorKind::HostUnreachable));
        assert_eq!(race_result(vec![failed, resolved_after(1, Ok("b"))], None).await, Ok((1, "b")));
        assert_eq!(
            race_result(vec![resolved_after(150, Ok("a")), never_resolving()], None).await,
            Ok((0, "a"))
        );
        assert_eq!(race_result(vec![], None).await, Err(ErrorKind::AddrNotAvailable));
    }

    #[tokio::test]
    async fn connection_refused_wins_over_other_errors_and_ends_the_race_after_the_grace() {
        let refused = || resolved_after(10, Err(ErrorKind::ConnectionRefused));
        let late = || resolved_after(300, Err(ErrorKind::HostUnreachable));
        for attempts in [vec![refused(), late()], vec![late(), refused()]] {
            assert_eq!(race_result(attempts, None).await, Err(ErrorKind::ConnectionRefused));
        }
        for attempts in [vec![refused(), never_resolving()], vec![never_resolving(), refused()]] {
            assert_eq!(
                race_result(attempts, Some(ATTEMPT_DELAY)).await,
                Err(ErrorKind::ConnectionRefused)
            );
        }
    }
}
