//! System calls: the only unsafe code of the engine.

pub mod fs;
pub mod paths;
