//! What people see: pages made of plain spans, escaped and coloured only where they are written.

pub mod page;
