//! The operation of the agent: its log, its signals, its metrics, its memory, and the API under
//! unauthenticated load.

mod agent_log;
mod agent_memory;
mod api_connections;
mod command_line;
mod denied_names;
mod documented_metrics;
mod flow_record;
mod metrics;
mod prometheus;
mod schemathesis;
mod signals;
