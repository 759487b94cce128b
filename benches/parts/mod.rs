//! What is measured.

pub mod chain;
pub mod count;
pub mod deadline;
