//! Pipes that move bytes between sockets inside the kernel. A connection holds a pipe only while
//! bytes are in flight, so idle connections have none.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use nix::{
    fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice},
    unistd::pipe2,
};

/// Pipe sizes to request, in bytes, and how many pipes may be open for each: many slow readers must
/// not pin much of the machine's memory. Without CAP_SYS_RESOURCE the kernel may refuse the larger
/// sizes (pipe(7), fs.pipe-max-size and fs.pipe-user-pages-soft).
const PIPE_SIZES: [(i32, usize); 2] = [(1 << 20, 64), (1 << 18, 1024)];
/// The kernel's default pipe size.
const DEFAULT_PIPE_SIZE: usize = 1 << 16;
/// Maximum number of idle pipes. An empty pipe takes a few KiB of kernel memory.
const MAX_IDLE_PIPES: usize = 64;

/// A pool of idle pipes.
#[derive(Debug, Default)]
pub(super) struct PipePool {
    idle: Mutex<Vec<SplicePipe>>,
    open_pipes: Arc<AtomicUsize>,
}

impl PipePool {
    /// Takes an idle pipe or creates one. It is empty.
    ///
    /// # Errors
    /// The process has no file descriptors left.
    pub(super) fn acquire(&self) -> io::Result<SplicePipe> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        idle.map_or_else(|| SplicePipe::new(&self.open_pipes), Ok)
    }

    /// Returns a pipe to the pool if it is empty: bytes that one connection left in it must never
    /// reach another.
    pub(super) fn release(&self, pipe: SplicePipe) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if pipe.buffered == 0 && idle.len() < MAX_IDLE_PIPES {
            idle.push(pipe);
        }
    }
}

#[cfg(test)]
impl PipePool {
    /// The number of idle pipes.
    pub(super) fn idle_count(&self) -> usize {
        self.idle.lock().expect("nobody panics").len()
    }
}

/// A pipe for splice(2).
#[derive(Debug)]
pub(super) struct SplicePipe {
    read_end: OwnedFd,
    write_end: OwnedFd,
    capacity: usize,
    buffered: usize,
    /// The number of open pipes, including this one.
    open_pipes: Arc<AtomicUsize>,
}

impl SplicePipe {
    fn new(open_pipes: &Arc<AtomicUsize>) -> io::Result<Self> {
        let (read_end, write_end) = pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC)?;
        let count = open_pipes.fetch_add(1, Ordering::Relaxed) + 1;
        let capacity = PIPE_SIZES
            .into_iter()
            .filter(|(_, max_open)| count <= *max_open)
            .find_map(|(size, _)| fcntl(&write_end, FcntlArg::F_SETPIPE_SZ(size)).ok())
            .and_then(|size| usize::try_from(size).ok());
        let capacity = capacity.unwrap_or(DEFAULT_PIPE_SIZE);
        Ok(Self { read_end, write_end, capacity, buffered: 0, open_pipes: Arc::clone(open_pipes) })
    }

    /// The number of bytes in the pipe.
    pub(super) const fn buffered(&self) -> usize {
        self.buffered
    }

    /// Moves bytes from a socket into the pipe, as far as there is room. 0 means end of stream.
    pub(super) fn fill_from(&mut self, socket: impl AsFd) -> io::Result<usize> {
        let count = splice(socket, None, &self.write_end, None, self.capacity, splice_flags())?;
        self.buffered += count;
        Ok(count)
    }

    /// Moves bytes from the pipe to a socket, as far as the socket accepts them.
    pub(super) fn drain_to(&mut self, socket: impl AsFd) -> io::Result<()> {
        let count = splice(&self.read_end, None, socket, None, self.buffered, splice_flags())?;
        self.buffered = self.buffered.saturating_sub(count);
        Ok(())
    }
}

impl Drop for SplicePipe {
    fn drop(&mut self) {
        self.open_pipes.fetch_sub(1, Ordering::Relaxed);
    }
}

fn splice_flags() -> SpliceFFlags {
    SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK
}
