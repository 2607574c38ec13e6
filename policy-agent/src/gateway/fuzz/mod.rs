//! What clients of public URLs send, as hostile as chance makes it.

mod hyper_agreement;
mod split_requests;
mod spoofed_headers;
mod target_parsing;
mod token_stripping;
