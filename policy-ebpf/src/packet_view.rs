//! The bytes of a packet that can be read directly: a checked view over the linear part.

use core::mem::size_of;

/// The largest offset a read may start at: bounds what the verifier has to track.
const MAX_READ_OFFSET: usize = 1024;

/// A view over `[start, end)`, the linear part of a packet that begins with the Ethernet header.
#[derive(Clone, Copy)]
pub(crate) struct PacketView {
    start: usize,
    end: usize,
}

impl PacketView {
    /// The view over the bytes from `data` to `data_end` of a context.
    #[inline(always)]
    pub(crate) fn new(start: usize, end: usize) -> Self {
        Self { start, end }
    }

    /// The bytes at `offset`, or `None` when the linear part ends before.
    ///
    /// `T` is made of bytes (alignment 1), so any offset will do. At an offset that is not constant
    /// it must have two bytes at least: of `pointer >= end`, which the compiler makes of the check
    /// for one byte, the verifier learns nothing.
    #[inline(always)]
    pub(crate) fn read_at<T: Copy>(&self, offset: usize) -> Option<&T> {
        const { assert!(align_of::<T>() == 1) };
        if offset > MAX_READ_OFFSET {
            return None;
        }
        let field = self.start + offset;
        if field + size_of::<T>() > self.end {
            return None;
        }
        // SAFETY: the bounds were checked above, in the form the verifier recognises; T has no
        // alignment and, being bytes, no invalid values.
        Some(unsafe { &*(field as *const T) })
    }

    /// Length of the linear part.
    #[inline(always)]
    pub(crate) fn linear_len(&self) -> usize {
        self.end - self.start
    }
}
