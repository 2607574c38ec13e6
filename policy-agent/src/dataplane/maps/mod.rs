//! The pinned maps, which the agent writes and reads.

pub(crate) mod bpf_syscall;
pub(crate) mod counter_groups;
pub(crate) mod endpoint_maps;
pub(crate) mod event_ring;
pub(crate) mod mapped_endpoints;
pub(crate) mod mapped_words;
pub(crate) mod pin_directory;
pub(crate) mod pinned_maps;
