//! The async runtimes of the agent. The control plane has its own threads, so that neither a busy
//! sandbox nor its clients delay a change.

use std::{io, time::Duration};

use anyhow::{Context as _, Result};
use tokio::runtime::{Builder, Runtime};

use crate::traffic_workers::TrafficWorkers;

/// Threads of the control plane. One of them may be busy with a large body.
const CONTROL_THREADS: usize = 2;
/// How long pending work may take when the agent stops.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(1);

/// The agent's async runtimes.
pub struct AgentRuntimes {
    /// API, reconciler, watch, metrics, and all blocking tasks.
    pub control: Runtime,
    /// Egress proxy and gateway.
    pub traffic: TrafficWorkers,
}

impl AgentRuntimes {
    /// Starts the threads.
    ///
    /// # Errors
    /// The kernel cannot create more threads.
    pub fn start() -> Result<Self> {
        let start = || -> io::Result<Self> {
            let mut control = Builder::new_multi_thread();
            control.worker_threads(CONTROL_THREADS).thread_name("control").enable_all();
            Ok(Self { control: control.build()?, traffic: TrafficWorkers::start()? })
        };
        start().context("cannot start the runtime")
    }

    /// Stops the runtimes. Waits for a change in progress, but not for the event reader threads,
    /// which never end.
    pub fn stop(self) {
        self.control.shutdown_timeout(SHUTDOWN_GRACE);
        self.traffic.stop();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Arc, Mutex, mpsc},
        thread,
    };

    use super::*;

    #[test]
    fn traffic_does_not_keep_the_control_plane_waiting() {
        let runtimes = AgentRuntimes::start().expect("threads");
        let (done, waiting) = mpsc::channel::<()>();
        let waiting = Arc::new(Mutex::new(waiting));
        // More tasks than workers, none of which ever yields.
        for _ in 0..64 {
            let waiting = Arc::clone(&waiting);
            runtimes.traffic.next_runtime().spawn(async move {
                let _ = waiting.lock().map(|waiting| waiting.recv());
            });
        }
        let task = async { thread::current().name().map(str::to_owned) };
        let name = runtimes.control.block_on(runtimes.control.spawn(task)).expect("it ends");
        assert_eq!(name.as_deref(), Some("control"));
        drop(done);
        runtimes.stop();
    }
}
