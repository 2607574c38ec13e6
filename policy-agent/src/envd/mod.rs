//! Hands the authority of a sandbox with `network.rules` to envd, E2B's daemon in the sandbox, if the
//! operator wants that: `POST /init` with `caBundle`, as E2B's orchestrator does.
//!
//! ```text
//! registry (a sandbox has rules) ─► ca_delivery ─► init_request ─► the sandbox's own address, by its
//!                                   (retried)                      interface
//! ```

mod ca_delivery;
mod init_request;

pub(crate) use self::ca_delivery::CaDelivery;
