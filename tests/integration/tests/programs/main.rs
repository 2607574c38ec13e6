//! The kernel programs, run on one frame at a time by `BPF_PROG_TEST_RUN`.
//!
//! - Fixtures: a frame, the sandbox that sends or receives it, and the expected verdict. The oracle
//!   and the XDP program must agree with each of them.
//! - [`differential`]: random policies and random packets, compared with the oracle.
//! - [`program_log`]: what the programs log.

mod background_denials;
mod connection_lifetimes;
mod datapath_case;
mod denied_floods;
mod deny_replies;
mod destination_rules;
mod differential;
mod differential_run;
mod discovery_frames;
mod fragment_state;
mod frame_truncation;
mod inbound_state;
mod malformed_frames;
mod program_log;
mod program_reuse;
mod shared_bounds;
mod table_memory;
mod verifier_budget;
