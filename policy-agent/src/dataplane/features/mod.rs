//! What the running kernel can do, and what the agent does where it cannot.

pub mod huge_poptries;
pub mod skb_layout;
