//! stub
pub mod failure;
