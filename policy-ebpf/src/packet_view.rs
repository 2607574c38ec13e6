//! A bounds-checked view of the linear part of a packet, which can be read directly.

use core::mem::size_of;

/// Maximum offset of a read. It bounds what the verifier has to track.
const MAX_READ_OFFSET: usize = 1024;

/// A view of `[start, end)`, the linear part of a packet. It starts with the Ethernet header.
#[derive(Clone, Copy)]
pub(crate) struct PacketView {
    start: usize,
    end: usize,
}

impl PacketView {
    /// Creates a view of the bytes from `data` to `data_end` of a context.
    #[inline(always)]
    pub(crate) fn new(start: usize, end: usize) -> Self {
        Self { start, end }
    }

    /// The value at `offset`, or `None` if it is not within the linear part.
    ///
    /// `T` must have alignment 1, so that any offset is valid. At a variable offset it must have at
    /// least two bytes: the compiler turns the check for one byte into `pointer >= end`, from which
    /// the verifier learns nothing.
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
        // SAFETY: the bounds are checked above, in the form that the verifier recognises. T
        // consists of bytes, so it has no alignment and no invalid values.
        Some(unsafe { &*(field as *const T) })
    }

    /// Length of the linear part.
    #[inline(always)]
    pub(crate) fn linear_len(&self) -> usize {
        self.end - self.start
    }
}
