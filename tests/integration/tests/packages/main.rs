//! The packages that `cargo xtask dist` makes, in roots of their own.

mod debian_package;
mod debian_root;
mod portable_packages;
