//! What the kernel tells about packets: read, given names, kept for a while, and handed to whoever
//! follows.

mod hub;
mod reader;
mod record;

pub use self::{
    hub::{Filter, Hub, News, Subscription},
    reader::read,
    record::Record,
};
