//! The agent as operators run it: its log, its signals, its metrics, its memory, and the API among
//! strangers.

mod crowd;
mod denials;
mod document;
mod documented;
mod log;
mod memory;
mod metrics;
mod signals;
