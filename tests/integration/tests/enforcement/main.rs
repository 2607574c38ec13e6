//! What a policy allows and denies, tested with real sockets and raw frames for every way to attach
//! to a sandbox's interface.

mod bridged_frames;
mod checksum;
mod clsact;
mod connection_load;
mod denial_events;
mod deny_action;
mod explain;
mod floor;
mod fragments;
mod frame_fixtures;
mod inbound_connections;
mod must_work;
mod network_baseline;
mod other_namespaces;
mod policy_updates;
mod precedence;
mod precedence_cases;
mod virtio_tap;
mod xdp;
