//! The tables that the kernel programs look destinations up in.

mod block_allocator;
pub(crate) mod grace_period;
mod lpm_tries;
pub(crate) mod policy_tables;
mod reclaimer;
pub(crate) mod table_memory;
mod trie_builder;
