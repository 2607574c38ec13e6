//! The pinned maps: what the agent writes into them and reads from them.

pub mod batch_update;
pub mod bpf_syscall;
pub mod endpoint_maps;
pub mod event_ring;
pub mod pin_directory;
pub mod pinned_maps;
pub mod policy_image;
pub mod policy_maps;
pub mod poptrie_builder;
