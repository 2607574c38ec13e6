//! Property tests with hostile input from clients of public URLs.

mod hyper_agreement;
mod split_requests;
mod spoofed_headers;
mod target_parsing;
mod token_stripping;
