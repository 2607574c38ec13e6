//! Pipes that carry bytes between sockets inside the kernel. They are held only while bytes are in
//! flight, so that idle connections have none.

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

/// Sizes to ask for, in bytes, while there are not more pipes than this: many slow readers must not
/// hold much of the machine's memory. Without CAP_SYS_RESOURCE the larger ones may be refused
/// (pipe(7), fs.pipe-max-size and fs.pipe-user-pages-soft).
const PIPE_SIZES: [(i32, usize); 2] = [(1 << 20, 64), (1 << 18, 1024)];
/// What a pipe holds unless told otherwise.
const DEFAULT_PIPE_SIZE: usize = 1 << 16;
/// Idle pipes that are kept. An empty one takes a few KiB of the kernel's memory.
const MAX_IDLE_PIPES: usize = 64;

/// Pipes that nobody needs at the moment.
#[derive(Debug, Default)]
pub struct PipePool {
    idle: Mutex<Vec<SplicePipe>>,
    open_pipes: Arc<AtomicUsize>,
}

impl PipePool {
    /// An empty pipe.
    ///
    /// # Errors
    /// The process has no file descriptors left.
    pub fn acquire(&self) -> io::Result<SplicePipe> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        idle.map_or_else(|| SplicePipe::new(&self.open_pipes), Ok)
    }

    /// Takes a pipe back, if it is empty: what one connection left in it must never reach another.
    pub fn release(&self, pipe: SplicePipe) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if pipe.buffered == 0 && idle.len() < MAX_IDLE_PIPES {
            idle.push(pipe);
        }
    }
}

#[cfg(test)]
impl PipePool {
    /// Pipes that nobody needs.
    pub fn idle_count(&self) -> usize {
        self.idle.lock().expect("nobody panics").len()
    }
}

/// A pipe.
#[derive(Debug)]
pub struct SplicePipe {
    read_end: OwnedFd,
    write_end: OwnedFd,
    capacity: usize,
    buffered: usize,
    /// How many pipes there are, this one among them.
    open_pipes: Arc<AtomicUsize>,
}

impl SplicePipe {
    fn new(open_pipes: &Arc<AtomicUsize>) -> io::Result<Self> {
        let (read_end, write_end) = pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC)?;
        let count = open_pipes.fetch_add(1, Ordering::Relaxed) + 1;
        let capacity = PIPE_SIZES
            .into_iter()
            .filter(|(_, most)| count <= *most)
            .find_map(|(size, _)| fcntl(&write_end, FcntlArg::F_SETPIPE_SZ(size)).ok())
            .and_then(|size| usize::try_from(size).ok());
        let capacity = capacity.unwrap_or(DEFAULT_PIPE_SIZE);
        Ok(Self { read_end, write_end, capacity, buffered: 0, open_pipes: Arc::clone(open_pipes) })
    }

    /// Bytes that are in it.
    pub const fn buffered(&self) -> usize {
        self.buffered
    }

    /// Moves what a socket has received, as far as there is room; 0: there will be no more.
    pub fn fill_from(&mut self, socket: impl AsFd) -> io::Result<usize> {
        let count = splice(socket, None, &self.write_end, None, self.capacity, splice_flags())?;
        self.buffered += count;
        Ok(count)
    }

    /// Moves what it holds to a socket, as far as that has room.
    pub fn drain_to(&mut self, socket: impl AsFd) -> io::Result<()> {
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
