//! Draws random numbers. The only place that does.

use election::Entropy;

/// Randomness of the kernel, asked for each time: a cloned process draws other bits.
/// See docs/safety.md R10.
#[derive(Clone, Copy, Debug)]
pub struct KernelEntropy;

impl Entropy for KernelEntropy {
    fn bits(&mut self) -> u64 {
        let mut bytes = [0; 8];
        // The kernel's pool is up before any process of ours: this loops only over interruptions by signals.
        while rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty()) != Ok(bytes.len()) {}
        u64::from_ne_bytes(bytes)
    }
}
