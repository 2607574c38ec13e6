//! What clients of public URLs send, as hostile as chance makes it.

mod fields;
mod framing;
mod library;
mod target;
mod token;
