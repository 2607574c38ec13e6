//! Serves one connection of a sandbox.

use std::{io, sync::Arc};

use policy_common::reason::Reason;
use tokio::{
    io::{AsyncWriteExt as _, copy_bidirectional},
    time::timeout,
};
use tokio_rustls::client::TlsStream;

use super::{
    alert::Alert,
    claim::Claim,
    counts::Protocol,
    dial::{Target, dial},
    http,
    means::Means,
    socket::{Socket, Stream, broken, reset, write_all},
    splice,
    tls::{self, NoHello},
    upstream::{Carrier, Upstream},
    verdict::{End, HTTP, Subject, Way, way},
};

/// Serves a connection from when it is accepted until it goes out or ends. Each kind has a task of
/// its own size.
pub fn start(claim: Claim) {
    let way = way(&claim.rules(), claim.destination());
    match way {
        Way::ByName if claim.destination().port() == HTTP => drop(tokio::spawn(http::serve(claim))),
        Way::ByName => drop(tokio::spawn(by_sni(claim))),
        Way::Carried(_) => drop(tokio::spawn(carried(claim))),
        Way::Stray(explanation) => refuse(claim, Protocol::Tcp, None, explanation.into(), &[]),
    }
}

async fn by_sni(claim: Claim) {
    let mut reader = tls::Reader::default();
    let asked = timeout(claim.means().patience.ask, tls::read(&claim.client, &mut reader)).await;
    let bytes = reader.into_bytes();
    let reason = match asked {
        Ok(Ok(name)) => {
            let subject = Subject::Name(name.map(Arc::from));
            return go_on(claim, Protocol::Tls, &subject, &bytes).await;
        }
        Ok(Err(NoHello::Closed)) => return,
        Ok(Err(NoHello::Bad(reason))) => reason,
        Err(_) => Reason::ProxyTimeout,
    };
    refuse(claim, Protocol::Tls, None, reason.into(), &bytes);
}

async fn carried(claim: Claim) {
    go_on(claim, Protocol::Tcp, &Subject::Address, &[]).await;
}

/// Judges, connects, and sends on what was read.
async fn go_on(claim: Claim, protocol: Protocol, subject: &Subject, bytes: &[u8]) {
    match connect(&claim, protocol, subject, bytes).await {
        // A small task of its own: what judging needed is given back.
        Ok(upstream) => drop(tokio::spawn(join(claim, upstream))),
        Err(end) => refuse(claim, protocol, subject.name(), end, bytes),
    }
}

async fn connect(
    claim: &Claim,
    protocol: Protocol,
    subject: &Subject,
    bytes: &[u8],
) -> Result<Upstream, End> {
    let pass = claim.judge(subject)?;
    let target = Target::new(claim.destination(), subject.name());
    let dial = dial(claim.means(), &pass.rules, &target);
    let mut upstream = claim.while_there(dial).await?;
    claim.attach(&upstream.socket)?;
    claim.let_out(protocol, subject.name(), pass.grounds);
    let sent = async { send(&mut upstream, bytes).await.map_err(|_| End::Gone) };
    claim.while_there(sent).await?;
    Ok(upstream)
}

async fn send(upstream: &mut Upstream, bytes: &[u8]) -> io::Result<()> {
    match &mut upstream.carrier {
        Carrier::Plain(Stream(socket)) => write_all(socket, bytes).await,
        Carrier::Encrypted(stream) => {
            stream.write_all(bytes).await?;
            stream.flush().await
        }
    }
}

/// Carries the connection until it is over.
async fn join(claim: Claim, upstream: Upstream) {
    carry(claim.means(), &claim.client, upstream).await;
}

/// Carries bytes both ways until the end.
pub async fn carry(means: &Means, client: &Socket, upstream: Upstream) {
    let Upstream { socket, carrier } = upstream;
    match carrier {
        // An error has reset both, which is all that there is to say about it.
        Carrier::Plain(_) => drop(splice::join(&means.pipes, client, &socket).await),
        // Boxed: it is the larger by far, and rare.
        Carrier::Encrypted(stream) => Box::pin(copy(client, &socket, stream)).await,
    }
}

/// The same, through this process, which encrypts.
async fn copy(client: &Socket, upstream: &Socket, mut stream: Box<TlsStream<Stream>>) {
    let mut near = Stream(Arc::clone(client));
    let whole = tokio::select! {
        copied = copy_bidirectional(&mut near, &mut stream) => copied.is_ok(),
        // Where a side is half-closed nobody would notice.
        () = broken(client) => false,
        () = broken(upstream) => false,
    };
    if !whole {
        reset(client);
        reset(upstream);
    }
}

/// Ends a connection that is not let out. A client that speaks TLS is told so in its own way; these
/// bytes have come from it.
fn refuse(claim: Claim, protocol: Protocol, name: Option<&str>, end: End, sent: &[u8]) {
    let End::Refused(grounds) = end else { return reset(&claim.client) };
    let alert = Alert::of(grounds.reason, sent).filter(|_| protocol == Protocol::Tls);
    claim.refuse(protocol, name, grounds);
    match alert {
        // A small task of its own: what judging needed is given back.
        Some(alert) => drop(tokio::spawn(dismiss(claim, alert))),
        None => reset(&claim.client),
    }
}

async fn dismiss(claim: Claim, alert: Alert) {
    alert.send(&claim.client, claim.means().patience).await;
}

/// Bytes that the task of an established connection takes.
#[cfg(test)]
pub fn task_size() -> usize {
    fn size<F: Future>(_: impl FnOnce(Claim, Upstream) -> F) -> usize {
        size_of::<F>()
    }
    size(join)
}
