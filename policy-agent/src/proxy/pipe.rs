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
const SIZES: [(i32, usize); 2] = [(1 << 20, 64), (1 << 18, 1024)];
/// What a pipe holds unless told otherwise.
const DEFAULT_SIZE: usize = 1 << 16;
/// Idle pipes that are kept. An empty one takes a few KiB of the kernel's memory.
const KEPT: usize = 64;

/// Pipes that nobody needs at the moment.
#[derive(Debug, Default)]
pub struct Pool {
    idle: Mutex<Vec<Pipe>>,
    pipes: Arc<AtomicUsize>,
}

impl Pool {
    /// An empty pipe.
    ///
    /// # Errors
    /// The process has no file descriptors left.
    pub fn take(&self) -> io::Result<Pipe> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        idle.map_or_else(|| Pipe::new(&self.pipes), Ok)
    }

    /// Takes a pipe back, if it is empty: what one connection left in it must never reach another.
    pub fn give_back(&self, pipe: Pipe) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if pipe.held == 0 && idle.len() < KEPT {
            idle.push(pipe);
        }
    }
}

#[cfg(test)]
impl Pool {
    /// Pipes that nobody needs.
    pub fn kept(&self) -> usize {
        self.idle.lock().expect("nobody panics").len()
    }
}

/// A pipe.
#[derive(Debug)]
pub struct Pipe {
    output: OwnedFd,
    input: OwnedFd,
    size: usize,
    held: usize,
    /// How many pipes there are, this one among them.
    pipes: Arc<AtomicUsize>,
}

impl Pipe {
    fn new(pipes: &Arc<AtomicUsize>) -> io::Result<Self> {
        let (output, input) = pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC)?;
        let count = pipes.fetch_add(1, Ordering::Relaxed) + 1;
        let size = SIZES
            .into_iter()
            .filter(|(_, most)| count <= *most)
            .find_map(|(size, _)| fcntl(&input, FcntlArg::F_SETPIPE_SZ(size)).ok())
            .and_then(|size| usize::try_from(size).ok());
        let size = size.unwrap_or(DEFAULT_SIZE);
        Ok(Self { output, input, size, held: 0, pipes: Arc::clone(pipes) })
    }

    /// Bytes that are in it.
    pub const fn held(&self) -> usize {
        self.held
    }

    /// Moves what a socket has received, as far as there is room; 0: there will be no more.
    pub fn fill(&mut self, socket: impl AsFd) -> io::Result<usize> {
        let count = splice(socket, None, &self.input, None, self.size, flags())?;
        self.held += count;
        Ok(count)
    }

    /// Moves what it holds to a socket, as far as that has room.
    pub fn drain(&mut self, socket: impl AsFd) -> io::Result<()> {
        let count = splice(&self.output, None, socket, None, self.held, flags())?;
        self.held = self.held.saturating_sub(count);
        Ok(())
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.pipes.fetch_sub(1, Ordering::Relaxed);
    }
}

fn flags() -> SpliceFFlags {
    SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK
}
