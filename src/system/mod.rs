//! What does the operating system give?

pub mod allocator;
pub mod clock;
pub mod date;
pub mod deadline;
pub mod executor;
pub mod file_watch;
pub mod memory;
pub mod network_watch;
pub mod port_owner;
pub mod privileges;
pub mod sandbox;
pub mod scoped_address;
pub mod service_manager;
pub mod signals;
pub mod socket_owner;
pub mod thread;
