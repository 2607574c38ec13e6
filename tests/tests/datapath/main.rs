//! The kernel programs, frame by frame: fixtures of a frame, the sandbox it comes from, and the
//! verdict that the law wants, run through the real gate by `BPF_PROG_TEST_RUN`. Every fixture is
//! also put to the oracle and to the XDP program, which have to agree.

mod addresses;
mod answers;
mod budget;
mod discovery;
mod fragments;
mod frames;
mod inbound;
mod stage;
mod truncation;
