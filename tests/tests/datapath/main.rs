//! The kernel programs, frame by frame: fixtures of a frame, the sandbox it comes from, and the
//! verdict that the law wants, run through the real gate by `BPF_PROG_TEST_RUN`. Every fixture is
//! also put to the oracle and to the XDP program, which have to agree.

mod datapath_case;
mod deny_replies;
mod destination_rules;
mod discovery_frames;
mod fragment_state;
mod frame_truncation;
mod inbound_state;
mod malformed_frames;
mod verifier_budget;
