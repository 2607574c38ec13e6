//! The record of what sandboxes reached and what was refused, aggregated by destination. It is
//! bounded per sandbox and in all, and kept over restarts in files.
//!
//! ```text
//! events (kernel, egress proxy) ─► FlowRecord ─► API, CLI
//!                                      └► RecordWriter ─► JSON lines in state_dir/record
//! ```
//!
//! It takes the events that the agent gets anyway, so that it costs the packet path nothing. The
//! egress proxy also gives it what the limit of events keeps from the event buffer.

mod flow_destination_key;
mod flow_record;
mod flow_table;
mod record_file;
mod record_writer;
mod recorded_flow;

pub use self::{
    flow_record::{FlowQuery, FlowRecord, FlowSelection},
    record_file::RecordFile,
    record_writer::RecordWriter,
    recorded_flow::{FlowDecision, RecordedFlow},
};
