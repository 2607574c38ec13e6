//! Containers of Docker and Podman: finds their interfaces and addresses, and follows them when they
//! are restarted.
//!
//! The engine says which addresses a container has, and the kernel which interface of the host leads
//! to it. Nothing that the container itself can change is asked.

mod container_event;
mod engine_api;
mod follower;
mod inspection;
mod pending_looks;

pub(crate) use self::{engine_api::ContainerEngines, follower::ContainerFollower};
