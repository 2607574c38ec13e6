//! Several ways to the same end, of which the first that leads there counts (RFC 8305, 5): for the
//! egress proxy, which dials the addresses of a name, and for the gateway, which dials those of a
//! sandbox.

use std::{
    future::poll_fn,
    io,
    net::IpAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::timeout;

/// One family after the other in turn, so that one that does not work costs one attempt (RFC 8305,
/// 4).
#[must_use]
pub fn interleaved(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let of = |v6: bool| addresses.iter().filter(move |address| address.is_ipv6() == v6);
    let (mut v6, mut v4) = (of(true), of(false));
    let mut mixed = Vec::with_capacity(addresses.len());
    while mixed.len() < addresses.len() {
        mixed.extend(v6.next());
        mixed.extend(v4.next());
    }
    mixed
}

/// One way, which may take time.
pub type Way<'a, T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send + 'a>>;

/// Begins one attempt after the other: the next one when all so far have failed, or have taken
/// longer than `stagger`. Returns what the first to succeed returned, and its place among them.
/// Once one was refused, those that are under way have no longer than `grace`; `None`: they have the
/// time that they take.
///
/// # Errors
/// None succeeds. The error is the first one's, but "connection refused" wins over all others: it
/// is an answer of the destination, where the others are guesses about the way to it.
pub async fn race<'a, T>(
    ways: Vec<Way<'a, T>>,
    stagger: Duration,
    grace: Option<Duration>,
) -> io::Result<(usize, T)> {
    let mut race = Race { running: Vec::new(), error: None };
    for way in ways.into_iter().enumerate() {
        race.running.push(way);
        if let Ok(Some(won)) = timeout(stagger, race.won()).await {
            return Ok(won);
        }
    }
    let won = match grace {
        None => race.won().await,
        Some(grace) => match race.won_or_refused().await {
            None => timeout(grace, race.won()).await.unwrap_or_default(),
            won => won,
        },
    };
    won.ok_or_else(|| race.error.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into()))
}

struct Race<'a, T> {
    running: Vec<(usize, Way<'a, T>)>,
    error: Option<io::Error>,
}

impl<T> Race<'_, T> {
    fn is_refused(&self) -> bool {
        self.error.as_ref().is_some_and(is_refusal)
    }

    /// The first that succeeds; `None` when all have failed.
    async fn won(&mut self) -> Option<(usize, T)> {
        poll_fn(|cx| self.poll(cx)).await
    }

    /// The same, and `None` also when one was refused.
    async fn won_or_refused(&mut self) -> Option<(usize, T)> {
        poll_fn(|cx| match self.poll(cx) {
            Poll::Pending if self.is_refused() => Poll::Ready(None),
            polled => polled,
        })
        .await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<(usize, T)>> {
        let mut at = 0;
        while let Some((place, attempt)) = self.running.get_mut(at) {
            let place = *place;
            match attempt.as_mut().poll(cx) {
                Poll::Ready(Ok(won)) => return Poll::Ready(Some((place, won))),
                Poll::Ready(Err(error)) => {
                    drop(self.running.swap_remove(at));
                    if self.error.is_none() || is_refusal(&error) {
                        self.error = Some(error);
                    }
                }
                Poll::Pending => at += 1,
            }
        }
        if self.running.is_empty() { Poll::Ready(None) } else { Poll::Pending }
    }
}

fn is_refusal(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ConnectionRefused
}

#[cfg(test)]
mod tests {
    use std::{future::pending, io::ErrorKind};

    use tokio::time::sleep;

    use super::*;

    const STAGGER: Duration = Duration::from_millis(50);

    fn after(millis: u64, end: Result<&'static str, ErrorKind>) -> Way<'static, &'static str> {
        Box::pin(async move {
            sleep(Duration::from_millis(millis)).await;
            end.map_err(io::Error::from)
        })
    }

    fn silent() -> Way<'static, &'static str> {
        Box::pin(pending())
    }

    async fn end(
        ways: Vec<Way<'static, &'static str>>,
        grace: Option<Duration>,
    ) -> Result<(usize, &'static str), ErrorKind> {
        race(ways, STAGGER, grace).await.map_err(|error| error.kind())
    }

    #[tokio::test]
    async fn a_way_that_leads_nowhere_does_not_hold_up_the_next() {
        assert_eq!(end(vec![silent(), after(1, Ok("b"))], None).await, Ok((1, "b")));
        let failed = after(5, Err(ErrorKind::HostUnreachable));
        assert_eq!(end(vec![failed, after(1, Ok("b"))], None).await, Ok((1, "b")));
        assert_eq!(end(vec![after(150, Ok("a")), silent()], None).await, Ok((0, "a")));
        assert_eq!(end(vec![], None).await, Err(ErrorKind::AddrNotAvailable));
    }

    #[tokio::test]
    async fn refused_wins_over_other_errors_and_ends_the_waiting_where_that_is_asked_for() {
        let refused = || after(10, Err(ErrorKind::ConnectionRefused));
        let late = || after(300, Err(ErrorKind::HostUnreachable));
        for ways in [vec![refused(), late()], vec![late(), refused()]] {
            assert_eq!(end(ways, None).await, Err(ErrorKind::ConnectionRefused));
        }
        for ways in [vec![refused(), silent()], vec![silent(), refused()]] {
            assert_eq!(end(ways, Some(STAGGER)).await, Err(ErrorKind::ConnectionRefused));
        }
    }
}
