//! The threads that carry traffic: one per core, each with a runtime of its own.
//!
//! A connection stays on the worker that it was given to, with its sockets and all its tasks. So no
//! core waits for another in the middle of a request. The egress proxy and the gateway accept
//! connections and hand them to the workers.

use std::{
    cell::Cell,
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use tokio::{
    net::TcpStream,
    runtime::{Builder, Handle},
};
use tokio_util::sync::CancellationToken;

thread_local! {
    /// The index of the worker that this thread is.
    static WORKER_INDEX: Cell<usize> = const { Cell::new(0) };
}

/// The index of the current worker, for what each of them has of its own. 0 on other threads.
pub fn current_worker_index() -> usize {
    WORKER_INDEX.get()
}

/// All workers. Clones share them.
#[derive(Clone, Debug)]
pub struct TrafficWorkers {
    workers: Arc<[TrafficWorker]>,
    next: Arc<AtomicUsize>,
    stop: CancellationToken,
}

#[derive(Debug)]
struct TrafficWorker {
    runtime: Handle,
    connections: Arc<AtomicUsize>,
}

/// Counts a connection as its worker's until it is dropped.
#[derive(Debug)]
pub struct WorkerLoad(Arc<AtomicUsize>);

impl Drop for WorkerLoad {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl TrafficWorkers {
    /// Starts a worker per core that the process may use.
    ///
    /// # Errors
    /// The kernel cannot create more threads.
    pub fn start() -> io::Result<Self> {
        let (count, stop) = (thread::available_parallelism()?.get(), CancellationToken::new());
        let workers = (0..count).map(|index| TrafficWorker::start(index, stop.clone()));
        Ok(Self { workers: workers.collect::<io::Result<_>>()?, next: Arc::default(), stop })
    }

    /// The current runtime as the only worker.
    #[cfg(test)]
    pub(crate) fn of_current_runtime() -> Self {
        let worker = TrafficWorker { runtime: Handle::current(), connections: Arc::default() };
        Self { workers: [worker].into(), next: Arc::default(), stop: CancellationToken::new() }
    }

    /// The runtimes of the workers in turn, for what runs for long and costs little.
    pub fn next_runtime(&self) -> &Handle {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        &self.workers[turn % self.workers.len()].runtime
    }

    /// Lets the worker with the fewest connections serve one, preferably the current worker.
    /// `serve` runs on that worker and must not block.
    pub fn serve_connection(
        &self,
        stream: TcpStream,
        serve: impl FnOnce(TcpStream, WorkerLoad) + Send + 'static,
    ) {
        let own = current_worker_index();
        let load = |index: usize| self.workers[index].connections.load(Ordering::Relaxed);
        let chosen = (0..self.workers.len()).min_by_key(|index| (load(*index), *index != own));
        let chosen = chosen.unwrap_or_default();
        let worker = &self.workers[chosen];
        worker.connections.fetch_add(1, Ordering::Relaxed);
        let load = WorkerLoad(Arc::clone(&worker.connections));
        if chosen == own {
            return serve(stream, load);
        }
        // An error ends the connection: the kernel could not watch its socket.
        let Ok(stream) = stream.into_std() else { return };
        worker.runtime.spawn(async move {
            if let Ok(stream) = TcpStream::from_std(stream) {
                serve(stream, load);
            }
        });
    }

    /// Ends all tasks, but does not wait for the one that each worker is in.
    pub fn stop(&self) {
        self.stop.cancel();
    }
}

impl TrafficWorker {
    fn start(index: usize, stop: CancellationToken) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let worker = Self { runtime: runtime.handle().clone(), connections: Arc::default() };
        let serve = move || {
            WORKER_INDEX.set(index);
            runtime.block_on(stop.cancelled());
            runtime.shutdown_background();
        };
        thread::Builder::new().name("traffic".to_owned()).spawn(serve)?;
        Ok(worker)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncReadExt as _, net::TcpListener, sync::mpsc};

    use super::*;

    /// Workers of which there are two, whatever the machine.
    fn two_workers() -> TrafficWorkers {
        let stop = CancellationToken::new();
        let workers =
            [0, 1].map(|index| TrafficWorker::start(index, stop.clone()).expect("starts"));
        TrafficWorkers { workers: workers.into(), next: Arc::default(), stop }
    }

    #[tokio::test]
    async fn the_worker_with_the_fewest_connections_gets_the_next() {
        let workers = two_workers();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (report, mut served) = mpsc::unbounded_channel();
        let accepting = workers.clone();
        let accept = async move {
            while let Ok((stream, _)) = listener.accept().await {
                let report = report.clone();
                accepting.serve_connection(stream, move |stream, load| {
                    report.send((current_worker_index(), load)).expect("a test");
                    drop(tokio::spawn(async move { drain(stream).await }));
                });
            }
        };
        workers.next_runtime().spawn(accept);
        let mut loads = [Vec::new(), Vec::new()];
        let mut clients = Vec::new();
        for _ in 0..20 {
            clients.push(TcpStream::connect(address).await.expect("connects"));
            let (index, load) = served.recv().await.expect("a connection");
            loads[index].push(load);
        }
        assert_eq!(loads.each_ref().map(Vec::len), [10, 10]);
        // Connections that end make room on their own worker.
        loads[1].clear();
        clients.push(TcpStream::connect(address).await.expect("connects"));
        assert_eq!(served.recv().await.expect("a connection").0, 1);
        workers.stop();
        // Both ends: the workers' tasks are gone, and with them the connections.
        for mut client in clients {
            let _ = client.read_to_end(&mut Vec::new()).await;
        }
    }

    async fn drain(mut stream: TcpStream) {
        let _ = stream.read_to_end(&mut Vec::new()).await;
    }
}
