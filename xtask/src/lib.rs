//! What keeps this repository honest: house rules as tests ([`tidy`]) and bars ([`bars`]), which
//! drive the built binary from outside and count at the client.
#![expect(clippy::disallowed_methods, reason = "a shell: bars measure real time and poll")]

pub mod bars;
pub mod load;
pub mod stage;
pub mod tidy;
