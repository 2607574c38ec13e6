//! Updates many elements of a map: with one call if the kernel supports it, one by one otherwise.

use std::{io, os::fd::BorrowedFd};

use crate::dataplane::{
    features::KernelFeature,
    maps::bpf_syscall::{update_batch, update_element},
};

/// Updates elements of a map. `batch_feature` is the kernel's support for batches on maps of this
/// type. On an error some elements may have been updated.
pub(crate) fn update_elements<K: Copy, V: Copy>(
    batch_feature: &KernelFeature,
    map: BorrowedFd<'_>,
    keys: &[K],
    values: &[V],
) -> io::Result<()> {
    assert_eq!(keys.len(), values.len(), "every key has a value");
    if batch_feature.is_supported() {
        return update_batch(map, keys, values);
    }
    let mut pairs = keys.iter().zip(values);
    pairs.try_for_each(|(key, value)| update_element(map, key, value))
}
